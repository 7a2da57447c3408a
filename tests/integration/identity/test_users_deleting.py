"""``POST /user/delete``: all of them or none, and whatever hangs on them dies at once (§3.2, §5.8)."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.identity.domain.session import stream_of as session_stream
from services.identity.domain.user import DEFAULT_USER_ID, stream_of
from services.identity.requests import FindSession, FoundSession
from tests.support.identity import (
    an_email,
    claim,
    invite,
    log_in,
    log_of,
    new_user,
    open_link,
    reasons,
    refusal,
    types_of,
    user_info,
)
from tests.support.installation import PASSWORD, Installation, claims_of, second_worker

CALL = {"model": "mock-fast", "messages": [{"role": "user", "content": "Say hello."}]}


@pytest.fixture(scope="module")
async def other_worker(it: Installation) -> AsyncIterator[str]:
    async with second_worker(it) as url:
        yield url


async def delete(it: Installation, *user_ids: str) -> tuple[int, Any]:
    return await it.call("POST", "/user/delete", {"user_ids": list(user_ids)})


async def is_there(it: Installation, user_id: str) -> bool:
    return (await it.call("GET", f"/user/info?user_id={user_id}"))[0] == 200


async def test_the_answer_is_the_number_deleted_a_bare_integer(it: Installation) -> None:
    users = [(await new_user(it))["user_id"] for _ in range(3)]
    assert await delete(it, *users) == (200, 3)
    assert [await is_there(it, user_id) for user_id in users] == [False] * 3


async def test_one_named_twice_is_deleted_once(it: Installation) -> None:
    user_id = (await new_user(it))["user_id"]
    assert await delete(it, user_id, user_id) == (200, 1)
    assert await types_of(it, stream_of(user_id)) == ["UserCreated", "UserDeleted"]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_unknown_among_them_and_none_is_deleted(it: Installation, place: int) -> None:
    person = await it.invite()
    users = [person.user_id, (await new_user(it))["user_id"]]
    users.insert(place, str(uuid.uuid4()))
    assert refusal(await delete(it, *users)) == (404, "not_found", "user_ids")
    await it.ok("GET", "/user/info", key=person.session)
    assert (await log_in(it, person.email, PASSWORD))[0] == 200


@pytest.mark.parametrize("place", [0, 1])
async def test_with_the_master_keys_user_among_them_none_is_deleted(it: Installation, place: int) -> None:
    users = [(await new_user(it))["user_id"]]
    users.insert(place, DEFAULT_USER_ID)
    assert refusal(await delete(it, *users)) == (400, "out_of_range", "user_ids")
    assert await is_there(it, users[1 - place])
    assert await is_there(it, DEFAULT_USER_ID)


async def test_a_second_deletion_finds_nobody(it: Installation) -> None:
    user_id = (await new_user(it))["user_id"]
    assert await delete(it, user_id) == (200, 1)
    assert refusal(await delete(it, user_id)) == (404, "not_found", "user_ids")


async def test_many_deletions_at_once_delete_once(it: Installation) -> None:
    """Whoever looked before another's commit is told that it is done, which it is."""
    user_id = (await new_user(it))["user_id"]
    outcomes = await asyncio.gather(*(delete(it, user_id) for _ in range(10)))
    assert {"ok"} <= set(reasons(list(outcomes))) <= {"ok", "not_found"}
    assert await types_of(it, stream_of(user_id)) == ["UserCreated", "UserDeleted"]


