"""The three flows that span services, killed at each step on each side: they end in done, or in undone-and-repeatable.

Killed is a service's own process, by SIGKILL, at a commit, a question, an answer or an event told. A few cuts of each
kind always run; all of them where ``KEYSTEAD_EVERY_CUT`` is set.
"""

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.support.cutting import CUTTABLE, Cuttable, cuttable, repeated
from tests.support.eventually import eventually
from tests.support.identity import refusal
from tests.support.installation import claims_of

EVERY = bool(os.environ.get("KEYSTEAD_EVERY_CUT"))
OLD, NEW = "correct horse battery staple", "another horse, another battery"
Answered = tuple[int, Any]

# What is killed where. A star: such a cut always runs.
NEW_USER = {
    "identity": [
        "* before the commit of make",
        "* after the commit of make",
        "before telling UserCreated",
        "* after telling UserCreated",
        "after asking CatchUp of invitations",
        "after asking CatchUp of keys",
        "* before asking FindKey of keys",
        "after asking FindKey of keys",
    ],
    "invitations": [
        "* before the commit of UserCreated",
        "* after the commit of UserCreated",
        "before answering CatchUp",
        "before telling InvitationCreated",
        "after telling InvitationCreated",
    ],
    "keys": [
        "* before the commit of UserCreated",
        "* after the commit of UserCreated",
        "before answering CatchUp",
        "before answering FindKey",
        "before telling KeyGenerated",
        "* after telling KeyGenerated",
    ],
    "notifications": [
        "before the commit of InvitationCreated",
        "* after the commit of InvitationCreated",
        "before telling NotificationQueued",
        "after telling NotificationQueued",
    ],
}
CLAIM = {
    "identity": [
        "after asking CheckInvitation of invitations",
        "before the commit of keep_pending",
        "* after the commit of keep_pending",
        "* after asking AcceptInvitation of invitations",
        "before the commit of InvitationAccepted",
        "* after the commit of InvitationAccepted",
        "before the commit of claim",
        "* after the commit of claim",
        "before telling PasswordSet",
        "after telling PasswordSet",
        "before telling SessionStarted",
        "after telling SessionStarted",
    ],
    "invitations": [
        "before answering CheckInvitation",
        "* before the commit of accept_invitation",
        "* after the commit of accept_invitation",
        "before answering AcceptInvitation",
        "* before telling InvitationAccepted",
        "after telling InvitationAccepted",
    ],
    "notifications": [
        "* before the commit of InvitationAccepted",
        "after the commit of InvitationAccepted",
        "before telling NotificationWithdrawn",
        "after telling NotificationWithdrawn",
    ],
}
DELETION = {
    "identity": [
        "* before the commit of delete",
        "* after the commit of delete",
        "before telling UserDeleted",
        "* after telling UserDeleted",
        "before telling SessionEnded",
        "after telling SessionEnded",
        "after asking CatchUp of invitations",
        "* before asking AwaitBarrier of budgets",
        "after asking AwaitBarrier of budgets",
    ],
    "invitations": [
        "* before the commit of UserDeleted",
        "after the commit of UserDeleted",
        "before answering CatchUp",
        "before telling InvitationRevoked",
        "* after telling InvitationRevoked",
    ],
    "keys": [
        "before the commit of UserDeleted",
        "* after the commit of UserDeleted",
        "before answering CatchUp",
        "* before telling KeyDeleted",
        "after telling KeyDeleted",
    ],
    "notifications": [
        "* before the commit of UserDeleted",
        "after the commit of UserDeleted",
        "before telling NotificationWithdrawn",
        "after telling NotificationWithdrawn",
    ],
}
# Of a claim: all that comes before InvitationAccepted is committed. What comes after it is done.
UNDONE = (
    ("identity", "after asking CheckInvitation of invitations"),
    ("identity", "before the commit of keep_pending"),
    ("identity", "after the commit of keep_pending"),
    ("invitations", "before answering CheckInvitation"),
    ("invitations", "before the commit of accept_invitation"),
)
GOES_ON_ANYWAY = {"LastPosition", "ReadLog"}


def cuts(table: Mapping[str, Sequence[str]], services: Sequence[str] = CUTTABLE) -> list[Any]:
    """Services and steps, for ``parametrize``."""
    steps = [(service, step) for service in services for step in table.get(service, ())]
    chosen = [(service, step.removeprefix("* ")) for service, step in steps if EVERY or step.startswith("* ")]
    return [pytest.param(*each, id=" ".join(each)) for each in chosen]


@pytest_asyncio.fixture(scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cuttable]:
    async with cuttable(tmp_path_factory.mktemp("cut")) as running:
        yield running


