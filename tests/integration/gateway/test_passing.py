"""Requests passed on over HTTP: the service behind the gateway answers as if it had been asked, and nobody else is."""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from services.gateway.passing import PassingOn
from shared.hop import PRINCIPAL_HEADER, Hop, sign_hop
from shared.keyring import Keyring
from shared.permissions import Role
from shared.principal import Principal
from shared.visitor import VISITOR_HEADER, Visitor, sign_visitor
from tests.support.apart import Apart, apart
from tests.support.eventually import eventually
from tests.support.flow import self_serve
from tests.support.installation import MASTER_KEY, PASSWORD, claims_of, keyring
from tests.support.raw_http import exchange, hang_up

ADMIN = Principal("default_user_id", Role.PROXY_ADMIN, "master_key")
NOBODY = Visitor("203.0.113.7", exempt=False)
MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Apart]:
    async with apart() as made:
        yield made


def token(service: str = "keys", *, ring: Keyring | None = None, late: timedelta = timedelta(0)) -> str:
    """What only a gateway can make."""
    return sign_hop(ring or keyring(), service, Hop(ADMIN, "forged", NOBODY), datetime.now(UTC) - late)


async def behind(it: Apart, path: str, *, hop: str = "", **headers: str) -> tuple[int, Any]:
    """Asked past the gateway."""
    given = {**({PRINCIPAL_HEADER: hop} if hop else {}), **headers}
    return await it.call("GET", path, key=None, url=it.inner, headers=given)


async def test_the_flow_runs_through_the_hop(it: Apart) -> None:
    await self_serve(it)


async def test_a_service_answers_what_its_gateway_passed_on_and_nothing_else(it: Apart) -> None:
    assert (await behind(it, "/key/list", hop=token()))[0] == 200
    others = Keyring(base64.b64encode(bytes(range(32))).decode())
    for hop in ("", "x", token("identity"), token(ring=others)):
        status, answer = await behind(it, "/key/list", hop=hop)
        assert (status, answer["error"]["reason"]) == (401, "credentials_missing")


async def test_a_request_that_comes_too_late_is_no_fault_of_its_credential(it: Apart) -> None:
    for late in (6, -60):
        status, answer = await behind(it, "/key/list", hop=token(late=timedelta(seconds=late)))
        assert (status, answer["error"]["reason"]) == (503, "unavailable")


async def test_no_credential_of_a_client_opens_a_service_behind_the_gateway(it: Apart) -> None:
    ada = await it.invite()
    for credential in (MASTER_KEY, ada.session, ada.jwt):
        for header in (
            {"Authorization": f"Bearer {credential}"},
            {"x-api-key": credential},
            {"Cookie": f"token={credential}"},
        ):
            assert (await behind(it, "/key/list", **header))[0] == 401


async def test_an_open_route_is_open_at_the_gateway_and_not_behind_it(it: Apart) -> None:
    body = {"username": "admin", "password": MASTER_KEY}
    assert (await it.call("POST", "/v2/login", body, key=None))[0] == 200
    assert (await it.call("POST", "/v2/login", body, key=None, url=it.inner))[0] == 401


async def test_a_token_for_an_open_route_opens_no_other(it: Apart) -> None:
    hop = sign_hop(keyring(), "keys", Hop(None, "a call", NOBODY), datetime.now(UTC))
    status, answer = await behind(it, "/key/list", hop=hop)
    assert (status, answer["error"]["reason"]) == (401, "credentials_missing")


async def test_probes_are_answered_behind_the_gateway_too(it: Apart) -> None:
    for path in ("/livez", "/readyz"):
        assert (await behind(it, path))[0] == 200


