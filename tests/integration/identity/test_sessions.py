"""Log-in, what a session is, what its JWT says, what a cookie may do, and the end of it (§1.2, §3.3, §5.6)."""

import asyncio
import re
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from services.identity import credentials, handlers
from services.identity.domain.session import stream_of as session_stream
from services.identity.domain.user import DEFAULT_USER_ID
from shared.event_store import Transaction
from shared.permissions import PERMISSIONS, Operation, Reach, Role
from tests.support.eventually import eventually
from tests.support.identity import (
    an_email,
    claim,
    invite,
    log_in,
    log_of,
    new_user,
    open_link,
    refusal,
    replica_with,
    session_of,
    types_of,
)
from tests.support.installation import (
    BASE_URL,
    MASTER_KEY,
    PASSWORD,
    Installation,
    Person,
    claims_of,
    second_worker,
)

WRONG = (401, "credentials_wrong", "invalid_credentials")
UNKNOWN = (401, "key_unknown", "key")
OTHER_PASSWORD = "nine lives of a purple cat"


@pytest.fixture(scope="module")
async def other_worker(it: Installation) -> AsyncIterator[str]:
    async with second_worker(it) as url:
        yield url


@pytest.fixture(scope="module")
async def ada(it: Installation) -> Person:
    """Somebody with a password; her own session nobody ends."""
    return await it.invite()


async def me(it: Installation, key: str) -> dict[str, Any]:
    answer: dict[str, Any] = await it.ok("GET", "/keystead/v1/me", key=key)
    return answer


async def is_over(it: Installation, key: str, *urls: str) -> bool:
    outcomes = [await it.call("GET", "/v1/models", key=key, url=url) for url in (it.url, *urls)]
    over = [outcome[0] == 401 for outcome in outcomes]
    assert len(set(over)) == 1
    return over[0]


# Log-in


async def test_a_log_in_answers_with_a_session_and_the_cookie(it: Installation, ada: Person) -> None:
    body = {"username": ada.email, "password": PASSWORD}
    status, answer, headers = await it.request("POST", "/v2/login", body, key=None)
    assert status == 200
    assert set(answer) == {"redirect_url", "token", "user_id", "expires_at"}
    assert answer["redirect_url"] == f"{BASE_URL}/ui?login=success"
    assert answer["user_id"] == ada.user_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer["expires_at"])
    assert headers["Cache-Control"] == "no-store"
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert cookie == f"token={answer['token']}"
    assert attributes[:3] == ["HttpOnly", "SameSite=Lax", "Path=/"]
    assert re.fullmatch(r"Max-Age=86(400|3\d\d)", attributes[3])
    assert attributes[4:] == []


async def test_under_https_the_cookie_is_secure(it: Installation, ada: Person) -> None:
    async with replica_with(it, {}, PROXY_BASE_URL="https://keystead.test") as replica:
        body = {"username": ada.email, "password": PASSWORD}
        _, answer, headers = await replica.request("POST", "/v2/login", body, key=None)
        assert headers["Set-Cookie"].endswith("; Secure")
        assert answer["redirect_url"] == "https://keystead.test/ui?login=success"


async def test_a_session_is_256_random_bits_in_base62_and_each_is_new(it: Installation, ada: Person) -> None:
    sessions = {await session_of(it, ada.email, PASSWORD) for _ in range(2)} | {ada.session}
    assert len(sessions) == 3
    for session in sessions:
        assert re.fullmatch(r"sk-kss1_[0-9A-Za-z]{43}", session)


@pytest.mark.parametrize("spelled", [str.upper, str.title, lambda email: f"  {email}\n"])
async def test_the_name_is_the_email_in_any_case(it: Installation, ada: Person, spelled: Any) -> None:
    assert (await log_in(it, spelled(ada.email), PASSWORD))[0] == 200


async def test_a_password_may_be_typed_on_another_keyboard(it: Installation) -> None:
    """Up to the longest: 1,024 bytes, typed in three characters for each two of them."""
    user = await new_user(it, user_email=an_email())
    link = await invite(it, user["user_id"])
    longest = "ǖ" * 512
    assert (await claim(it, link, user["user_id"], longest, await open_link(it, link)))[0] == 200
    for typed in (longest, unicodedata.normalize("NFD", longest)):
        assert (await log_in(it, user["user_email"], typed))[0] == 200
    assert (await log_in(it, user["user_email"], longest[:-1]))[0] == 401