@dataclass
class Person:
    """Whom a flow is about, and the key that they have."""

    user_id: str = field(default_factory=lambda: f"u-{uuid.uuid4()}")
    key: str = ""
    link: str = ""

    @property
    def email(self) -> str:
        return f"{self.user_id}@example.test"


async def cut(it: Cuttable, service: str, step: str, command: Callable[[], Awaitable[Answered]]) -> None:
    """Begin what the client asks for, kill ``service`` at ``step``, and start it again. The client hears nothing."""
    victim = it.victims[service]
    await victim.die_at(step)
    asking = asyncio.ensure_future(command())
    await victim.died()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await victim.start()


LOGS = ("identity", "invitations", "keys", "notifications")
TOLD = " and ".join(
    f"(select published from {log}.relay) = (select coalesce(max(position), 0) from {log}.events)" for log in LOGS
)
HEARD = " union all ".join(
    f"select s.position < (select coalesce(max(position), 0) from {source}.events)"
    f" from {log}.subscriptions s where s.source = '{source}'"
    for log in LOGS
    for source in LOGS
)


async def story(it: Cuttable, person: Person) -> Counter[str]:
    """What was told of someone in all logs, once all that was told was heard."""
    connection = await asyncpg.connect(it.owner_url)

    async def is_over() -> bool:
        told = await connection.fetchval(f"select {TOLD}")
        return bool(told and not await connection.fetchval(f"select bool_or(late) from ({HEARD}) as each (late)"))

    try:
        await eventually(is_over, 20.0)
        every = " union all ".join(f"select type, data from {log}.events" for log in LOGS)
        rows = await connection.fetch(
            f"select type from ({every}) e where data ->> 'user_id' = $1 or type = 'NotificationWithdrawn' and"
            " data ->> 'id' in (select data ->> 'id' from notifications.events where data ->> 'user_id' = $1)",
            person.user_id,
        )
        return Counter(row["type"] for row in rows)
    finally:
        await connection.close()


# A new user, with a key and an invitation that is mailed


def ask_for_a_user(it: Cuttable, person: Person, **headers: str) -> Callable[[], Awaitable[Answered]]:
    body = {"user_id": person.user_id, "user_email": person.email, "send_invite_email": True}
    return lambda: it.call("POST", "/user/new", body, headers=headers)


MADE = Counter(["UserCreated", "KeyGenerated", "InvitationCreated", "NotificationQueued"])


@pytest.mark.parametrize(("service", "step"), cuts(NEW_USER))
async def test_a_new_user_is_made_with_all_that_comes_along_or_not_at_all(
    it: Cuttable, service: str, step: str
) -> None:
    person = Person()
    ask = ask_for_a_user(it, person)
    await cut(it, service, step, ask)
    status, answer = await repeated(ask)
    if step == "before the commit of make":
        assert status == 200, "undone, and done now"
    else:
        assert refusal((status, answer)) == (409, "duplicate_user_id", "user_id")
    assert await story(it, person) == MADE
    info = await it.ok("GET", f"/user/info?user_id={person.user_id}")
    assert (info["total_keys"], info["user_info"]["user_email"]) == (1, person.email)


@pytest.mark.parametrize(("service", "step"), cuts(NEW_USER, ["identity"]))
async def test_a_new_user_asked_for_under_an_idempotency_key_is_answered_by_the_retry(
    it: Cuttable, service: str, step: str
) -> None:
    person = Person()
    ask = ask_for_a_user(it, person, **{"Idempotency-Key": f"once {person.user_id}"})
    await cut(it, service, step, ask)
    status, answer = await repeated(ask)
    assert status == 200, answer
    assert (await it.ok("GET", "/key/info", key=answer["key"]))["info"]["user_id"] == person.user_id
    assert await ask() == (200, answer)
    assert await story(it, person) == MADE


# An invitation that is claimed


INVITED = Counter(["UserCreated", "InvitationCreated", "NotificationQueued"])


async def invited(it: Cuttable) -> Person:
    person = Person()
    body = {"user_id": person.user_id, "user_email": person.email, "auto_create_key": False}
    await it.ok("POST", "/user/new", {**body, "user_role": "internal_user"})
    person.link = (await it.ok("POST", "/invitation/new", {"user_id": person.user_id, "send_email": True}))["id"]
    assert await story(it, person) == INVITED
    return person


