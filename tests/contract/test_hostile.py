"""Whatever is sent to whichever route: an answer of the contract's, no 500, and everything goes on working (§1.4)."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from keystead import probes
from keystead.app import SERVICES
from tests.support.flow import self_serve
from tests.support.half_done import nothing_is_half_done
from tests.support.hostile import anything, as_target, as_value, hostile, texts
from tests.support.installation import MASTER_KEY, PASSWORD, Installation, Person, claims_of, installation
from tests.support.raw_http import Answer, Header, exchange, hang_up
from tests.support.refusals import read_refusal

ROUTERS = [*(router for service in SERVICES for router in service.routes), probes.router]
EVERY = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
ROUTES = [route for route in EVERY if route.include_in_schema]
PAGES = [route for route in EVERY if not route.include_in_schema]
MODEL_CALLS = [route.path for route in ROUTES if route.path.endswith(("/completions", "/embeddings"))]
WITH_BODY = {"POST", "PUT", "PATCH"}
NO_BODY_TAKEN = ("/logout", "/session/logout")
POSTS = [route for route in ROUTES if WITH_BODY & (route.methods or set()) and route.path not in NO_BODY_TAKEN]
WITHOUT_BODY = [route for route in ROUTES if not WITH_BODY & (route.methods or set())]
# Each of these answers costs a password hash.
DEAR = ("/v2/login", "/onboarding/claim_token")
CHEAP = [route for route in POSTS if route.path not in DEAR]
PAGES_FIELDS = "username password id token key_alias models max_budget duration key error login after status".split()
JSON: Header = (b"Content-Type", b"application/json")


NAMES_OF_OTHERS = [
    "tpm_limit",
    "team_id",
    "organization_id",
    "aliases",
    "password",
    "spend",
    "__proto__",
    "key",
    "id",
    "",
]


def method_of(route: APIRoute) -> str:
    return sorted(route.methods or ())[0]


def name_of(route: APIRoute) -> str:
    return f"{method_of(route)} {route.path}"


def fields_of(route: APIRoute) -> list[str]:
    """The names that a route's body knows."""
    if route.path in MODEL_CALLS:
        names = "model messages prompt input stream stream_options max_tokens max_completion_tokens n best_of user"
        more = "metadata tools tool_choice temperature stop logit_bias response_format litellm_session_id modalities"
        return [*names.split(), *more.split()]
    return [name for model in _models_of(route) for name in model.model_fields]