async def test_an_unknown_name_and_a_wrong_password_are_told_alike(it: Installation, ada: Person) -> None:
    without = await new_user(it, user_email=an_email())
    deleted = await it.invite()
    await it.ok("POST", "/user/delete", {"user_ids": [deleted.user_id]})
    wrong = await log_in(it, ada.email, PASSWORD + "!")
    assert refusal(wrong) == WRONG
    for name, password in (
        (an_email(), PASSWORD),
        (without["user_email"], PASSWORD),
        (deleted.email, PASSWORD),
        (ada.user_id, PASSWORD),
        ("", PASSWORD),
        (ada.email, ""),
        (ada.email, PASSWORD.upper()),
        ("x" * 100_000, PASSWORD),
        (ada.email, "x" * 100_000),
        ("admin", PASSWORD),
        ("ADMIN", MASTER_KEY),
        (DEFAULT_USER_ID, MASTER_KEY),
    ):
        assert await log_in(it, name, password) == wrong


@pytest.mark.parametrize(
    ("body", "reason", "param"),
    [
        ({}, "field_missing", "username"),
        ({"username": "a"}, "field_missing", "password"),
        ({"username": 5, "password": "a"}, "wrong_type", "username"),
        ({"username": "a", "password": None}, "wrong_type", "password"),
        ({"username": "a\x00", "password": "a"}, "out_of_range", "username"),
        ({"username": "a", "password": "a", "otp": "1"}, "field_unknown", "otp"),
    ],
    ids=str,
)
async def test_a_bad_log_in_is_refused_by_name(it: Installation, body: Any, reason: str, param: str) -> None:
    assert refusal(await it.call("POST", "/v2/login", body, key=None)) == (400, reason, param)


async def test_ten_log_ins_at_once_are_ten_sessions(it: Installation, ada: Person) -> None:
    sessions = await asyncio.gather(*(session_of(it, ada.email, PASSWORD) for _ in range(10)))
    assert len({(await me(it, session))["credential"]["session_id"] for session in sessions}) == 10


async def test_the_admin_logs_in_by_name_and_master_key(it: Installation) -> None:
    status, answer = await log_in(it, "admin", MASTER_KEY)
    assert (status, answer["user_id"]) == (200, DEFAULT_USER_ID)
    await it.ok("GET", "/user/list", key=answer["token"])
    assert claims_of(answer["token"])["user_email"] is None


async def test_name_and_password_of_the_admin_are_settings(it: Installation) -> None:
    async with replica_with(it, {}, UI_USERNAME="Grace", UI_PASSWORD="the master's own password") as replica:
        assert (await log_in(replica, "Grace", "the master's own password"))[0] == 200
        for name, password in (
            ("Grace", MASTER_KEY),
            ("grace", "the master's own password"),
            ("admin", MASTER_KEY),
            ("Grace", "the master's own password "),
        ):
            assert refusal(await log_in(replica, name, password)) == WRONG


async def test_address_and_browser_are_kept_sealed(it: Installation, ada: Person) -> None:
    body = {"username": ada.email, "password": PASSWORD}
    answer = await it.ok("POST", "/v2/login", body, key=None, headers={"User-Agent": "Moz" * 1000})
    session_id = (await me(it, answer["token"]))["credential"]["session_id"]
    (started,) = await log_of(it, stream=session_stream(session_id))
    assert started.data["method"] == "password"
    assert started.data["sealed_ip"] and started.data["sealed_user_agent"]
    assert len(started.data["sealed_user_agent"]) < 1000


# The JWT


async def test_a_sessions_jwt_is_verified_by_the_public_keys(it: Installation, ada: Person) -> None:
    status, published, headers = await it.request("GET", "/.well-known/jwks.json", key=None)
    assert (status, headers["Cache-Control"]) == (200, "public, max-age=300")
    assert all("d" not in key for key in published["keys"])
    verified = jwt.decode(ada.jwt, KeySet.import_key_set(published), algorithms=["EdDSA"])
    assert verified.header["kid"] == published["keys"][0]["kid"]
    assert verified.claims == claims_of(ada.jwt)


