"""What time ends: sessions, links and what they give, passwords whose claim came to nothing (§5.5, §5.6)."""

import hashlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.identity import credentials, handlers, jobs
from services.identity.api.onboarding import hash_of_link
from services.identity.domain.session import stream_of as session_stream
from services.identity.domain.user import stream_of
from services.identity.requests import FindSession, FoundSession
from services.invitations.requests import AcceptedInvitation, AcceptInvitation
from shared.event_store import Transaction
from tests.support.identity import (
    PassingClock,
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
from tests.support.installation import PASSWORD, Installation, installation

UNKNOWN = (401, "invitation_unknown", None)
EXPIRED = (401, "invitation_expired", None)
MOMENT = timedelta(seconds=20)  # longer than any of these tests takes to look


@pytest.fixture(scope="module")
def clock() -> PassingClock:
    return PassingClock()


@pytest.fixture(scope="module")
async def it(clock: PassingClock) -> AsyncIterator[Installation]:
    async with installation(clock=clock) as running:
        yield running


async def find(it: Installation, session: str) -> FoundSession:
    """What identity says of a session; asking counts as use."""
    question = FindSession(token=hashlib.sha256(session.encode()).hexdigest())
    found: FoundSession = await it.running("gateway").wire.ask("identity", question, FoundSession)
    return found


async def is_refused(it: Installation, session: str) -> bool:
    outcome = await it.call("GET", "/user/info", key=session)
    return outcome[0] == 401 and refusal(outcome) == (401, "key_unknown", "key")


# Sessions


async def test_a_session_ends_when_it_was_not_used_for_eight_hours(it: Installation, clock: PassingClock) -> None:
    session = (await it.invite()).session
    for _ in range(2):
        clock.passes(hours=8, seconds=-MOMENT.total_seconds())
        assert (await find(it, session)).exists
    clock.passes(hours=8)
    assert await is_refused(it, session)
    assert not (await find(it, session)).exists


async def test_a_session_that_ended_unused_does_not_begin_again(it: Installation, clock: PassingClock) -> None:
    session = (await it.invite()).session
    clock.passes(hours=8)
    for _ in range(2):
        assert not (await find(it, session)).exists


async def test_a_session_ends_after_a_day_however_much_it_is_used(it: Installation, clock: PassingClock) -> None:
    session = (await it.invite()).session
    for _ in range(3):
        clock.passes(hours=7)
        assert (await find(it, session)).exists
    clock.passes(hours=3, seconds=-MOMENT.total_seconds())
    found = await find(it, session)
    assert found.exists
    assert found.expires_at is not None and found.expires_at - clock() < MOMENT
    clock.passes(seconds=MOMENT.total_seconds())
    assert await is_refused(it, session)
    assert not (await find(it, session)).exists


async def test_a_worker_that_knows_a_session_refuses_it_by_the_clock(it: Installation, clock: PassingClock) -> None:
    session = (await it.invite()).session
    await it.ok("GET", "/user/info", key=session)
    clock.passes(days=1)
    assert await is_refused(it, session)


async def test_how_long_sessions_live_are_settings(it: Installation) -> None:
    person = await it.invite()
    content = {"keystead_settings": {"session_idle_timeout": "10m"}}
    async with replica_with(it, content, LITELLM_UI_SESSION_DURATION="1h") as replica:
        _, answer = await log_in(replica, person.email, PASSWORD)
        life = datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=59) < life <= timedelta(hours=1)
        started_at = datetime.now(UTC)

        async def until(tx: Transaction) -> datetime:
            return await handlers.idle_until(tx, "a session that was never seen", started_at)

        assert await replica.running("identity").run(until) == started_at + timedelta(minutes=10)


async def session_id_of(it: Installation, session: str) -> str:
    return (await find(it, session)).session_id


async def test_the_end_of_a_session_whose_day_is_over_is_told_once(it: Installation, clock: PassingClock) -> None:
    person = await it.invite()
    stream = session_stream(await session_id_of(it, person.session))
    await jobs.expire_sessions(it.running("identity"))
    assert await types_of(it, stream) == ["SessionStarted"]
    clock.passes(days=1)
    for _ in range(2):
        await jobs.expire_sessions(it.running("identity"))
    started, ended = await log_of(it, stream=stream)
    assert (ended.type, ended.data["reason"], ended.actor) == ("SessionEnded", "expired", "system")
    assert ended.data["ended_at"] > started.data["expires_at"]