@pytest.mark.parametrize(
    ("body", "reason", "param"),
    [
        ({}, "field_missing", "user_ids"),
        ({"user_ids": []}, "out_of_range", "user_ids"),
        ({"user_ids": ["x"] * 501}, "out_of_range", "user_ids"),
        ({"user_ids": "x"}, "wrong_type", "user_ids"),
        ({"user_ids": None}, "wrong_type", "user_ids"),
        ({"user_ids": ["x", 5]}, "wrong_type", "user_ids.1"),
        ({"user_ids": [""]}, "out_of_range", "user_ids.0"),
        ({"user_id": "x"}, "field_unknown", "user_id"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_list_is_refused_by_name(it: Installation, body: dict[str, Any], reason: str, param: str) -> None:
    assert refusal(await it.call("POST", "/user/delete", body)) == (400, reason, param)


@pytest.mark.parametrize("role", ["proxy_admin_viewer", "internal_user", "internal_user_viewer"])
async def test_only_an_admin_deletes_users_and_nobody_else_even_themselves(it: Installation, role: str) -> None:
    person = await it.invite(user_role=role)
    outcome = await it.call("POST", "/user/delete", {"user_ids": [person.user_id]}, key=person.session)
    assert refusal(outcome) == (403, "role_not_allowed", None)


async def test_an_admin_may_delete_themselves(it: Installation) -> None:
    person = await it.invite(user_role="proxy_admin")
    assert await it.ok("POST", "/user/delete", {"user_ids": [person.user_id]}, key=person.session) == 1
    assert refusal(await it.call("GET", "/user/info", key=person.session)) == (401, "key_unknown", "key")


# What dies at once


async def test_sessions_end_at_once_at_every_worker(it: Installation, other_worker: str) -> None:
    person = await it.invite()
    second = claims_of((await log_in(it, person.email, PASSWORD))[1]["token"])["key"]
    ways = [(url, key) for url in (it.url, other_worker) for key in (person.session, person.jwt, second)]
    for url, key in ways:
        await it.ok("GET", "/v1/models", key=key, url=url)
    await delete(it, person.user_id)
    for url, key in ways:
        assert refusal(await it.call("GET", "/v1/models", key=key, url=url)) == (401, "key_unknown", "key")


async def test_the_end_of_each_session_is_told(it: Installation) -> None:
    person = await it.invite()
    me = await it.ok("GET", "/keystead/v1/me", key=person.session)
    await delete(it, person.user_id)
    started, ended = await log_of(it, stream=session_stream(me["credential"]["session_id"]))
    assert (started.type, ended.type, ended.data["reason"]) == ("SessionStarted", "SessionEnded", "user_deleted")


async def test_keys_die_at_once_at_every_worker(it: Installation, other_worker: str) -> None:
    user = await it.ok("POST", "/user/new", {"user_role": "internal_user"})
    second = await it.ok("POST", "/key/generate", {}, key=user["key"])
    ways = [(url, key) for url in (it.url, other_worker) for key in (user["key"], second["key"])]
    for url, key in ways:
        await it.ok("POST", "/v1/chat/completions", CALL, key=key, url=url)
    await delete(it, user["user_id"])
    for url, key in ways:
        outcome = await it.call("POST", "/v1/chat/completions", CALL, key=key, url=url)
        assert refusal(outcome) == (401, "key_unknown", "key")


async def test_dead_keys_can_still_be_read_by_an_admin(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {})
    await delete(it, user["user_id"])
    key = (await it.ok("GET", f"/key/info?key={user['token']}"))["info"]
    assert (key["status"], key["user_id"]) == ("deleted", user["user_id"])


async def test_an_open_invitation_is_dead_at_once(it: Installation) -> None:
    user = await new_user(it, user_email=an_email())
    link = await invite(it, user["user_id"])
    credential = await open_link(it, link)
    await delete(it, user["user_id"])
    opened = await it.call("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    assert refusal(opened)[:2] == (401, "invitation_unknown")
    assert refusal(await claim(it, link, user["user_id"], PASSWORD, credential))[:2] == (401, "invitation_unknown")
    (invitation,) = (await it.ok("GET", f"/keystead/v1/invitations?user_id={user['user_id']}"))["data"]
    assert invitation["status"] == "revoked"


async def test_nobody_logs_in_as_a_deleted_user(it: Installation) -> None:
    person = await it.invite()
    await delete(it, person.user_id)
    assert refusal(await log_in(it, person.email, PASSWORD)) == (401, "credentials_wrong", "invalid_credentials")


# What is free again, and what is not


async def test_the_email_is_free_again_and_whoever_gets_it_is_somebody_else(it: Installation) -> None:
    person = await it.invite()
    await delete(it, person.user_id)
    successor = await new_user(it, user_email=person.email.upper())
    assert successor["user_id"] != person.user_id
    assert successor["user_email"] == person.email
    assert (await log_in(it, person.email, PASSWORD))[0] == 401
    assert (await it.call("GET", "/user/info", key=person.session))[0] == 401


async def test_the_id_is_not_free_again(it: Installation) -> None:
    """Spend stays under it."""
    user_id = (await new_user(it))["user_id"]
    await delete(it, user_id)
    assert refusal(await it.call("POST", "/user/new", {"user_id": user_id})) == (409, "duplicate_user_id", "user_id")
    assert not await is_there(it, user_id)


async def test_others_are_left_alone(it: Installation) -> None:
    person, other = await it.invite(), await it.invite()
    await delete(it, person.user_id)
    await it.ok("GET", "/user/info", key=other.session)
    assert (await log_in(it, other.email, PASSWORD))[0] == 200


async def test_keys_that_a_deleted_admin_made_for_others_stay(it: Installation) -> None:
    admin, other = await it.invite(user_role="proxy_admin"), await new_user(it, user_role="internal_user")
    key = await it.ok("POST", "/key/generate", {"user_id": other["user_id"]}, key=admin.session)
    await delete(it, admin.user_id)
    await it.ok("POST", "/v1/chat/completions", CALL, key=key["key"])


# At the same time


async def test_no_session_outlives_a_user_who_is_deleted_while_they_log_in(it: Installation) -> None:
    person = await it.invite()
    attempts = [log_in(it, person.email, PASSWORD) for _ in range(8)]
    outcomes = await asyncio.gather(*attempts[:4], delete(it, person.user_id), *attempts[4:])
    tokens = [answer["token"] for status, answer in outcomes if status == 200 and isinstance(answer, dict)]
    for token in tokens:
        assert (await it.call("GET", "/user/info", key=token))[0] == 401
    sessions = [recorded for recorded in await log_of(it) if recorded.data.get("user_id") == person.user_id]
    types = [recorded.type for recorded in sessions]
    assert types.count("SessionStarted") == types.count("SessionEnded") == len(tokens) + 1


async def test_no_key_outlives_a_user_who_is_deleted_while_it_is_made(it: Installation) -> None:
    person = await it.invite()
    makings = [it.call("POST", "/key/generate", {}, key=person.session) for _ in range(8)]
    outcomes = await asyncio.gather(*makings[:4], delete(it, person.user_id), *makings[4:])
    await it.running("keys").fence({"identity"})
    keys = [answer["key"] for status, answer in outcomes if status == 200 and isinstance(answer, dict)]
    for key in keys:
        assert refusal(await it.call("GET", "/key/info", key=key)) == (401, "key_unknown", "key")


async def test_an_address_goes_to_one_of_those_who_wait_for_it(it: Installation) -> None:
    email = an_email()
    user_id = (await new_user(it, user_email=email))["user_id"]
    makings = [it.call("POST", "/user/new", {"user_email": email}) for _ in range(6)]
    outcomes = await asyncio.gather(*makings[:3], delete(it, user_id), *makings[3:])
    await it.call("POST", "/user/new", {"user_email": email})
    users = (await it.ok("GET", "/user/list", params={"user_email": email}))["users"]
    assert len(users) == 1
    assert outcomes[3] == (200, 1)


async def test_many_users_are_deleted_together(it: Installation) -> None:
    users = await asyncio.gather(*(new_user(it, user_email=an_email()) for _ in range(30)))
    assert await delete(it, *(user["user_id"] for user in users)) == (200, 30)


async def test_an_ended_session_is_nobodys_by_its_hash(it: Installation) -> None:
    person = await it.invite()
    question = FindSession(token=hashlib.sha256(person.session.encode()).hexdigest())
    wire = it.running("gateway").wire
    assert (await wire.ask("identity", question, FoundSession)).user_id == person.user_id
    await delete(it, person.user_id)
    found = await wire.ask("identity", question, FoundSession)
    assert (found.exists, found.user_id, found.session_id) == (False, "", "")


async def test_a_refusal_names_the_id_that_is_not_there_and_no_other(it: Installation) -> None:
    user_id, unknown = (await new_user(it))["user_id"], str(uuid.uuid4())
    _, answer = await delete(it, user_id, unknown)
    assert unknown in answer["error"]["message"]
    assert user_id not in json.dumps(answer)
    assert await user_info(it, user_id)