async def test_the_claims_are_those_of_the_contract(it: Installation, ada: Person) -> None:
    _, answer = await log_in(it, ada.email, PASSWORD)
    claims = claims_of(answer["token"])
    key, expires = claims.pop("key"), claims.pop("exp")
    assert (await me(it, key))["user_id"] == ada.user_id
    assert isinstance(expires, int)
    assert claims == {
        "user_id": ada.user_id,
        "user_email": ada.email,
        "user_role": "internal_user",
        "login_method": "username_password",
        "auth_header_name": "Authorization",
        "server_root_path": "",
        "disabled_non_admin_personal_key_creation": False,
        "password_reset_required": False,
        "premium_user": False,
    }


async def test_a_jwt_that_is_not_ours_is_not_valid(it: Installation, ada: Person) -> None:
    head, body, signature = ada.jwt.split(".")
    for forged in (f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}AAAA", "a.b.c", f"{body}.{head}.{signature}"):
        assert refusal(await it.call("GET", "/user/info", key=forged)) == (401, "jwt_invalid", None)


# Where a session is sent


@pytest.mark.parametrize(
    "name", ["Authorization: Bearer", "Authorization: bearer", "Authorization:", "x-api-key:", "api-key:"]
)
async def test_a_session_and_its_jwt_are_credentials_in_every_header(it: Installation, ada: Person, name: str) -> None:
    header, _, scheme = name.partition(":")
    for credential in (ada.session, ada.jwt):
        headers = {header: f"{scheme.strip()} {credential}".strip()}
        answer = await it.ok("GET", "/keystead/v1/me", key=None, headers=headers)
        assert answer["credential"]["kind"] == "session"


async def test_the_jwt_in_the_cookie_is_a_credential(it: Installation, ada: Person) -> None:
    answer = await it.ok("GET", "/keystead/v1/me", key=None, headers={"Cookie": f"a=b; token={ada.jwt}"})
    assert answer["user_id"] == ada.user_id


async def test_a_bad_credential_is_not_skipped_for_a_good_cookie(it: Installation, ada: Person) -> None:
    outcome = await it.call("GET", "/user/info", key="sk-nobody", headers={"Cookie": f"token={ada.jwt}"})
    assert refusal(outcome) == UNKNOWN


SAME_SITE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": BASE_URL},
]
OTHER_SITE: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": BASE_URL},
    {"Origin": "http://evil.test"},
    {"Origin": f"{BASE_URL}.evil.test"},
    {"Origin": BASE_URL.replace("http:", "https:")},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", SAME_SITE, ids=str)
async def test_a_change_by_cookie_from_this_site_is_made(
    it: Installation, ada: Person, headers: dict[str, str]
) -> None:
    body = {"user_id": ada.user_id, "user_alias": "Ada"}
    await it.ok("POST", "/user/update", body, key=None, headers={"Cookie": f"token={ada.jwt}", **headers})


@pytest.mark.parametrize("headers", OTHER_SITE, ids=str)
async def test_a_change_by_cookie_from_elsewhere_is_refused(
    it: Installation, ada: Person, headers: dict[str, str]
) -> None:
    body = {"user_id": ada.user_id, "user_alias": "Eve"}
    outcome = await it.call("POST", "/user/update", body, key=None, headers={"Cookie": f"token={ada.jwt}", **headers})
    assert refusal(outcome) == (403, "csrf", None)
    assert (await it.ok("GET", "/user/info", key=ada.session))["user_info"]["user_alias"] != "Eve"


@pytest.mark.parametrize("headers", OTHER_SITE, ids=str)
async def test_reading_by_cookie_and_changing_by_header_are_open_to_any_site(
    it: Installation, ada: Person, headers: dict[str, str]
) -> None:
    await it.ok("GET", "/user/info", key=None, headers={"Cookie": f"token={ada.jwt}", **headers})
    body = {"user_id": ada.user_id, "user_alias": "Ada"}
    await it.ok("POST", "/user/update", body, key=ada.jwt, headers=headers)


# The end