async def test_a_session_that_was_logged_out_is_not_told_to_expire(it: Installation, clock: PassingClock) -> None:
    person = await it.invite()
    stream = session_stream(await session_id_of(it, person.session))
    await it.ok("POST", "/session/logout", key=person.session)
    clock.passes(days=2)
    await jobs.expire_sessions(it.running("identity"))
    assert [recorded.data.get("reason") for recorded in await log_of(it, stream=stream)] == [None, "logged_out"]


async def test_more_sessions_than_a_batch_are_told_in_one_go(it: Installation, clock: PassingClock) -> None:
    person, identity = await it.invite(), it.running("identity")

    async def start_many(tx: Transaction) -> None:
        for _ in range(jobs.BATCH + 1):
            visitor = handlers.Visitor(None, None)
            await handlers.start_session(
                tx, person.user_id, role="internal_user", email=None, method="password", visitor=visitor
            )

    await identity.run(start_many)
    clock.passes(days=1)
    await jobs.expire_sessions(identity)
    ended = [r for r in await log_of(it) if r.type == "SessionEnded" and r.data["user_id"] == person.user_id]
    assert len(ended) == jobs.BATCH + 2


# Links


async def test_what_a_link_gave_is_over_after_a_quarter_of_an_hour_and_the_link_gives_another(
    it: Installation, clock: PassingClock
) -> None:
    user = await new_user(it, user_email=an_email())
    link = await invite(it, user["user_id"])
    credential = await open_link(it, link)
    clock.passes(minutes=15)
    assert refusal(await claim(it, link, user["user_id"], PASSWORD, credential)) == UNKNOWN
    credential = await open_link(it, link)
    clock.passes(minutes=15, seconds=-MOMENT.total_seconds())
    assert (await claim(it, link, user["user_id"], PASSWORD, credential))[0] == 200


async def test_a_link_is_over_after_seven_days(it: Installation, clock: PassingClock) -> None:
    user = await new_user(it, user_email=an_email())
    link = await invite(it, user["user_id"])
    clock.passes(days=7, minutes=-5)
    credential = await open_link(it, link)
    clock.passes(minutes=5)
    opened = await it.call("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    assert refusal(opened) == EXPIRED
    assert refusal(await claim(it, link, user["user_id"], PASSWORD, credential)) == EXPIRED
    assert (await log_in(it, user["user_email"], PASSWORD))[0] == 401


async def test_a_link_is_good_until_its_last_moment(it: Installation, clock: PassingClock) -> None:
    user = await new_user(it, user_email=an_email())
    link = await invite(it, user["user_id"])
    clock.passes(days=7, seconds=-MOMENT.total_seconds())
    assert (await claim(it, link, user["user_id"], PASSWORD, await open_link(it, link)))[0] == 200


# Passwords whose claim was cut short


async def pending(it: Installation, user_id: str) -> str:
    identity, claim_id = it.running("identity"), str(uuid.uuid4())
    await identity.run(credentials.keep_pending, claim_id, user_id, await identity.own.hash(PASSWORD))
    return claim_id


async def is_set(it: Installation, user: dict[str, Any], claim_id: str) -> bool:
    """Whether a password can be put in force now."""
    await it.running("identity").run(handlers.activate_password, claim_id, user["user_id"], 1_000_000)
    return "PasswordSet" in await types_of(it, stream_of(user["user_id"]))


async def test_a_password_whose_claim_came_to_nothing_is_forgotten(it: Installation, clock: PassingClock) -> None:
    user = await new_user(it, user_email=an_email())
    claim_id = await pending(it, user["user_id"])
    clock.passes(minutes=15, seconds=1)
    await jobs.forget_pending_passwords(it.running("identity"))
    assert not await is_set(it, user, claim_id)


async def test_a_password_whose_claim_is_under_way_is_kept(it: Installation, clock: PassingClock) -> None:
    user = await new_user(it, user_email=an_email())
    claim_id = await pending(it, user["user_id"])
    clock.passes(minutes=15, seconds=-MOMENT.total_seconds())
    await jobs.forget_pending_passwords(it.running("identity"))
    assert await is_set(it, user, claim_id)


async def test_a_password_that_was_accepted_is_not_forgotten_however_late_that_is_heard(
    it: Installation, clock: PassingClock
) -> None:
    user, identity = await new_user(it, user_email=an_email()), it.running("identity")
    link, claim_id = await invite(it, user["user_id"]), await pending(it, user["user_id"])
    clock.passes(minutes=16)
    question = AcceptInvitation(id_hash=hash_of_link(link), user_id=user["user_id"], claim_id=claim_id)
    await identity.wire.ask("invitations", question, AcceptedInvitation)
    await jobs.forget_pending_passwords(identity)
    assert await session_of(it, user["user_email"], PASSWORD)
