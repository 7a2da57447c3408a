"""A request under an ``Idempotency-Key`` that is cut off: its retry finishes the steps left, and does none twice."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from keystead.app import SERVICES, compose
from tests.support.eventually import eventually
from tests.support.identity import an_email, log_of, new_user, refusal
from tests.support.installation import Installation, connections_to, installation, keyring, serving
from tests.support.keys_world import Caller, keys_world
from tests.support.worker_process import worker_process

Answered = tuple[int, Any, Any]


@dataclass
class Cut:
    """A request that will be cut off; its service, and what that has done once it is done."""

    path: str
    body: dict[str, Any]
    service: str
    events: list[str]


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running


async def a_request(it: Installation, name: str) -> Cut:
    """A request of that name; each is for something new."""
    mail, mark = an_email(), uuid.uuid4()
    of_users: dict[str, dict[str, Any]] = {
        "a user": {"user_email": mail, "user_alias": "Ada"},
        "a user with an id and no key": {"user_id": f"u-{mark}", "user_email": mail, "auto_create_key": False},
        "a user with an invitation": {"user_email": mail, "send_invite_email": True},
    }
    of_keys: dict[str, dict[str, Any]] = {
        "a key": {"key_alias": f"alias {mark}", "max_budget": 1.5, "duration": "1d", "tags": ["a"]},
        "a chosen key": {"key": f"sk-chosen-{mark}"},
    }
    if name in of_users:
        return Cut("/user/new", of_users[name], "identity", ["UserCreated"])
    if name in of_keys:
        return Cut("/key/generate", of_keys[name], "keys", ["KeyGenerated"])
    user = await new_user(it, user_email=mail)
    if name == "an invitation":
        return Cut("/invitation/new", {"user_id": user["user_id"]}, "invitations", ["InvitationCreated"])
    invitation = await it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
    return Cut(f"/keystead/v1/invitations/{invitation['ref']}/resend", {}, "invitations", ["InvitationResent"])


REQUESTS = [
    "a user",
    "a user with an id and no key",
    "a user with an invitation",
    "a key",
    "a chosen key",
    "an invitation",
    "a new link",
]


async def send(it: Installation, cut: Cut, once: str, url: str | None = None) -> Answered:
    return await it.request("POST", cut.path, cut.body, headers={"Idempotency-Key": once}, url=url)


async def owner(it: Installation) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(it.owner_url)


@asynccontextmanager
async def nothing_kept(it: Installation, service: str, sqlstate: str) -> AsyncIterator[None]:
    """The database gives out just when an answer is to be kept: what was asked is committed by then."""
    connection = await owner(it)
    try:
        await connection.execute(
            f"create function {service}.cut() returns trigger language plpgsql as"
            f" $$ begin raise exception 'cut' using errcode = '{sqlstate}'; end $$;"
            f"create trigger cut before update on {service}.kept_answers for each row"
            f" when (new.sealed_answer is not null) execute function {service}.cut()"
        )
        yield
    finally:
        await connection.execute(f"drop function {service}.cut() cascade")
        await connection.close()


@asynccontextmanager
async def log_is_held(it: Installation, service: str) -> AsyncIterator[None]:
    """For the length of the block, nobody commits an event of ``service``'s."""
    connection = await owner(it)
    try:
        await connection.execute(f"select pg_advisory_lock(hashtextextended('{service}.events', 0))")
        yield
    finally:
        await connection.close()


async def made_by(it: Installation, cut: Cut, before: int) -> list[str]:
    return [recorded.type for recorded in (await log_of(it, cut.service))[before:]]