async def test_a_session_is_revoked_by_itself_at_once_at_every_worker(
    it: Installation, ada: Person, other_worker: str
) -> None:
    session = await session_of(it, ada.email, PASSWORD)
    session_id = (await me(it, session))["credential"]["session_id"]
    assert not await is_over(it, session, other_worker)
    status, answer, headers = await it.request("POST", "/session/logout", key=session)
    assert (status, answer) == (200, {"message": "Session revoked."})
    assert headers["Set-Cookie"] == "token=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"
    assert await is_over(it, session, other_worker)
    assert refusal(await it.call("POST", "/session/logout", key=session)) == UNKNOWN
    _, ended = await log_of(it, stream=session_stream(session_id))
    assert (ended.type, ended.data["reason"], ended.actor) == ("SessionEnded", "logged_out", ada.user_id)
    assert not await is_over(it, ada.session, other_worker)


async def test_only_a_session_is_revoked(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"user_role": "internal_user"})
    for credential in (user["key"], MASTER_KEY):
        outcome = await it.call("POST", "/session/logout", key=credential)
        assert refusal(outcome) == (403, "role_not_allowed", None)
    assert refusal(await it.call("POST", "/session/logout", key=None))[0] == 401


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("way", ["cookie", "bearer", "bearer JWT"])
async def test_a_log_out_ends_the_session_clears_the_cookie_and_leads_on(
    it: Installation, ada: Person, other_worker: str, method: str, way: str
) -> None:
    _, answer = await log_in(it, ada.email, PASSWORD)
    session = claims_of(answer["token"])["key"]
    assert not await is_over(it, session, other_worker)
    credential = {
        "cookie": {"Cookie": f"token={answer['token']}", "Sec-Fetch-Site": "same-origin"},
        "bearer": {"Authorization": f"Bearer {session}"},
        "bearer JWT": {"Authorization": f"Bearer {answer['token']}"},
    }
    status, _, headers = await it.request(method, "/logout", key=None, headers=credential[way])
    assert (status, headers["Location"]) == (303, "/ui/login")
    assert headers["Set-Cookie"] == "token=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"
    assert await is_over(it, session, other_worker)