def _models_of(route: APIRoute) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for field in (*route.dependant.body_params, *route.dependant.query_params):
        kinds = [field.field_info.annotation, *getattr(field.field_info.annotation, "__args__", ())]
        found += [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found


def bodies_of(route: APIRoute) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from([*fields_of(route)] or ["x"]) | st.sampled_from(NAMES_OF_OTHERS) | texts
    return st.dictionaries(names, anything, max_size=5)


# The world.


@dataclass
class World:
    it: Installation
    ada: Person
    key: str
    ref: str
    link: str
    links_credential: str

    def target(self, path: str) -> bytes:
        """A path with something in the place of its parameter that is really there."""
        there = {"{ref}": self.ref, "{scope:path}": f"user:{self.ada.user_id}", "{model:path}": "mock-fast"}
        return re.sub(r"{[^}]*}", lambda found: there.get(found[0], "nothing"), path).encode()

    def valid(self, route: APIRoute) -> dict[str, Any]:
        """A body that nothing is wrong with, or at least nothing that is looked at first."""
        bodies: Mapping[str, dict[str, Any]] = {
            "/user/update": {"user_id": self.ada.user_id},
            "/user/delete": {"user_ids": ["nobody"]},
            "/v2/login": {"username": self.ada.email, "password": PASSWORD},
            "/invitation/new": {"user_id": self.ada.user_id},
            "/invitation/update": {"invitation_id": self.ref, "is_accepted": False},
            "/invitation/delete": {"invitation_id": "nothing"},
            "/onboarding/claim_token": {"invitation_link": self.link, "user_id": self.ada.user_id, "password": "short"},
            "/key/update": {"key": self.key},
            "/key/delete": {"keys": ["nothing"]},
            "/key/block": {"key": "nothing"},
            "/key/unblock": {"key": self.key},
        }
        call = {"model": "mock-fast", "max_tokens": 2}
        if route.path.endswith("/chat/completions"):
            return {**call, "messages": [{"role": "user", "content": "Hi"}]}
        if route.path.endswith("/completions"):
            return {**call, "prompt": "Hi"}
        if route.path.endswith("/embeddings"):
            return {"model": "mock-fast", "input": "Hi"}
        return dict(bodies.get(route.path, {}))

    def credential(self, route: APIRoute) -> Header:
        credential = self.links_credential if route.path.startswith("/onboarding") else MASTER_KEY
        return b"Authorization", b"Bearer " + credential.encode()

    async def send(
        self,
        method: str,
        target: bytes,
        headers: list[Header],
        body: bytes = b"",
        *,
        not_http_allowed: bool = False,
        page: bool = False,
    ) -> Answer:
        """One request, and its answer looked at: below 500, and if it is a refusal then one of the contract's."""
        answer = await exchange(self.it.url, method, target, headers, body)
        if not_http_allowed and answer.body == b"Invalid HTTP request received.":
            return answer  # the server's own word for what is not HTTP
        assert answer.status < 500, (method, target, headers, body, answer)
        if answer.status >= 400 and not (page and answer.headers["Content-Type"].startswith("text/html")):
            path = "/keystead/v1/" if answer.headers["Content-Type"] == "application/problem+json" else "/"
            read_refusal(path, answer.status, json.loads(answer.body), answer.headers)
        return answer


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with installation() as it:
        ada = await it.invite()
        key = await it.ok("POST", "/key/generate", {}, key=ada.session)
        invitation = await it.ok("POST", "/invitation/new", {"user_id": ada.user_id})
        opened = await it.ok("GET", f"/onboarding/get_token?invite_link={invitation['id']}", key=None)
        credential = claims_of(opened["token"])["key"]
        yield World(it, ada, key["key"], invitation["ref"], invitation["id"], credential)


def dumped(body: Any) -> bytes:
    """As JSON, the not quite JSON of Python included: NaN, half surrogate pairs, numbers of any size."""
    return json.dumps(body).encode()


@pytest.mark.parametrize("route", CHEAP, ids=name_of)
@given(data=st.data())
@hostile(15)
async def test_a_body_of_anything(world: World, route: APIRoute, data: st.DataObject) -> None:
    body = data.draw(bodies_of(route) | anything)
    await world.send(method_of(route), world.target(route.path), [JSON, world.credential(route)], dumped(body))


@pytest.mark.parametrize("route", CHEAP, ids=name_of)
@given(data=st.data())
@hostile(25)
async def test_a_good_body_with_anything_in_one_field(world: World, route: APIRoute, data: st.DataObject) -> None:
    body = {**world.valid(route), data.draw(st.sampled_from(fields_of(route) or ["x"])): data.draw(anything)}
    await world.send(method_of(route), world.target(route.path), [JSON, world.credential(route)], dumped(body))


@pytest.mark.parametrize("route", [route for route in POSTS if route.path in DEAR], ids=name_of)
@given(data=st.data())
@hostile(20)
async def test_a_log_in_and_a_claim_with_anything(world: World, route: APIRoute, data: st.DataObject) -> None:
    """Fewer: each of these answers may cost a password hash."""
    body = {**world.valid(route), data.draw(st.sampled_from(fields_of(route))): data.draw(anything)}
    await world.send(method_of(route), world.target(route.path), [JSON, world.credential(route)], dumped(body))


messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "system", "assistant", "tool"]) | anything,
            "content": texts
            | st.lists(st.dictionaries(st.sampled_from(["type", "text", "image_url"]), anything))
            | anything,
            "tool_calls": anything,
            "cache_control": anything,
            "name": anything,
        },
    ),
    max_size=4,
)
calls = st.fixed_dictionaries(
    {"model": st.sampled_from(["mock-fast", "mock-priced"]) | texts, "messages": messages | anything},
    optional={
        "stream": st.booleans() | anything,
        "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans() | anything}) | anything,
        "max_tokens": st.integers(1, 5) | anything,
        "n": st.integers(1, 3) | anything,
        "tools": st.lists(st.fixed_dictionaries({"type": st.just("function")}, optional={"function": anything}))
        | anything,
        "metadata": st.fixed_dictionaries({}, optional={"tags": st.lists(texts, max_size=3) | anything}) | anything,
        "litellm_session_id": texts | anything,
        "user": texts | anything,
    },
)
tag_headers = st.lists(
    st.sampled_from([b"x-litellm-tags", b"x-litellm-session-id", b"User-Agent", b"x-litellm-call-id"]), max_size=2
)


