"""``/keystead/v1/verify`` over HTTP: who a credential is, told to another program's proxy, and nothing more (§3.9)."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.installation import BASE_URL, MASTER_KEY, Installation, Person, installation
from tests.support.raw_http import exchange
from tests.support.refusals import Refusal, read_refusal

VERIFY = "/keystead/v1/verify"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "REPORT"]
ODD_ID = "Zoë, 100% <ada@example.test>; \U0001f600"


@dataclass
class World:
    it: Installation
    ada: Person
    key: dict[str, Any]
    keys: KeySet

    async def verify(
        self, query: str = "", *, method: str = "GET", key: str | None = None, **headers: str
    ) -> tuple[int, Mapping[str, str], Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = VERIFY + (f"?{query}" if query else "")
        status, answer, answered = await self.it.request(method, path, key=key, headers=named)
        return status, answered, answer

    async def allowed(self, query: str = "", **options: Any) -> Mapping[str, str]:
        status, headers, answer = await self.verify(query, **options)
        assert (status, answer) == (200, ""), (query, answer)
        return headers

    async def refused(self, query: str = "", **options: Any) -> Refusal:
        status, headers, answer = await self.verify(query, **options)
        assert status >= 400, (query, dict(headers))
        assert "X-Keystead-Principal" not in headers and "X-Keystead-User" not in headers
        return read_refusal(VERIFY, status, answer, headers)

    def claims(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """As the asking program reads them, with nothing but the public keys."""
        decoded = jwt.decode(headers["X-Keystead-Principal"], self.keys, algorithms=["EdDSA"])
        assert decoded.header["typ"] == "verify+jwt"
        return decoded.claims


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with installation() as it:
        ada = await it.invite()
        key = await it.ok("POST", "/key/generate", {"models": ["mock-fast"]}, key=ada.session)
        published = await it.ok("GET", "/.well-known/jwks.json", key=None)
        yield World(it, ada, key, KeySet.import_key_set(published))


# Who it is


async def test_a_key_is_told_by_headers_and_by_a_token(world: World) -> None:
    headers = await world.allowed(key=world.key["key"])
    told = {name: headers[f"X-Keystead-{name}"] for name in ("User", "Role", "Teams", "Key-Id")}
    user_id, key_id = world.ada.user_id, world.key["key_id"]
    assert told == {"User": user_id, "Role": "internal_user", "Teams": "", "Key-Id": key_id}
    claims = world.claims(headers)
    assert 0 < claims.pop("exp") - time.time() <= 60
    assert claims == {
        "sub": user_id,
        "role": "internal_user",
        "teams": [],
        "key_id": key_id,
        "key_type": "default",
        "aud": BASE_URL,
    }


async def test_a_session_is_told_by_its_id_and_never_by_itself(world: World) -> None:
    for credential in (world.ada.session, world.ada.jwt):
        headers = await world.allowed(key=credential)
        me = await world.it.ok("GET", "/keystead/v1/me", key=credential)
        assert headers["X-Keystead-Key-Id"] == ""
        claims = world.claims(headers)
        assert claims["sid"] == me["credential"]["session_id"]
        assert claims.keys() == {"sub", "role", "teams", "sid", "aud", "exp"}
        assert world.ada.session not in json.dumps([dict(headers), claims])


async def test_the_master_key_is_an_admin(world: World) -> None:
    headers = await world.allowed(key=MASTER_KEY)
    assert (headers["X-Keystead-User"], headers["X-Keystead-Role"]) == ("default_user_id", "proxy_admin")
    assert headers["X-Keystead-Key-Id"] == ""


async def test_an_id_that_no_header_can_hold_is_percent_encoded(world: World) -> None:
    user = await world.it.ok("POST", "/user/new", {"user_id": ODD_ID, "user_role": "internal_user"})
    headers = await world.allowed(key=user["key"])
    assert headers["X-Keystead-User"].isascii() and "," not in headers["X-Keystead-User"]
    assert unquote(headers["X-Keystead-User"]) == ODD_ID == world.claims(headers)["sub"]


async def test_an_address_as_an_id_stays_readable(world: World) -> None:
    address = f"{uuid.uuid4().hex}+x@example.test"
    user = await world.it.ok("POST", "/user/new", {"user_id": address})
    assert (await world.allowed(key=user["key"]))["X-Keystead-User"] == address


async def test_the_token_ends_with_its_credential(world: World) -> None:
    made = await world.it.ok("POST", "/key/generate", {"duration": "20s"}, key=world.ada.session)
    assert 0 < world.claims(await world.allowed(key=made["key"]))["exp"] - time.time() <= 20


@pytest.mark.parametrize(
    ("headers", "audience"),
    [
        ({"x-forwarded-host": "App.example.test:8443"}, "app.example.test:8443"),
        ({"x-forwarded-uri": "/reports?x=1", "x-forwarded-host": "app.example.test"}, "app.example.test"),
        ({"x-original-url": "https://other.example.test/reports"}, "other.example.test"),
        ({"x-original-uri": "/reports"}, BASE_URL),
        ({"x-original-uri": "//other.example.test/://"}, BASE_URL),
        ({"x-forwarded-uri": "//other.test/://", "x-forwarded-host": "app.example.test"}, "app.example.test"),
        ({"x-forwarded-uri": "https://[half"}, BASE_URL),
        ({"x-forwarded-host": "two, hosts"}, BASE_URL),
        ({"x-forwarded-host": "a" * 300}, BASE_URL),
        ({"host": "evil.example.test"}, BASE_URL),
    ],
)
async def test_the_token_is_for_the_host_that_was_asked_for(
    world: World, headers: dict[str, str], audience: str
) -> None:
    assert world.claims(await world.allowed(key=world.key["key"], **headers))["aud"] == audience


# Who it is not


async def test_without_a_credential_or_with_a_bad_one_it_is_401_before_anything_else(world: World) -> None:
    for query in ("", "role=proxy_admin", "role=nobody", "unknown=1"):
        assert (await world.refused(query)).reason == "credentials_missing"
        assert (await world.refused(query, key="sk-nobodys")).reason == "key_unknown"


async def test_blocked_expired_and_deleted_keys_are_401(world: World) -> None:
    key = await world.it.ok("POST", "/key/generate", {}, key=world.ada.session)
    await world.it.ok("POST", "/key/block", {"key": key["key_id"]})
    assert (await world.refused(key=key["key"])).reason == "key_blocked"
    await world.it.ok("POST", "/key/unblock", {"key": key["key_id"]})
    await world.allowed(key=key["key"])
    await world.it.ok("POST", "/key/delete", {"keys": [key["key_id"]]})
    assert (await world.refused(key=key["key"])).reason == "key_unknown"


@pytest.mark.parametrize("key_type", ["default", "llm_api", "management", "read_only"])
async def test_a_key_of_any_type_may_be_asked_about(world: World, key_type: str) -> None:
    made = await world.it.ok("POST", "/key/generate", {"key_type": key_type}, key=world.ada.session)
    assert world.claims(await world.allowed(key=made["key"]))["key_type"] == key_type


# What is asked for


async def test_the_role_that_is_asked_for(world: World) -> None:
    await world.allowed("role=internal_user", key=world.key["key"])
    await world.allowed("role=proxy_admin", key=MASTER_KEY)
    assert (await world.refused("role=proxy_admin", key=world.key["key"])).reason == "role_not_allowed"
    assert (await world.refused("role=proxy_admin", key=world.ada.session)).reason == "role_not_allowed"


async def test_there_is_no_team_yet_to_be_in(world: World) -> None:
    for credential in (MASTER_KEY, world.key["key"]):
        assert (await world.refused("team=research", key=credential))[:3] == (403, "not_yours", "team")


async def test_the_model_that_is_asked_for(world: World) -> None:
    await world.allowed("model=mock-fast", key=world.key["key"])
    await world.allowed("model=mock-priced", key=MASTER_KEY)
    for model in ("mock-priced", "no-such-model"):
        assert (await world.refused(f"model={model}", key=world.key["key"])).reason == "model_not_allowed"
    assert (await world.refused("model=mock-fast", key=world.ada.session)).reason == "role_not_allowed"
    read_only = await world.it.ok("POST", "/key/generate", {"key_type": "read_only"}, key=world.ada.session)
    assert (await world.refused("model=mock-fast", key=read_only["key"])).reason == "key_type_not_allowed"


async def test_all_that_is_asked_for_must_hold(world: World) -> None:
    await world.allowed("role=internal_user&model=mock-fast", key=world.key["key"])
    assert (await world.refused("role=internal_user&model=mock-priced", key=world.key["key"])).status == 403
    assert (await world.refused("role=proxy_admin&model=mock-fast", key=world.key["key"])).status == 403


async def test_what_can_not_be_asked_for_is_400(world: World) -> None:
    for query, reason in (
        ("role=superuser", "out_of_range"),
        ("roles=proxy_admin", "field_unknown"),
        ("role=internal_user&role=proxy_admin", "wrong_type"),
        ("team=%00", "out_of_range"),
    ):
        assert (await world.refused(query, key=world.key["key"])).reason == reason, query


async def test_asking_whether_a_model_may_be_called_costs_and_records_nothing(world: World) -> None:
    user = await world.it.ok("POST", "/user/new", {"auto_create_key": False, "user_role": "internal_user"})
    key = await world.it.ok("POST", "/key/generate", {"user_id": user["user_id"], "max_budget": 0})
    await world.allowed("model=mock-priced", key=key["key"])
    budget = await world.it.ok("GET", f"/keystead/v1/budgets/key:{key['key_id']}")
    assert [(each["spent"], each["leased"]) for each in budget["windows"]] == [(0, 0)]
    assert await world.it.ok("GET", f"/spend/logs?user_id={user['user_id']}") == []


# How it is asked


@pytest.mark.parametrize("method", METHODS)
async def test_any_method_may_be_asked_by(world: World, method: str) -> None:
    bearer = (b"Authorization", b"Bearer " + world.key["key"].encode())
    answer = await exchange(world.it.url, method, VERIFY.encode(), [bearer])
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["X-Keystead-User"] == world.ada.user_id
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await exchange(world.it.url, method, VERIFY.encode() + b"?role=proxy_admin", [bearer])).status == 403


async def test_no_body_is_waited_for(world: World) -> None:
    """A proxy passes the headers on, the body's length among them, and not the body."""
    bearer = (b"Authorization", b"Bearer " + world.key["key"].encode())
    for told in ((b"Content-Length", b"1000000000"), (b"Transfer-Encoding", b"chunked")):
        sent = [bearer, told, (b"Content-Type", b"text/plain")]
        assert (await exchange(world.it.url, "POST", VERIFY.encode(), sent)).status == 200