async def test_another_site_logs_nobody_out_by_their_cookie(it: Installation, ada: Person) -> None:
    _, answer = await log_in(it, ada.email, PASSWORD)
    headers = {"Cookie": f"token={answer['token']}", "Sec-Fetch-Site": "cross-site"}
    assert refusal(await it.call("POST", "/logout", key=None, headers=headers)) == (403, "csrf", None)
    assert not await is_over(it, answer["token"])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cookie": "token="},
        {"Cookie": "token=nonsense", "Sec-Fetch-Site": "none"},
        {"Cookie": "token=a.b.c", "Sec-Fetch-Site": "none"},
        {"Authorization": f"Bearer {MASTER_KEY}"},
        {"Authorization": "Bearer sk-kss1_" + "0" * 43},
    ],
    ids=str,
)
async def test_a_log_out_works_without_a_session(it: Installation, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        status, _, answered = await it.request(method, "/logout", key=None, headers=headers)
        assert (status, answered["Location"]) == (303, "/ui/login")


async def test_logging_out_twice_is_logging_out_once(it: Installation, ada: Person) -> None:
    session = await session_of(it, ada.email, PASSWORD)
    session_id = (await me(it, session))["credential"]["session_id"]
    for _ in range(2):
        assert (await it.call("POST", "/logout", key=session))[0] == 303
    assert await types_of(it, session_stream(session_id)) == ["SessionStarted", "SessionEnded"]


async def test_where_a_log_out_leads_is_a_setting(it: Installation) -> None:
    async with replica_with(it, {}, PROXY_LOGOUT_URL="https://sso.example.test/bye") as replica:
        _, _, headers = await replica.request("GET", "/logout", key=None)
        assert headers["Location"] == "https://sso.example.test/bye"


async def test_no_session_made_with_the_old_password_outlives_the_new_one(it: Installation) -> None:
    """Its log-in had found the old password right, and had not committed yet."""
    person, identity = await it.invite(), it.running("identity")
    old_hash = await identity.run(credentials.find_hash, person.user_id)
    new_hash = await identity.own.hash(OTHER_PASSWORD)
    await identity.run(credentials.keep_pending, f"claim of {person.user_id}", person.user_id, new_hash)
    started, may_commit = asyncio.Event(), asyncio.Event()

    async def slow_log_in(tx: Transaction) -> handlers.StartedSession:
        visitor = handlers.Visitor(None, None)
        session = await handlers.log_in(tx, person.user_id, password_hash=old_hash, method="password", visitor=visitor)
        started.set()
        await may_commit.wait()
        return session

    logging_in = asyncio.create_task(identity.run(slow_log_in))
    await started.wait()
    resetting = asyncio.create_task(
        identity.run(handlers.activate_password, f"claim of {person.user_id}", person.user_id, 1_000_000)
    )
    await eventually(lambda: _waits_for_a_lock(it, resetting))
    may_commit.set()
    session = await logging_in
    await resetting
    assert await is_over(it, session.secret)
    assert await is_over(it, person.session)


async def _waits_for_a_lock(it: Installation, work: "asyncio.Task[Any]") -> bool:
    connection = await asyncpg.connect(it.owner_url)
    try:
        waiting = await connection.fetchval(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
    finally:
        await connection.close()
    return work.done() or bool(waiting)


# Who am I


async def test_the_master_key_is_told_who_it_is(it: Installation) -> None:
    answer = await me(it, MASTER_KEY)
    assert set(answer) == {"user_id", "user_email", "user_role", "teams", "credential", "permissions"}
    assert (answer["user_id"], answer["user_email"], answer["user_role"], answer["teams"]) == (
        DEFAULT_USER_ID,
        None,
        "proxy_admin",
        [],
    )
    assert answer["credential"] == {"kind": "master_key"}
    assert answer["permissions"] == list(Operation)


async def test_a_session_is_told_whose_it_is_and_until_when(it: Installation, ada: Person) -> None:
    answer = await me(it, ada.session)
    assert (answer["user_id"], answer["user_email"], answer["user_role"]) == (ada.user_id, ada.email, "internal_user")
    assert set(answer["credential"]) == {"kind", "session_id", "expires_at"}
    assert answer["credential"]["kind"] == "session"
    assert answer["credential"]["expires_at"].endswith("Z")


async def test_a_key_is_told_whose_it_is_and_of_what_type(it: Installation, ada: Person) -> None:
    body = {"key_type": "read_only", "duration": "1d"}
    made = await it.ok("POST", "/key/generate", body, key=ada.session)
    answer = await me(it, made["key"])
    assert (answer["user_id"], answer["user_email"]) == (ada.user_id, ada.email)
    assert answer["credential"] == {
        "kind": "key",
        "key_id": made["key_id"],
        "key_type": "read_only",
        "expires_at": made["expires"],
    }
    assert Operation.KEY_GENERATE not in answer["permissions"]
    assert Operation.KEY_LIST in answer["permissions"]


@pytest.mark.parametrize("role", list(Role))
async def test_permissions_are_those_of_the_table(it: Installation, role: Role) -> None:
    person = await it.invite(user_role=role)
    allowed = [operation for operation, row in PERMISSIONS.items() if row.cell(role) is not Reach.NONE]
    assert sorted((await me(it, person.session))["permissions"]) == sorted(allowed)


async def test_without_a_credential_nobody_is_told_in_the_shape_of_own_routes(it: Installation) -> None:
    status, answer, headers = await it.request("GET", "/keystead/v1/me", key=None)
    assert refusal((status, answer)) == (401, "credentials_missing", None)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["WWW-Authenticate"] == "Bearer"
    assert set(answer) == {"type", "title", "status", "detail"}


async def test_a_browser_logs_in_reads_changes_and_logs_out_by_its_cookie(it: Installation, ada: Person) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        body = {"username": ada.email, "password": PASSWORD}
        async with browser.post(f"{it.url}/v2/login", json=body) as answer:
            assert answer.status == 200
        async with browser.get(f"{it.url}/keystead/v1/me") as answer:
            assert (await answer.json())["user_id"] == ada.user_id
        same = {"Sec-Fetch-Site": "same-origin"}
        async with browser.post(f"{it.url}/logout", headers=same, allow_redirects=False) as answer:
            assert answer.status == 303
        async with browser.get(f"{it.url}/keystead/v1/me") as answer:
            assert (await answer.json())["type"].endswith(":credentials_missing")