@given(body=calls, names=tag_headers, value=st.binary(max_size=40))
@hostile(100)
async def test_a_call_of_anything(world: World, body: Any, names: list[bytes], value: bytes) -> None:
    headers = [JSON, (b"Authorization", b"Bearer " + world.key.encode()), *((name, as_value(value)) for name in names)]
    await world.send("POST", b"/v1/chat/completions", headers, dumped(body))


def as_query(query: Mapping[str, str]) -> bytes:
    return "&".join(
        f"{quote(n, errors='surrogatepass')}={quote(v, errors='surrogatepass')}" for n, v in query.items()
    ).encode()


@pytest.mark.parametrize("route", WITHOUT_BODY, ids=name_of)
@given(data=st.data(), more=st.dictionaries(texts, texts, max_size=1), raw=st.binary(max_size=12))
@hostile(10)
async def test_a_query_of_anything(
    world: World, route: APIRoute, data: st.DataObject, more: dict[str, str], raw: bytes
) -> None:
    names = fields_of(route)
    query = data.draw(st.dictionaries(st.sampled_from(names) if names else texts, texts, max_size=4))
    for text in (as_query(query), as_query({**query, **more}) + b"&" + quote_from_bytes(raw).encode()):
        await world.send(method_of(route), world.target(route.path) + b"?" + text, [world.credential(route)])


@pytest.mark.parametrize("route", [route for route in ROUTES if "{" in route.path], ids=name_of)
@given(raw=st.binary(max_size=30) | texts.map(lambda text: text.encode(errors="surrogatepass")))
@hostile(15)
async def test_a_path_with_anything_in_it(world: World, route: APIRoute, raw: bytes) -> None:
    before, _, rest = route.path.partition("{")
    after = rest.partition("}")[2]
    for prefix in (b"", b"user:", b"key:"):
        target = before.encode() + quote_from_bytes(prefix + raw, safe="/").encode() + after.encode()
        await world.send(method_of(route), target, [world.credential(route)])


