"""What other services may ask identity now: who a user is, whose a session, what an address (requests.py)."""

import uuid
from typing import TypeVar

from pydantic import BaseModel

from services.identity.domain.user import DEFAULT_USER_ID
from services.identity.requests import (
    FindSession,
    FindUser,
    FoundSession,
    FoundUser,
    OpenedEmails,
    OpenEmails,
)
from shared.requests import LastPosition, Position, Question
from shared.session_token import hash_of
from tests.support.identity import an_email, new_user
from tests.support.installation import Installation

A = TypeVar("A", bound=BaseModel)


async def ask(it: Installation, question: Question, answer: type[A]) -> A:
    return await it.running("gateway").wire.ask("identity", question, answer)


async def last_position(it: Installation) -> int:
    return (await ask(it, LastPosition(), Position)).position


async def find_user(it: Installation, user_id: str) -> FoundUser:
    return await ask(it, FindUser(user_id=user_id), FoundUser)


async def test_a_user_is_found_as_they_are_now(it: Installation) -> None:
    user = await new_user(it, user_role="internal_user", models=["mock-fast"], max_budget="0.5")
    found = await find_user(it, user["user_id"])
    assert found == FoundUser(
        position=await last_position(it),
        exists=True,
        user_id=user["user_id"],
        role="internal_user",
        models=("mock-fast",),
        max_budget_nano_usd=500_000_000,
    )


async def test_an_answer_is_as_new_as_its_position_says(it: Installation) -> None:
    user_id = (await new_user(it))["user_id"]
    before = await last_position(it)
    await it.ok("POST", "/user/update", {"user_id": user_id, "user_role": "proxy_admin"})
    found = await find_user(it, user_id)
    assert (found.role, found.position) == ("proxy_admin", before + 1)


async def test_of_a_user_who_never_was_or_is_deleted_nothing_is_told(it: Installation) -> None:
    deleted = (await new_user(it, user_role="proxy_admin", models=["mock-fast"], max_budget=1))["user_id"]
    await it.ok("POST", "/user/delete", {"user_ids": [deleted]})
    for user_id in (deleted, str(uuid.uuid4())):
        found = await find_user(it, user_id)
        assert found == FoundUser(position=await last_position(it), exists=False, user_id=user_id)


async def test_a_session_is_found_by_its_hash(it: Installation) -> None:
    person = await it.invite()
    me = await it.ok("GET", "/keystead/v1/me", key=person.session)
    found = await ask(it, FindSession(token=hash_of(person.session)), FoundSession)
    assert (found.exists, found.user_id, found.session_id) == (True, person.user_id, me["credential"]["session_id"])
    assert found.expires_at is not None and found.idle_until is not None
    assert found.idle_until < found.expires_at


async def test_of_a_session_unknown_or_ended_nothing_is_told(it: Installation) -> None:
    person = await it.invite()
    await it.ok("POST", "/session/logout", key=person.session)
    for token in (hash_of(person.session), hash_of("sk-kss1_nobody's"), person.session, ""):
        found = await ask(it, FindSession(token=token), FoundSession)
        assert found == FoundSession(position=await last_position(it), exists=False)


async def test_addresses_are_told_of_those_who_have_one(it: Installation) -> None:
    users = [await new_user(it, user_email=email) for email in (an_email(), an_email(), None)]
    await it.ok("POST", "/user/delete", {"user_ids": [users[1]["user_id"]]})
    asked = (*(user["user_id"] for user in users), DEFAULT_USER_ID, str(uuid.uuid4()))
    opened = await ask(it, OpenEmails(user_ids=asked), OpenedEmails)
    assert opened.emails == {users[0]["user_id"]: users[0]["user_email"]}


async def test_of_nobody_no_address_is_told(it: Installation) -> None:
    assert (await ask(it, OpenEmails(user_ids=()), OpenedEmails)).emails == {}
