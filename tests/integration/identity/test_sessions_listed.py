"""Sessions listed, and ended by others than themselves (§3.3)."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.identity import handlers, jobs
from services.identity.domain.session import stream_of as session_stream
from services.identity.domain.user import DEFAULT_USER_ID
from shared.event_store import Transaction
from tests.support.identity import PassingClock, log_of, refusal, replica_with, types_of
from tests.support.installation import (
    MASTER_KEY,
    PASSWORD,
    Installation,
    Person,
    claims_of,
    installation,
    second_worker,
)

SESSIONS = "/keystead/v1/sessions"
FIELDS = {
    "session_id",
    "user_id",
    "method",
    "created_at",
    "last_seen_at",
    "expires_at",
    "ip",
    "user_agent",
    "current",
}
NOT_YOURS = (403, "not_yours", None)
NO_SESSION = (404, "not_found", None)
NO_USER = (404, "not_found", "user_id")
TRUSTED = {"general_settings": {"trusted_proxy_ranges": ["127.0.0.0/8"]}}


@pytest.fixture(scope="module")
def clock() -> PassingClock:
    return PassingClock()


@pytest.fixture(scope="module")
async def it(clock: PassingClock) -> AsyncIterator[Installation]:
    async with installation(TRUSTED, clock=clock) as running:
        yield running


@pytest.fixture(scope="module")
async def other_worker(it: Installation) -> AsyncIterator[str]:
    async with second_worker(it) as url:
        yield url


@pytest.fixture
async def ada(it: Installation) -> Person:
    return await it.invite()


@pytest.fixture
async def vera(it: Installation) -> Person:
    """Sees everything, and ends nothing but her own."""
    return await it.invite(user_role="proxy_admin_viewer")


async def start(it: Installation, person: Person, **headers: str) -> str:
    """One more session."""
    body = {"username": person.email, "password": PASSWORD}
    answer = await it.ok("POST", "/v2/login", body, key=None, headers=headers)
    return str(claims_of(answer["token"])["key"])


async def listed(it: Installation, key: str = MASTER_KEY, query: str = "") -> list[dict[str, Any]]:
    answer = await it.ok("GET", SESSIONS + query, key=key)
    rows: list[dict[str, Any]] = answer["data"]
    return rows


async def id_of(it: Installation, session: str) -> str:
    return str((await it.ok("GET", "/keystead/v1/me", key=session))["credential"]["session_id"])


async def is_over(it: Installation, session: str, *urls: str) -> bool:
    outcomes = [await it.call("GET", "/v1/models", key=session, url=url) for url in (it.url, *urls)]
    (over,) = {outcome[0] == 401 for outcome in outcomes}
    return over


async def endings(it: Installation, session_id: str) -> list[tuple[str, str]]:
    """Why a session ended, and by whom."""
    log = await log_of(it, stream=session_stream(session_id))
    return [(recorded.data["reason"], recorded.actor) for recorded in log if recorded.type == "SessionEnded"]


# Listed


async def test_a_session_is_listed_with_where_it_was_started_from(it: Installation, ada: Person) -> None:
    browser = {"X-Forwarded-For": "203.0.113.9", "User-Agent": "A browser/1.0"}
    session = await start(it, ada, **browser)
    newest, first = await listed(it, session)
    assert set(newest) == set(first) == FIELDS
    assert newest["session_id"] == await id_of(it, session)
    assert (newest["ip"], newest["user_agent"]) == ("203.0.113.9", "A browser/1.0")
    assert (newest["method"], first["method"]) == ("password", "invitation")
    assert (newest["current"], first["current"]) == (True, False)
    assert newest["user_id"] == first["user_id"] == ada.user_id
    assert newest["created_at"] > first["created_at"]
    for row in (newest, first):
        for name in ("created_at", "last_seen_at", "expires_at"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row[name])
        assert row["created_at"] <= row["last_seen_at"] < row["expires_at"]


async def test_when_a_session_was_last_seen_is_told(it: Installation, ada: Person, clock: PassingClock) -> None:
    (before,) = await listed(it, ada.session)
    clock.passes(hours=1)
    async with second_worker(it) as fresh:  # that knows no session yet, and so asks
        await it.ok("GET", "/v1/models", key=ada.session, url=fresh)
    (after,) = await listed(it, ada.session)
    assert after["last_seen_at"] > before["last_seen_at"]
    assert after["created_at"] == before["created_at"]


async def test_whoever_has_no_session_sees_their_users_all_the_same(it: Installation, ada: Person) -> None:
    key = (await it.ok("POST", "/key/generate", {}, key=ada.session))["key"]
    (row,) = await listed(it, key)
    assert (row["user_id"], row["current"]) == (ada.user_id, False)


async def test_a_user_sees_their_own_and_no_others(it: Installation, ada: Person, vera: Person) -> None:
    assert {row["user_id"] for row in await listed(it, ada.session)} == {ada.user_id}
    assert await listed(it, ada.session, f"?user_id={ada.user_id}") == await listed(it, ada.session)
    for other in (vera.user_id, DEFAULT_USER_ID, "nobody"):
        outcome = await it.call("GET", f"{SESSIONS}?user_id={other}", key=ada.session)
        assert refusal(outcome) == NOT_YOURS


async def test_admins_and_their_viewers_see_all_or_one_users(it: Installation, ada: Person, vera: Person) -> None:
    for key in (MASTER_KEY, vera.session):
        assert {ada.user_id, vera.user_id} <= {row["user_id"] for row in await listed(it, key, "?limit=200")}
        (row,) = await listed(it, key, f"?user_id={ada.user_id}")
        assert row["user_id"] == ada.user_id
        assert await listed(it, key, f"?user_id={DEFAULT_USER_ID}") == []
        assert refusal(await it.call("GET", f"{SESSIONS}?user_id=nobody", key=key)) == NO_USER


async def test_sessions_come_in_pages_the_newest_first(it: Installation, ada: Person) -> None:
    for _ in range(4):
        await start(it, ada)
    whole = await listed(it, ada.session)
    assert [row["created_at"] for row in whole] == sorted((row["created_at"] for row in whole), reverse=True)
    path, pages = f"{SESSIONS}?limit=2&user_id={ada.user_id}", []
    while path:
        _, answer, headers = await it.request("GET", path, key=ada.session)
        pages.append(answer["data"])
        link = re.fullmatch(r'<(.+)>; rel="next"', headers.get("Link", ""))
        assert bool(link) == (answer["next"] is not None)
        path = link[1] if link else ""
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [row for page in pages for row in page] == whole


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=201", "limit"), ("after=nothing", "after"), ("user_id=", None)]
)
async def test_a_page_that_is_none_is_refused(it: Installation, query: str, param: str | None) -> None:
    status, _, told = refusal(await it.call("GET", f"{SESSIONS}?{query}"))
    assert status == 400
    assert told == (param or "user_id")


async def test_a_cursor_of_another_list_is_none_of_this(it: Installation, ada: Person) -> None:
    for _ in range(2):
        await it.ok("POST", "/invitation/new", {"user_id": ada.user_id})
    cursor = (await it.ok("GET", "/keystead/v1/invitations?limit=1"))["next"]
    assert refusal(await it.call("GET", f"{SESSIONS}?after={cursor}")) == (400, "out_of_range", "after")


async def test_what_is_over_is_not_listed(it: Installation, ada: Person, clock: PassingClock) -> None:
    """Ended, past its day, or idle for too long; whether there is an event of it yet or not."""
    ended = await start(it, ada)
    await it.ok("POST", "/session/logout", key=ended)
    assert len(await listed(it, query=f"?user_id={ada.user_id}")) == 1
    clock.passes(hours=8, seconds=-20)
    assert len(await listed(it, query=f"?user_id={ada.user_id}")) == 1
    clock.passes(seconds=20)
    assert await listed(it, query=f"?user_id={ada.user_id}") == []


async def test_a_session_past_its_day_is_not_listed_however_much_it_was_used(
    it: Installation, clock: PassingClock
) -> None:
    async with replica_with(it, {"keystead_settings": {"session_idle_timeout": "3d"}}, clock=clock) as patient:
        ada = await it.invite()
        clock.passes(hours=23)
        assert len(await listed(patient, query=f"?user_id={ada.user_id}")) == 1
        clock.passes(hours=1)
        assert await listed(patient, query=f"?user_id={ada.user_id}") == []


async def test_address_and_browser_are_in_no_table_in_clear(it: Installation, ada: Person) -> None:
    await start(it, ada, **{"X-Forwarded-For": "203.0.113.77", "User-Agent": "Unmistakable/7.7"})

    async def look(tx: Transaction) -> str:
        rows = await tx.connection.exec_driver_sql("select * from session_visitors_1")
        return str(rows.all())

    kept = await it.running("identity").run(look)
    assert "203.0.113.77" not in kept and "Unmistakable" not in kept


async def test_where_a_session_came_from_is_forgotten_with_it(it: Installation, ada: Person) -> None:
    session_id = await id_of(it, ada.session)

    async def is_kept(tx: Transaction) -> bool:
        tables = ("session_visitors_1", "session_activity")
        query = " union ".join(f"select session_id from {table} where session_id = $1" for table in tables)
        return (await tx.connection.exec_driver_sql(query, (session_id,))).first() is not None

    identity = it.running("identity")
    assert await identity.run(is_kept)
    await it.ok("POST", "/session/logout", key=ada.session)
    assert not await identity.run(is_kept)


# Ended


async def test_one_ends_one_of_ones_own_sessions_at_once_at_every_worker(
    it: Installation, ada: Person, other_worker: str
) -> None:
    session = await start(it, ada)
    session_id = await id_of(it, session)
    assert not await is_over(it, session, other_worker)
    status, answer, headers = await it.request("DELETE", f"{SESSIONS}/{session_id}", key=ada.session)
    assert (status, answer) == (204, "")
    assert headers.get("Content-Type") is None
    assert await is_over(it, session, other_worker)
    assert not await is_over(it, ada.session, other_worker)
    assert await endings(it, session_id) == [("logged_out", ada.user_id)]


async def test_the_session_that_asks_can_end_itself(it: Installation, ada: Person, other_worker: str) -> None:
    session_id = await id_of(it, ada.session)
    assert (await it.call("DELETE", f"{SESSIONS}/{session_id}", key=ada.session))[0] == 204
    assert await is_over(it, ada.session, other_worker)
    assert await endings(it, session_id) == [("logged_out", ada.user_id)]


async def test_an_admin_ends_anybodys(it: Installation, ada: Person, other_worker: str) -> None:
    session_id = await id_of(it, ada.session)
    assert not await is_over(it, ada.session, other_worker)
    assert (await it.call("DELETE", f"{SESSIONS}/{session_id}"))[0] == 204
    assert await is_over(it, ada.session, other_worker)
    assert await endings(it, session_id) == [("ended_by_admin", DEFAULT_USER_ID)]


async def test_nobody_else_ends_anothers_or_learns_whether_there_is_one(
    it: Installation, ada: Person, vera: Person
) -> None:
    dora = await it.invite()
    session_id = await id_of(it, ada.session)
    for person in (dora, vera):
        for other in (session_id, "nothing"):
            outcome = await it.call("DELETE", f"{SESSIONS}/{other}", key=person.session)
            assert refusal(outcome) == NOT_YOURS
        for user_id in (ada.user_id, "nobody"):
            outcome = await it.call("DELETE", f"{SESSIONS}?user_id={user_id}", key=person.session)
            assert refusal(outcome) == NOT_YOURS
    assert not await is_over(it, ada.session)


async def test_a_session_that_is_over_is_one_that_nobody_has(it: Installation, ada: Person) -> None:
    session = await start(it, ada)
    session_id = await id_of(it, session)
    assert (await it.call("DELETE", f"{SESSIONS}/{session_id}", key=ada.session))[0] == 204
    assert refusal(await it.call("DELETE", f"{SESSIONS}/{session_id}", key=ada.session)) == NOT_YOURS
    for unknown in (session_id, "nothing"):
        assert refusal(await it.call("DELETE", f"{SESSIONS}/{unknown}")) == NO_SESSION
    assert len(await endings(it, session_id)) == 1


async def test_an_end_that_not_every_worker_may_have_heard_of_is_not_yet_told() -> None:
    """The change stands, and the same command again waits for it too, before it says that there is none (design §5)."""
    async with installation() as it:
        path = f"{SESSIONS}/{await id_of(it, (await it.invite()).session)}"
        budgets = it.running("budgets").wire.broker
        await budgets.stop()
        for _ in range(2):
            assert refusal(await it.call("DELETE", path))[0] == 503
        await budgets.start()
        assert refusal(await it.call("DELETE", path)) == NO_SESSION


async def test_of_many_who_end_a_session_at_once_one_does(it: Installation, ada: Person) -> None:
    session_id = await id_of(it, ada.session)
    outcomes = await asyncio.gather(*(it.call("DELETE", f"{SESSIONS}/{session_id}") for _ in range(8)))
    assert {status for status, _ in outcomes} <= {204, 404}
    assert await types_of(it, session_stream(session_id)) == ["SessionStarted", "SessionEnded"]


async def test_all_of_ones_own_end_the_one_that_asks_among_them(
    it: Installation, ada: Person, other_worker: str
) -> None:
    sessions = [ada.session, *[await start(it, ada) for _ in range(2)]]
    dora = await it.invite()
    assert not [session for session in sessions if await is_over(it, session, other_worker)]
    status, answer = await it.call("DELETE", f"{SESSIONS}?user_id={ada.user_id}", key=sessions[1])
    assert (status, answer) == (204, "")
    assert [await is_over(it, session, other_worker) for session in sessions] == [True] * 3
    assert not await is_over(it, dora.session, other_worker)
    assert not await is_over(it, await start(it, ada), other_worker)


async def test_an_admin_ends_all_of_a_user_and_all_of_nobody(it: Installation, ada: Person) -> None:
    session_id = await id_of(it, ada.session)
    for _ in range(2):
        assert (await it.call("DELETE", f"{SESSIONS}?user_id={ada.user_id}"))[0] == 204
    assert await is_over(it, ada.session)
    assert await endings(it, session_id) == [("ended_by_admin", DEFAULT_USER_ID)]
    assert refusal(await it.call("DELETE", f"{SESSIONS}?user_id=nobody")) == NO_USER
    assert refusal(await it.call("DELETE", SESSIONS)) == (400, "field_missing", "user_id")


async def test_another_site_ends_nobodys_session_by_their_cookie(it: Installation, ada: Person) -> None:
    headers = {"Cookie": f"token={ada.jwt}", "Sec-Fetch-Site": "cross-site"}
    for path in (f"{SESSIONS}?user_id={ada.user_id}", f"{SESSIONS}/{await id_of(it, ada.session)}"):
        assert refusal(await it.call("DELETE", path, key=None, headers=headers)) == (403, "csrf", None)
    assert not await is_over(it, ada.session)


# Idle


async def test_the_end_of_a_session_that_nobody_uses_is_told(
    it: Installation, ada: Person, clock: PassingClock
) -> None:
    session_id = await id_of(it, ada.session)
    clock.passes(hours=8, seconds=-20)
    await jobs.expire_sessions(it.running("identity"))
    assert await endings(it, session_id) == []
    clock.passes(seconds=20)
    for _ in range(2):
        await jobs.expire_sessions(it.running("identity"))
    assert await endings(it, session_id) == [("expired", "system")]


async def test_a_session_that_is_used_goes_on(it: Installation, ada: Person, clock: PassingClock) -> None:
    session_id = await id_of(it, ada.session)
    identity = it.running("identity")
    for _ in range(2):
        clock.passes(hours=5)
        await identity.run(handlers.mark_seen, session_id)
        await jobs.expire_sessions(identity)
    assert await endings(it, session_id) == []