@pytest.mark.parametrize("name", REQUESTS)
async def test_cut_off_after_its_commit_it_is_answered_as_it_was(it: Installation, name: str) -> None:
    """The first answer got to the client here, and was lost to us: so both can be compared."""
    cut, once = await a_request(it, name), f"once {uuid.uuid4()}"
    before = len(await log_of(it, cut.service))
    async with nothing_kept(it, cut.service, "57P01"):
        status, first, _ = await send(it, cut, once)
    assert status == 200
    status, again, headers = await send(it, cut, once)
    assert (status, again) == (200, first)
    assert "Idempotent-Replayed" not in headers
    status, replayed, headers = await send(it, cut, once)
    assert (status, replayed, headers["Idempotent-Replayed"]) == (200, first, "true")
    assert await made_by(it, cut, before) == cut.events


@pytest.mark.parametrize("name", REQUESTS)
async def test_cut_off_before_its_answer_it_is_finished_by_the_retry(it: Installation, name: str) -> None:
    cut, once = await a_request(it, name), f"once {uuid.uuid4()}"
    before = len(await log_of(it, cut.service))
    async with nothing_kept(it, cut.service, "P0001"):
        assert (await send(it, cut, once))[0] == 500
    assert await made_by(it, cut, before) == cut.events
    status, answer, _ = await send(it, cut, once)
    assert status == 200, answer
    assert await made_by(it, cut, before) == cut.events
    await works(it, answer)


async def works(it: Installation, answer: dict[str, Any]) -> None:
    """What was answered is what was made: its key opens, its link leads somewhere, its address is its own."""
    if answer.get("key"):
        assert (await it.ok("GET", "/key/info", key=answer["key"]))["info"]["key_id"] == answer["key_id"]
    if "id" in answer:
        opened = await it.ok("GET", f"/onboarding/get_token?invite_link={answer['id']}", key=None)
        assert opened["user_email"]
    if answer.get("user_email"):
        found = await it.ok("GET", f"/user/info?user_id={answer['user_id']}")
        assert found["user_info"]["user_email"] == answer["user_email"]


async def test_a_new_link_answered_late_is_that_requests_own(it: Installation) -> None:
    """Not the newer one, which somebody else asked for meanwhile."""
    cut, once = await a_request(it, "a new link"), f"once {uuid.uuid4()}"
    async with nothing_kept(it, "invitations", "57P01"):
        _, first, _ = await send(it, cut, once)
    newer = await it.ok("POST", cut.path, {})
    status, late, _ = await send(it, cut, once)
    assert (status, late["id"]) == (200, first["id"])
    assert late["id"] != newer["id"]


async def test_what_is_gone_since_is_told_and_not_made_again(it: Installation) -> None:
    cut, once = await a_request(it, "a user"), f"once {uuid.uuid4()}"
    before = len(await log_of(it, "identity"))
    async with nothing_kept(it, "identity", "57P01"):
        _, first, _ = await send(it, cut, once)
    await it.ok("POST", "/user/delete", {"user_ids": [first["user_id"]]})
    status, answer, _ = await send(it, cut, once)
    assert refusal((status, answer)) == (404, "not_found", "user_id")
    assert await made_by(it, cut, before) == ["UserCreated", "UserDeleted"]


async def test_a_duplicate_is_one_all_the_same(it: Installation) -> None:
    """It is the request that may come again, not the thing."""
    cut = await a_request(it, "a user with an id and no key")
    assert (await send(it, cut, f"once {uuid.uuid4()}"))[0] == 200
    status, answer, _ = await send(it, cut, f"once {uuid.uuid4()}")
    assert refusal((status, answer))[:2] in ((409, "duplicate_user_id"), (409, "duplicate_email"))


@pytest.mark.parametrize("name", ["a user", "a user with an invitation"])
async def test_a_process_killed_before_it_answers_leaves_a_retry_that_does(it: Installation, name: str) -> None:
    cut, once = await a_request(it, name), f"once {uuid.uuid4()}"
    before = len(await log_of(it, "identity"))

    async def is_committed() -> bool:
        return await made_by(it, cut, before) == cut.events

    async with worker_process(it, {}, services=["identity", "gateway"]) as killed:
        async with log_is_held(it, "keys"):  # it waits for the key, the user stands
            asking = asyncio.ensure_future(send(it, cut, once, url=killed.url))
            await eventually(is_committed)
            status, answer, headers = await send(it, cut, once)
            assert refusal((status, answer)) == (409, "idempotency_in_progress", "Idempotency-Key")
            assert headers["Retry-After"] == "1"
            killed.kill()
            assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], Exception)
        status, answer, _ = await retried(it, cut, once)
    assert status == 200, answer
    assert await made_by(it, cut, before) == cut.events
    await works(it, answer)