@given(raw=st.binary(max_size=40), method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"]))
@hostile(40)
async def test_a_target_of_anything(world: World, raw: bytes, method: str) -> None:
    credential = (b"Authorization", b"Bearer " + MASTER_KEY.encode())
    for target in (b"/" + as_target(raw), b"/" + quote_from_bytes(raw).encode(), b"//" + as_target(raw)):
        await world.send(method, target, [credential], not_http_allowed=True)


@pytest.mark.parametrize("route", PAGES, ids=name_of)
@given(data=st.data(), raw=st.binary(max_size=30), cookie=st.binary(max_size=30) | st.none())
@hostile(10)
async def test_a_page_asked_for_with_anything(
    world: World, route: APIRoute, data: st.DataObject, raw: bytes, cookie: bytes | None
) -> None:
    """A page may answer a person in words of its own, but never above 499."""
    fields = data.draw(st.dictionaries(st.sampled_from(PAGES_FIELDS) | texts, texts, max_size=4))
    form = as_query(fields) + b"&" + quote_from_bytes(raw).encode()
    sent = [(b"Cookie", b"token=" + (world.ada.jwt.encode() if cookie is None else as_value(cookie)))]
    target = world.target(route.path)
    if method_of(route) == "GET":
        await world.send("GET", target + b"?" + form, sent, page=True)
        return
    for media_type in (b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", as_value(raw)):
        more = [(b"Content-Type", media_type), (b"Sec-Fetch-Site", b"same-origin")]
        await world.send("POST", target, [*sent, *more], form, page=True)


SCHEMES = [
    b"Bearer ",
    b"bearer ",
    b"BEARER  ",
    b"Bearer\t",
    b"Basic ",
    b"Digest ",
    b"Bearer Bearer ",
    b"",
    b" ",
    b"Token ",
]
CREDENTIAL_HEADERS = [b"Authorization", b"x-api-key", b"api-key", b"Cookie", b"authorization"]
credentials = (
    st.binary(max_size=60)
    | texts.map(lambda text: text.encode(errors="surrogatepass"))
    | st.sampled_from(
        [b"a.b.c", b"..", b"eyJhbGciOiJub25lIn0.e30.", b"sk-" + b"x" * 30_000, b"sk-ks1_" + b"A" * 51, b"\xff\xfe" * 20]
    )
)


@given(
    headers=st.lists(st.tuples(st.sampled_from(CREDENTIAL_HEADERS), st.sampled_from(SCHEMES), credentials), max_size=3),
    route=st.sampled_from(ROUTES),
)
@hostile(80)
async def test_a_credential_of_anything(
    world: World, headers: list[tuple[bytes, bytes, bytes]], route: APIRoute
) -> None:
    sent = []
    for name, scheme, value in headers:
        prefix = b"token=" if name == b"Cookie" else scheme
        sent.append((name, as_value(prefix + value)))
    method = method_of(route)
    answer = await world.send(method, world.target(route.path), sent, not_http_allowed=True)
    assert answer.status in (200, 303, 400, 401, 403, 415), answer


HEADERS = """
    Content-Type Content-Encoding Accept Accept-Encoding Origin Sec-Fetch-Site x-request-id x-litellm-call-id
    X-Forwarded-For X-Forwarded-Proto Forwarded Expect If-None-Match Range User-Agent Cookie Idempotency-Key Upgrade
    x-litellm-tags litellm-changed-by traceparent Access-Control-Request-Method
""".split()


@given(
    headers=st.dictionaries(
        st.sampled_from([name for name in HEADERS if name not in ("Upgrade", "Expect")]),
        st.binary(max_size=60) | texts.map(lambda text: text.encode(errors="surrogatepass")) | st.just(b"\xe9" * 3000),
        max_size=4,
    ),
    route=st.sampled_from([route for route in ROUTES if route.path not in DEAR]),
)
@hostile(80)
async def test_headers_of_anything(world: World, headers: dict[str, bytes], route: APIRoute) -> None:
    sent = [(name.encode(), as_value(value)) for name, value in headers.items()]
    if "Content-Type" not in headers:
        sent.append(JSON)
    method = method_of(route)
    body = dumped(world.valid(route)) if method in WITH_BODY else b""
    await world.send(method, world.target(route.path), [world.credential(route), *sent], body, not_http_allowed=True)


@given(
    raw=st.binary(max_size=200) | anything.map(dumped).map(lambda text: text[: len(text) // 2]),
    route=st.sampled_from(POSTS),
)
@hostile(80)
async def test_a_body_of_any_bytes(world: World, raw: bytes, route: APIRoute) -> None:
    for more in ([], [(b"Transfer-Encoding", b"chunked")]):
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw) if more and raw else b"0\r\n\r\n" if more else raw
        await world.send("POST", world.target(route.path), [JSON, world.credential(route), *more], body)


@given(
    length=st.sampled_from([b"-1", b"1e3", b"0x10", b"", b"5, 5", b" 7", b"\xb2", b"+2"]) | st.binary(max_size=6),
    route=st.sampled_from(POSTS),
)
@hostile(40)
async def test_a_length_of_anything(world: World, length: bytes, route: APIRoute) -> None:
    written = as_value(length)
    assume(not written.isdigit() or int(written) <= 2)  # else the server waits for the rest, as it should
    headers = [JSON, world.credential(route), (b"Content-Length", written)]
    await world.send("POST", world.target(route.path), headers, b"{}", not_http_allowed=True)


@given(cut=st.integers(0, 400), route=st.sampled_from(POSTS))
@hostile(40)
async def test_a_client_that_goes_away_in_the_middle(world: World, cut: int, route: APIRoute) -> None:
    headers = [JSON, world.credential(route), (b"Content-Length", b"5000")]
    await hang_up(world.it.url, "POST", world.target(route.path), headers, dumped(world.valid(route)), after=cut)


def test_every_route_is_tried() -> None:
    assert len(PAGES) > 5
    assert {*map(name_of, EVERY)} == {name_of(each) for each in (*POSTS, *WITHOUT_BODY, *PAGES)} | {
        f"POST {path}" for path in NO_BODY_TAKEN
    }


async def test_everything_goes_on_working(world: World) -> None:
    status, ready = await world.it.call("GET", "/health/readiness", key=None)
    assert (status, ready["status"]) == (200, "healthy")
    assert (await world.it.ok("GET", "/keystead/v1/me", key=world.ada.session))["user_id"] == world.ada.user_id
    assert (await world.it.ok("GET", "/key/info", key=world.key))["info"]["status"] == "active"
    await nothing_is_half_done(world.it.owner_url)
    await self_serve(world.it)