@pytest.mark.parametrize("header", [PRINCIPAL_HEADER, "X-KEYSTEAD-PRINCIPAL"])
async def test_a_principal_that_a_client_sends_is_dropped(it: Apart, header: str) -> None:
    ada = await it.invite()
    status, answer = await it.call("GET", "/user/list", key=ada.session, headers={header: token("identity")})
    assert (status, answer["error"]["reason"]) == (403, "role_not_allowed")
    me = await it.ok("GET", "/keystead/v1/me", key=ada.session, headers={header: token("identity")})
    assert me["user_id"] == ada.user_id
    trick = {header: token("identity"), "Connection": f"close, {PRINCIPAL_HEADER}"}
    me = await it.ok("GET", "/keystead/v1/me", key=ada.session, headers=trick)
    assert me["user_id"] == ada.user_id, "no header can take ours away either"


async def test_ids_are_the_gateways_and_go_with_the_request(it: Apart) -> None:
    status, _, headers = await it.request("GET", "/key/info?key=x", headers={"x-request-id": "mine"})
    assert (status, headers["x-request-id"]) == (404, "mine")
    ada = await it.invite()
    _, _, headers = await it.request("POST", "/user/new", {}, key=ada.session)
    uuid.UUID(headers["x-litellm-call-id"])


async def test_an_answer_has_each_header_of_its_connection_once(it: Apart) -> None:
    """What the service's server says of its connection stays there."""
    answer = await exchange(it.url, "POST", b"/logout", [(b"Content-Length", b"0"), (b"TE", b"trailers")])
    assert answer.status == 303
    assert answer.headers.getall("Set-Cookie") and len(answer.headers.getall("Date")) == 1
    assert len(answer.headers.getall("x-request-id")) == 1


async def test_the_path_is_read_as_it_was_spelled(it: Apart) -> None:
    ada = await it.invite(user_id=f"a/b c%2F?{uuid.uuid4().hex}")
    sessions = await it.ok("GET", "/keystead/v1/sessions", key=ada.session)
    (session,) = sessions["data"]
    for spelled in (f"%2e%2e/{session['session_id']}", f"{session['session_id']}%2f", f"{session['session_id']}/"):
        status, _ = await it.call("DELETE", f"/keystead/v1/sessions/{spelled}", key=ada.session)
        assert status in (403, 404, 405), spelled
    assert (await it.ok("GET", "/keystead/v1/me", key=ada.session))["user_id"] == ada.user_id


async def test_the_body_goes_on_as_far_as_it_may_and_its_limit_is_the_services(it: Apart) -> None:
    padded = b'{"user_id": "' + b"x" * MIB + b'"}'
    for coding in ([(b"Transfer-Encoding", b"chunked")], []):
        raw = b"%x\r\n%b\r\n0\r\n\r\n" % (len(padded), padded) if coding else padded
        headers = [(b"Authorization", f"Bearer {MASTER_KEY}".encode()), (b"Content-Type", b"application/json"), *coding]
        answer = await exchange(it.url, "POST", b"/user/update", headers, raw)
        assert answer.status == 413 and b"body_too_large" in answer.body
    status, answer_ = await it.call("POST", "/user/update", {"user_id": "x" * 300})
    assert (status, answer_["error"]["param"]) == (400, "user_id")


async def test_a_client_that_goes_away_in_its_body_harms_nobody(it: Apart) -> None:
    headers = [(b"Authorization", f"Bearer {MASTER_KEY}".encode()), (b"Content-Length", b"1000")]
    await hang_up(it.url, "POST", b"/user/new", headers, b"{}", after=200)
    assert (await it.ok("GET", "/key/list"))["total_count"] >= 0


async def test_a_session_names_the_visitor_and_not_the_gateway(it: Apart) -> None:
    ada = await it.invite()
    signed = sign_visitor(keyring(), NOBODY, datetime.now(UTC))
    log_in = {"username": ada.email, "password": PASSWORD}
    logged_in = await it.ok(
        "POST", "/v2/login", log_in, key=None, headers={VISITOR_HEADER: signed, "User-Agent": "a b"}
    )
    session = claims_of(logged_in["token"])["key"]
    listed = await it.ok("GET", "/keystead/v1/sessions", key=session)
    (current,) = [each for each in listed["data"] if each["current"]]
    assert (current["ip"], current["user_agent"]) == (NOBODY.address, "a b")
    forged = await it.ok(
        "POST", "/v2/login", log_in, key=None, headers={VISITOR_HEADER: signed[:-4], "X-Forwarded-For": "198.51.100.1"}
    )
    listed = await it.ok("GET", "/keystead/v1/sessions", key=claims_of(forged["token"])["key"])
    assert [each["ip"] for each in listed["data"] if each["current"]] == ["127.0.0.1"]