async def retried(it: Installation, cut: Cut, once: str) -> Answered:
    """As a client does it: again, for as long as it is told that somebody is at work."""
    answers = list[Answered]()

    async def is_answered() -> bool:
        answers.append(await send(it, cut, once))
        return answers[-1][0] != 409

    await eventually(is_answered)
    return answers[-1]


async def test_what_stands_but_could_not_be_waited_for_is_answered_by_the_retry(it: Installation) -> None:
    """503 is not kept: "it stands, is finished all the same, and the same command again says so" (design §3)."""
    cut, once = await a_request(it, "a user"), f"once {uuid.uuid4()}"
    before = len(await log_of(it, "identity"))
    async with log_is_held(it, "keys"):
        status, answer, headers = await send(it, cut, once)
        assert refusal((status, answer))[:2] == (503, "unavailable")
        assert headers["Retry-After"]
    assert await made_by(it, cut, before) == cut.events
    status, answer, headers = await send(it, cut, once)
    assert status == 200, answer
    assert "Idempotent-Replayed" not in headers
    assert await made_by(it, cut, before) == cut.events
    await works(it, answer)


async def test_who_lost_the_lock_does_nothing_twice(it: Installation) -> None:
    """Two at work on the same request at once: they draw the same, and the log takes it once."""
    cut, once = await a_request(it, "a key"), f"once {uuid.uuid4()}"
    before = len(await log_of(it, "keys"))
    connection = await owner(it)
    async with replica(it) as second:
        async with log_is_held(it, "keys"):
            asking = [asyncio.ensure_future(send(it, cut, once))]
            await eventually(lambda: waiting(connection, 1))
            assert await lock_cut_off(connection) == 1
            asking.append(asyncio.ensure_future(send(it, cut, once, url=second)))
            await eventually(lambda: waiting(connection, 2))
        answers = await asyncio.gather(*asking)
    await connection.close()
    assert [status for status, _, _ in answers] == [200, 200]
    assert answers[0][1] == answers[1][1]
    assert await made_by(it, cut, before) == cut.events


async def waiting(connection: "asyncpg.Connection[asyncpg.Record]", number: int) -> bool:
    """Whether so many of keys' transactions wait, for the log or for one who does."""
    query = (
        "select count(*) from pg_stat_activity where application_name = 'keystead keys' and wait_event_type = 'Lock'"
        " and datname = current_database()"
    )
    return bool(await connection.fetchval(query) == number)


async def lock_cut_off(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    cut = await connection.fetch(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name = 'keystead keys answers' and datname = current_database()"
    )
    return len(cut)


@asynccontextmanager
async def replica(it: Installation) -> AsyncIterator[str]:
    connections = connections_to(it.owner_url, it.namespace)
    async with serving(compose(SERVICES, it.settings, connections, keyring=keyring()).app) as url:
        yield url


async def test_a_401_is_not_kept() -> None:
    """The key that asks was deleted between the gate and here."""
    gone = Caller("default_user_id", "proxy_admin", key_id="of a deleted key")
    async with keys_world() as world:
        headers = {"Authorization": json.dumps(asdict(gone)), "Idempotency-Key": "once"}
        await world.new_user("default_user_id")
        for _ in range(2):
            answer = await world.client.post("/key/generate", json={}, headers=headers)
            assert answer.status_code == 401, answer.text
            assert "Idempotent-Replayed" not in answer.headers