@pytest.mark.parametrize("name", ["x-forwarded-method", "x-original-method"])
async def test_a_change_elsewhere_by_cookie_must_come_from_this_site(world: World, name: str) -> None:
    cookie = {"cookie": f"token={world.ada.jwt}"}
    await world.allowed(**cookie)
    await world.allowed(**cookie, **{name: "GET"})
    await world.allowed(**cookie, **{name: "POST", "sec-fetch-site": "same-origin"})
    await world.allowed(method="POST", **cookie, **{name: "GET"})
    for site in ("cross-site", "same-site"):
        assert (await world.refused(**cookie, **{name: "POST", "sec-fetch-site": site})).reason == "csrf"
    assert (await world.refused(**cookie, **{name: "DELETE"})).reason == "csrf"
    assert (await world.refused(method="POST", **cookie)).reason == "csrf"
    await world.allowed(key=world.ada.session, **{name: "POST", "sec-fetch-site": "cross-site"})


@pytest.mark.parametrize("told", ["", "get", "\xff\xfe", "GET, POST", "A" * 5000])
async def test_a_method_that_is_none_is_not_believed(world: World, told: str) -> None:
    headers = [(b"Cookie", b"token=" + world.ada.jwt.encode()), (b"X-Forwarded-Method", told.encode("latin-1"))]
    assert (await exchange(world.it.url, "POST", VERIFY.encode(), headers)).status == 403
    assert (await exchange(world.it.url, "GET", VERIFY.encode(), headers)).status == 200