async def test_pages_are_passed_on_with_their_visitor(it: Apart) -> None:
    """To the portal, from there by the API to the gateway again, and on to identity."""
    ada = await it.invite()
    form = {"username": ada.email, "password": PASSWORD}
    visitor = {VISITOR_HEADER: sign_visitor(keyring(), NOBODY, datetime.now(UTC)), "Sec-Fetch-Site": "same-origin"}
    async with it.http.post(f"{it.url}/login", data=form, headers=visitor, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/ui?login=success")
        cookie = answer.cookies["token"].value
    async with it.http.get(f"{it.url}/ui", headers={"Cookie": f"token={cookie}"}) as page:
        assert page.status == 200 and ada.email in await page.text()
    listed = await it.ok("GET", "/keystead/v1/sessions", key=claims_of(cookie)["key"])
    assert [each["ip"] for each in listed["data"] if each["current"]] == [NOBODY.address]


async def test_a_cookie_is_checked_before_a_request_is_passed_on(it: Apart) -> None:
    ada = await it.invite()
    cookie = {"Cookie": f"token={ada.jwt}"}
    assert (await it.ok("GET", "/keystead/v1/me", key=None, headers=cookie))["user_id"] == ada.user_id
    cross = {**cookie, "Sec-Fetch-Site": "cross-site"}
    status, answer = await it.call("POST", "/key/generate", {}, key=None, headers=cross)
    assert (status, answer["error"]["reason"]) == (403, "csrf")
    same = {**cookie, "Sec-Fetch-Site": "same-origin"}
    assert (await it.call("POST", "/key/generate", {}, key=None, headers=same))[0] == 200


async def test_a_service_that_is_away_is_a_503_that_says_so_and_when_to_ask_again() -> None:
    async with apart(elsewhere={"keys": "http://127.0.0.1:1"}) as broken:
        status, answer, headers = await broken.request("GET", "/key/list")
        assert (status, answer["error"]["reason"]) == (503, "unavailable") and headers["Retry-After"]

        async def one_alone_is_unhealthy() -> bool:
            status, answer, _ = await broken.request("GET", "/readyz", key=None)
            return (status, answer["services"]["keys"], answer["services"]["identity"]) == (200, "unhealthy", "healthy")

        await eventually(one_alone_is_unhealthy)  # who is too slow once, on a busy machine, is not called healthy


async def test_a_service_that_hangs_up_in_its_answer_ends_the_connection_and_one_before_it_is_a_503() -> None:
    """Half an answer must not be taken for a whole one."""
    for said, status in ((b"", 503), (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", None)):
        assert await _answered_by(said) == status


async def _answered_by(said: bytes) -> int | None:
    """The status that a client gets of a service that says this and hangs up; None where the connection ends."""
    sent: list[Any] = []

    async def hang_up_on(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    server = await asyncio.start_server(hang_up_on, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    passing = PassingOn("keys", url, keyring(), lambda: datetime.now(UTC), None)
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/key/list",
        "path": "/key/list",
        "query_string": b"",
        "headers": [],
        "keystead.principal": ADMIN,
        "keystead.call_id": "a call",
        "keystead.request_id": "a request",
        "keystead.address": None,
        "keystead.exempt": True,
        "keystead.open": False,
    }
    async with server, passing.started():
        try:
            await passing(scope, receive, send)
        except aiohttp.ClientError:
            return None
    return int(sent[0]["status"])