async def claim(it: Cuttable, person: Person, password: str) -> Answered:
    status, opened = await it.call("GET", f"/onboarding/get_token?invite_link={person.link}", key=None)
    if status != 200:
        return status, opened
    body = {"invitation_link": person.link, "user_id": person.user_id, "password": password}
    return await it.call("POST", "/onboarding/claim_token", body, key=claims_of(opened["token"])["key"])


async def log_in(it: Cuttable, person: Person, password: str) -> int:
    status, _ = await it.call("POST", "/v2/login", {"username": person.email, "password": password}, key=None)
    return status


@pytest.mark.parametrize(("service", "step"), cuts(CLAIM))
async def test_an_invitation_is_claimed_with_one_password_or_open(it: Cuttable, service: str, step: str) -> None:
    """The retry comes with another password: what is in force is the one that the invitation was accepted with."""
    person = await invited(it)
    await cut(it, service, step, lambda: claim(it, person, OLD))
    status, answer = await repeated(lambda: claim(it, person, NEW))
    claimed_before = (service, step) not in UNDONE
    if claimed_before:
        assert refusal((status, answer))[:2] == (401, "invitation_used")
    else:
        assert status == 200, answer
    told = await story(it, person)
    session = told.pop("SessionStarted", 0)
    assert session <= 1 and (session or claimed_before)
    assert told == INVITED + Counter(["InvitationAccepted", "PasswordSet", "NotificationWithdrawn"])
    right, wrong = (OLD, NEW) if claimed_before else (NEW, OLD)
    assert (await log_in(it, person, right), await log_in(it, person, wrong)) == (200, 401)


# A user who is deleted, with a key, a session, an invitation and a mail


async def established(it: Cuttable) -> Person:
    person = await invited(it)
    assert (await claim(it, person, OLD))[0] == 200
    person.key = (await it.ok("POST", "/key/generate", {"user_id": person.user_id}))["key"]
    body = {"user_id": person.user_id, "send_email": True}
    person.link = (await it.ok("POST", "/invitation/new", body))["id"]
    told = await story(it, person)
    assert told["KeyGenerated"] == told["SessionStarted"] == 1 and told["NotificationQueued"] == 2
    return person


@pytest.mark.parametrize(("service", "step"), cuts(DELETION))
async def test_a_user_is_deleted_with_all_that_was_theirs_or_not_at_all(it: Cuttable, service: str, step: str) -> None:
    person = await established(it)
    before = await story(it, person)

    async def delete() -> Answered:
        return await it.call("POST", "/user/delete", {"user_ids": [person.user_id]})

    await cut(it, service, step, delete)
    status, answer = await repeated(delete)
    if step == "before the commit of delete":
        assert (status, answer) == (200, 1)
    else:
        assert refusal((status, answer)) == (404, "not_found", "user_ids")
    assert refusal(await it.call("GET", "/key/info", key=person.key))[:2] == (401, "key_unknown")
    assert refusal(await claim(it, person, NEW))[:2] == (401, "invitation_unknown")
    assert await story(it, person) - before == Counter(
        ["UserDeleted", "SessionEnded", "KeyDeleted", "InvitationRevoked", "NotificationWithdrawn"]
    )
    assert await log_in(it, person, OLD) == 401


# The tables above are the flows'


@pytest.mark.parametrize("name", ["a new user", "a claim", "a deletion"])
async def test_no_step_of_a_flow_is_left_out(it: Cuttable, name: str) -> None:
    """Events told and questions asked: a flow that gets one more needs one more cut."""
    if name == "a new user":
        person, table = Person(), NEW_USER
        begin = _taken(it)
        assert (await ask_for_a_user(it, person)())[0] == 200
    elif name == "a claim":
        person, table = await invited(it), CLAIM
        begin = _taken(it)
        assert (await claim(it, person, OLD))[0] == 200
    else:
        person, table = await established(it), DELETION
        begin = _taken(it)
        assert (await it.call("POST", "/user/delete", {"user_ids": [person.user_id]}))[0] == 200
    await story(it, person)
    taken = {service: victim.steps()[begin[service] :] for service, victim in it.victims.items()}
    assert {service: _spoken(steps) for service, steps in taken.items()} == {
        service: _spoken([step.removeprefix("* ") for step in table.get(service, ())]) for service in it.victims
    }


def _taken(it: Cuttable) -> dict[str, int]:
    return {service: len(victim.steps()) for service, victim in it.victims.items()}


def _spoken(steps: Sequence[str]) -> set[str]:
    """The events told and the questions asked or answered, of these steps."""
    found = set()
    for step in steps:
        _, verb, name, *_ = step.split()
        if verb in ("telling", "asking", "answering") and name not in GOES_ON_ANYWAY:
            found.add(f"{verb} {name}")
    return found