# What its answer is good for: nothing, here


@pytest_asyncio.fixture(scope="module")
async def token(world: World) -> str:
    """Of an admin, so that it would open whatever it opened at all."""
    return (await world.allowed(key=MASTER_KEY))["X-Keystead-Principal"]


@pytest.mark.parametrize("path", ["/keystead/v1/me", "/user/list", "/key/info", "/v1/models", VERIFY])
@pytest.mark.parametrize("place", ["bearer", "authorization", "x-api-key", "api-key", "cookie"])
async def test_its_token_is_no_credential(world: World, token: str, path: str, place: str) -> None:
    headers = {
        "bearer": {"authorization": f"Bearer {token}"},
        "cookie": {"cookie": f"token={token}"},
    }.get(place, {place: token})
    status, answer, answered = await world.it.request("GET", path, key=None, headers=headers)
    assert read_refusal(path, status, answer, answered)[:2] == (401, "jwt_invalid")


async def test_its_token_is_no_principal(world: World, token: str) -> None:
    """Nor is any other in that header: who calls is found out here, and the header is not looked at."""
    for sent in (token, world.ada.jwt, "proxy_admin", ""):
        headers = {"X-Keystead-Principal": sent}
        status, answer = await world.it.call("GET", "/keystead/v1/me", key=None, headers=headers)
        assert (status, answer["type"]) == (401, "urn:keystead:problem:credentials_missing")
        me = await world.it.ok("GET", "/keystead/v1/me", key=world.ada.session, headers=headers)
        assert (me["user_id"], me["user_role"]) == (world.ada.user_id, "internal_user")
        status, _ = await world.it.call("GET", "/user/list", key=world.ada.session, headers=headers)
        assert status == 403


async def test_its_token_calls_no_model_claims_no_invitation_and_ends_no_session(world: World, token: str) -> None:
    chat = {"model": "mock-fast", "messages": [{"role": "user", "content": "Hi"}]}
    assert (await world.it.call("POST", "/v1/chat/completions", chat, key=token))[0] == 401
    invitation = await world.it.ok("POST", "/invitation/new", {"user_id": world.ada.user_id})
    body = {"invitation_link": invitation["id"], "user_id": world.ada.user_id, "password": "any that is long enough"}
    assert (await world.it.call("POST", "/onboarding/claim_token", body, key=token))[0] == 401
    assert (await world.it.call("POST", "/session/logout", key=token))[0] == 401
    own = (await world.allowed(key=world.ada.session))["X-Keystead-Principal"]
    async with (
        aiohttp.ClientSession() as http,
        http.post(world.it.url + "/logout", headers={"Authorization": f"Bearer {own}"}, allow_redirects=False),
    ):
        pass
    await world.allowed(key=world.ada.session)
