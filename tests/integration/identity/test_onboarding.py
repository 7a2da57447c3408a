"""Onboarding: a link becomes a password and a session; of many at once one wins; nothing is half done (§3.5, §5.5)."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.identity import credentials, handlers, subscriptions
from services.identity.api.onboarding import hash_of_link
from services.identity.domain.session import stream_of as session_stream
from services.identity.domain.user import stream_of
from services.invitations.events import InvitationAccepted
from services.invitations.requests import AcceptedInvitation, AcceptInvitation
from shared.event_store import Transaction
from shared.events import Recorded
from tests.support.identity import (
    USER_FIELDS,
    an_email,
    claim,
    invite,
    log_in,
    log_of,
    new_user,
    open_link,
    reasons,
    refusal,
    replica_with,
    session_of,
    types_of,
)
from tests.support.installation import BASE_URL, MASTER_KEY, PASSWORD, Installation, claims_of, second_worker

OTHER_PASSWORD = "nine lives of a purple cat"
UNKNOWN = (401, "invitation_unknown", None)
USED = (401, "invitation_used", None)


@pytest.fixture(scope="module")
async def other_worker(it: Installation) -> AsyncIterator[str]:
    async with second_worker(it) as url:
        yield url


async def invited(it: Installation, **fields: Any) -> tuple[dict[str, Any], str]:
    """A user who was invited, and the link's id."""
    user = await new_user(it, user_email=an_email(), **fields)
    return user, await invite(it, user["user_id"])


async def opening(it: Installation, link: str) -> tuple[int, Any]:
    return await it.call("GET", "/onboarding/get_token", params={"invite_link": link}, key=None)


async def statuses(it: Installation, user_id: str) -> list[str]:
    page = await it.ok("GET", f"/keystead/v1/invitations?user_id={user_id}")
    return sorted(invitation["status"] for invitation in page["data"])


# Opening a link


async def test_a_link_opens_without_a_credential(it: Installation) -> None:
    user, link = await invited(it)
    answer = await it.ok("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    assert set(answer) == {"login_url", "token", "user_email"}
    assert answer["user_email"] == user["user_email"]
    assert answer["login_url"] == f"{BASE_URL}/ui/onboarding?token={answer['token']}"


async def test_what_a_link_gives_says_for_whom_it_is_and_lasts_a_quarter_of_an_hour(it: Installation) -> None:
    user, link = await invited(it, user_role="internal_user")
    claims = claims_of((await opening(it, link))[1]["token"])
    assert (claims["user_id"], claims["user_email"], claims["user_role"]) == (
        user["user_id"],
        user["user_email"],
        "internal_user",
    )
    left = claims["exp"] - datetime.fromisoformat(user["created_at"]).timestamp()
    assert 895 <= left <= 930
    assert claims_of(claims["key"])["exp"] == claims["exp"]


async def test_opening_changes_nothing_and_may_be_repeated(it: Installation) -> None:
    """Mail scanners follow links."""
    user, link = await invited(it)
    before = [len(await log_of(it, service)) for service in ("identity", "invitations")]
    for _ in range(5):
        assert (await opening(it, link))[0] == 200
    assert [len(await log_of(it, service)) for service in ("identity", "invitations")] == before
    assert await statuses(it, user["user_id"]) == ["open"]


async def test_a_link_in_capitals_is_the_same_link(it: Installation) -> None:
    user, link = await invited(it)
    credential = await open_link(it, link.upper())
    assert (await claim(it, link.upper(), user["user_id"], PASSWORD, credential))[0] == 200


async def test_what_is_no_link_opens_nothing(it: Installation) -> None:
    user, link = await invited(it)
    ref = (await it.ok("GET", f"/invitation/info?invitation_id={link}"))["ref"]
    for nothing in (str(uuid.uuid4()), ref, user["user_id"], "x", link[:-1], f"{link}0", "a" * 255):
        assert refusal(await opening(it, nothing)) == UNKNOWN


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, (400, "field_missing", "invite_link")),
        ({"invite_link": ""}, (400, "out_of_range", "invite_link")),
        ({"invite_link": "a" * 256}, (400, "out_of_range", "invite_link")),
        ({"invite_link": "a", "user_id": "b"}, (400, "field_unknown", "user_id")),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_link_is_refused_by_name(
    it: Installation, query: dict[str, str], expected: tuple[Any, ...]
) -> None:
    assert refusal(await it.call("GET", "/onboarding/get_token", params=query, key=None)) == expected


async def test_a_link_that_was_taken_back_opens_nothing(it: Installation) -> None:
    user, link = await invited(it)
    credential = await open_link(it, link)
    await it.ok("POST", "/invitation/delete", {"invitation_id": link})
    assert refusal(await opening(it, link)) == UNKNOWN
    assert refusal(await claim(it, link, user["user_id"], PASSWORD, credential)) == UNKNOWN


async def test_a_link_that_was_sent_again_is_dead_and_the_new_one_opens(it: Installation) -> None:
    user, old = await invited(it)
    credential = await open_link(it, old)
    ref = (await it.ok("GET", f"/invitation/info?invitation_id={old}"))["ref"]
    new = (await it.ok("POST", f"/keystead/v1/invitations/{ref}/resend", {}))["id"]
    assert refusal(await opening(it, old)) == UNKNOWN
    assert refusal(await claim(it, old, user["user_id"], PASSWORD, credential)) == UNKNOWN
    assert refusal(await claim(it, new, user["user_id"], PASSWORD, credential)) == UNKNOWN
    assert (await claim(it, new, user["user_id"], PASSWORD, await open_link(it, new)))[0] == 200


async def test_what_a_link_gives_is_stored_by_nobody(it: Installation) -> None:
    _, link = await invited(it)
    _, _, headers = await it.request("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    assert headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in headers


async def test_what_a_link_gives_is_no_credential_for_anything_else(it: Installation) -> None:
    _, link = await invited(it)
    outer = (await opening(it, link))[1]["token"]
    for credential, reason in ((outer, "key_unknown"), (claims_of(outer)["key"], "jwt_invalid")):
        for path in ("/user/info", "/keystead/v1/me", "/v1/models"):
            assert refusal(await it.call("GET", path, key=credential))[:2] == (401, reason)
            by_cookie = await it.call("GET", path, key=None, headers={"Cookie": f"token={credential}"})
            assert refusal(by_cookie)[:2] == (401, reason)


# Claiming


async def test_a_claim_answers_with_the_user_and_a_session_that_works(it: Installation) -> None:
    user, link = await invited(it, user_role="internal_user")
    body = {"invitation_link": link, "user_id": user["user_id"], "password": PASSWORD}
    status, answer, headers = await it.request("POST", "/onboarding/claim_token", body, key=await open_link(it, link))
    assert status == 200
    assert set(answer) == {"login_url", "token", "user_email", "user"}
    assert answer["login_url"] == f"{BASE_URL}/ui?login=success"
    assert answer["user_email"] == user["user_email"]
    assert answer["user"] == {name: user[name] for name in USER_FIELDS}
    assert headers["Set-Cookie"].startswith(f"token={answer['token']}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86")
    assert headers["Cache-Control"] == "no-store"
    for credential in (answer["token"], claims_of(answer["token"])["key"]):
        me = await it.ok("GET", "/keystead/v1/me", key=credential)
        assert (me["user_id"], me["credential"]["kind"]) == (user["user_id"], "session")


async def test_after_a_claim_one_logs_in_with_the_password(it: Installation) -> None:
    user, link = await invited(it)
    assert (await log_in(it, user["user_email"], PASSWORD))[0] == 401
    await claim(it, link, user["user_id"], PASSWORD, await open_link(it, link))
    assert (await log_in(it, user["user_email"], PASSWORD))[0] == 200


async def test_a_claim_is_told_in_order(it: Installation) -> None:
    person = await it.invite()
    link = await invite(it, person.user_id)
    await claim(it, link, person.user_id, OTHER_PASSWORD, await open_link(it, link))
    mine = [recorded for recorded in await log_of(it) if recorded.data.get("user_id") == person.user_id]
    assert [recorded.type for recorded in mine] == [
        "UserCreated",
        "PasswordSet",
        "SessionStarted",
        "PasswordSet",
        "SessionEnded",
        "SessionStarted",
    ]
    assert [recorded.data.get("reason") or recorded.data.get("method") for recorded in mine[-2:]] == [
        "password_set",
        "invitation",
    ]


async def test_a_used_link_is_used(it: Installation) -> None:
    user, link = await invited(it)
    credential = await open_link(it, link)
    assert (await claim(it, link, user["user_id"], PASSWORD, credential))[0] == 200
    assert refusal(await opening(it, link)) == USED
    assert refusal(await claim(it, link, user["user_id"], OTHER_PASSWORD, credential)) == USED
    assert (await log_in(it, user["user_email"], OTHER_PASSWORD))[0] == 401
    assert (await log_in(it, user["user_email"], PASSWORD))[0] == 200


async def test_another_users_id_is_refused_and_the_link_stays_open(it: Installation) -> None:
    user, link = await invited(it)
    other = await new_user(it, user_email=an_email())
    credential = await open_link(it, link)
    for wrong in (other["user_id"], user["user_id"].upper(), str(uuid.uuid4())):
        assert refusal(await claim(it, link, wrong, PASSWORD, credential)) == UNKNOWN
    assert (await log_in(it, other["user_email"], PASSWORD))[0] == 401
    assert (await claim(it, link, user["user_id"], PASSWORD, credential))[0] == 200


async def test_any_other_credential_is_refused_and_the_link_stays_open(it: Installation) -> None:
    user, link = await invited(it)
    other, other_link = await invited(it)
    person = await it.invite()
    key = (await it.ok("POST", "/user/new", {}))["key"]
    outer = (await opening(it, link))[1]["token"]
    own_second = await open_link(it, await invite(it, user["user_id"]))
    others = await open_link(it, other_link)
    for wrong in (outer, own_second, others, person.session, person.jwt, key, MASTER_KEY, "a.b.c", "x"):
        assert refusal(await claim(it, link, user["user_id"], PASSWORD, wrong)) == UNKNOWN
    assert refusal(await claim(it, link, other["user_id"], PASSWORD, others)) == UNKNOWN
    assert (await claim(it, link, user["user_id"], PASSWORD, claims_of(outer)["key"]))[0] == 200


async def test_without_a_credential_nothing_is_claimed(it: Installation) -> None:
    user, link = await invited(it)
    credential = await open_link(it, link)
    assert refusal(await claim(it, link, user["user_id"], PASSWORD, None)) == (401, "credentials_missing", None)
    for headers in ({"Authorization": "Bearer "}, {"x-api-key": credential}, {"Cookie": f"token={credential}"}):
        body = {"invitation_link": link, "user_id": user["user_id"], "password": PASSWORD}
        outcome = await it.call("POST", "/onboarding/claim_token", body, key=None, headers=headers)
        assert refusal(outcome) == (401, "credentials_missing", None)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  ", ""])
async def test_the_scheme_may_be_in_any_case_or_left_out(it: Installation, scheme: str) -> None:
    user, link = await invited(it)
    headers = {"Authorization": f"{scheme}{await open_link(it, link)}"}
    body = {"invitation_link": link, "user_id": user["user_id"], "password": PASSWORD}
    await it.ok("POST", "/onboarding/claim_token", body, key=None, headers=headers)


WEAK = {
    "too short": "fourteen chars",
    "too long": "é" * 513,
    "huge": "\u0300\u0327" * 80_000,
    "the e-mail": "{email}",
    "the e-mail in capitals": "{EMAIL}",
    "its first part": "{local}",
}


@pytest.mark.parametrize("weak", WEAK)
async def test_a_password_against_the_policy_is_refused_and_the_link_stays_open(it: Installation, weak: str) -> None:
    user, link = await invited(it)
    email = user["user_email"]
    password = WEAK[weak].replace("{email}", email).replace("{EMAIL}", email.upper())
    password = password.replace("{local}", email.partition("@")[0])
    credential = await open_link(it, link)
    status, answer = await claim(it, link, user["user_id"], password, credential)
    assert refusal((status, answer)) == (400, "password_policy", "password")
    assert answer["error"]["type"] == "validation_error"
    assert password not in json.dumps(answer)
    assert await statuses(it, user["user_id"]) == ["open"]
    assert (await claim(it, link, user["user_id"], PASSWORD, credential))[0] == 200


async def test_the_setting_says_how_long_a_password_must_be_and_common_ones_are_refused(it: Installation) -> None:
    user, link = await invited(it)
    async with replica_with(it, {"general_settings": {"password_policy_min_length": 8}}) as lenient:
        credential = await open_link(lenient, link)
        for common in ("password", "PASSWORD1", "qwertyuiop"):
            outcome = await claim(lenient, link, user["user_id"], common, credential)
            assert refusal(outcome) == (400, "password_policy", "password")
        assert (await claim(lenient, link, user["user_id"], "8 chars!", credential))[0] == 200
    assert (await log_in(it, user["user_email"], "8 chars!"))[0] == 200


async def test_a_refused_password_leaves_the_old_one_and_the_sessions_alone(it: Installation) -> None:
    person = await it.invite()
    link = await invite(it, person.user_id)
    assert (await claim(it, link, person.user_id, "too short", await open_link(it, link)))[0] == 400
    await it.ok("GET", "/user/info", key=person.session)
    assert (await log_in(it, person.email, PASSWORD))[0] == 200


@pytest.mark.parametrize(
    ("change", "reason", "param"),
    [
        ({"password": None}, "wrong_type", "password"),
        ({"password": 5}, "wrong_type", "password"),
        ({"password": "a\x00" * 10}, "out_of_range", "password"),
        ({"user_id": ""}, "out_of_range", "user_id"),
        ({"invitation_link": 7}, "wrong_type", "invitation_link"),
        ({"invite_link": "a"}, "field_unknown", "invite_link"),
        ({"username": "a"}, "field_unknown", "username"),
    ],
    ids=str,
)
async def test_a_bad_field_is_refused_by_name_and_the_link_stays_open(
    it: Installation, change: dict[str, Any], reason: str, param: str
) -> None:
    user, link = await invited(it)
    body = {"invitation_link": link, "user_id": user["user_id"], "password": PASSWORD} | change
    outcome = await it.call("POST", "/onboarding/claim_token", body, key=await open_link(it, link))
    assert refusal(outcome) == (400, reason, param)
    assert await statuses(it, user["user_id"]) == ["open"]


@pytest.mark.parametrize("name", ["invitation_link", "user_id", "password"])
async def test_a_missing_field_is_refused_by_name(it: Installation, name: str) -> None:
    user, link = await invited(it)
    body = {"invitation_link": link, "user_id": user["user_id"], "password": PASSWORD}
    del body[name]
    outcome = await it.call("POST", "/onboarding/claim_token", body, key=await open_link(it, link))
    assert refusal(outcome) == (400, "field_missing", name)


async def test_of_fifty_claims_at_once_one_wins_and_its_password_holds(it: Installation) -> None:
    user, link = await invited(it)
    credential = await open_link(it, link)
    passwords = [f"{PASSWORD} {number}" for number in range(50)]
    outcomes = await asyncio.gather(*(claim(it, link, user["user_id"], each, credential) for each in passwords))
    assert reasons(list(outcomes)) == ["invitation_used"] * 49 + ["ok"]
    winner = next(number for number, (status, _) in enumerate(outcomes) if status == 200)
    assert (await log_in(it, user["user_email"], passwords[winner]))[0] == 200
    for loser in (passwords[winner - 1], passwords[(winner + 1) % 50]):
        assert (await log_in(it, user["user_email"], loser))[0] == 401
    await it.running("identity").fence({"invitations"})
    assert await types_of(it, stream_of(user["user_id"])) == ["UserCreated", "PasswordSet"]
    recorded = [*await log_of(it, "invitations"), *await log_of(it)]
    told = Counter(each.type for each in recorded if each.data.get("user_id") == user["user_id"])
    assert (told["InvitationAccepted"], told["SessionStarted"]) == (1, 2), "the claim's session, and the log-in's"


async def test_different_people_claim_at_once(it: Installation) -> None:
    people = await asyncio.gather(*(it.invite() for _ in range(10)))
    assert len({(await it.ok("GET", "/user/info", key=person.session))["user_id"] for person in people}) == 10


async def test_a_claim_closes_the_users_other_open_invitations(it: Installation) -> None:
    user, link = await invited(it)
    others = [await invite(it, user["user_id"]) for _ in range(2)]
    credentials_of_others = [await open_link(it, other) for other in others]
    await claim(it, link, user["user_id"], PASSWORD, await open_link(it, link))
    assert await statuses(it, user["user_id"]) == ["accepted", "revoked", "revoked"]
    for other, credential in zip(others, credentials_of_others, strict=True):
        assert refusal(await opening(it, other)) == UNKNOWN
        assert refusal(await claim(it, other, user["user_id"], PASSWORD, credential)) == UNKNOWN


async def test_of_two_invitations_claimed_at_once_one_wins(it: Installation) -> None:
    user, first = await invited(it)
    second = await invite(it, user["user_id"])
    outcomes = await asyncio.gather(
        claim(it, first, user["user_id"], PASSWORD, await open_link(it, first)),
        claim(it, second, user["user_id"], OTHER_PASSWORD, await open_link(it, second)),
    )
    assert reasons(list(outcomes)) == ["invitation_unknown", "ok"]
    won = [outcome[0] == 200 for outcome in outcomes]
    held = [(await log_in(it, user["user_email"], each))[0] == 200 for each in (PASSWORD, OTHER_PASSWORD)]
    assert held == won


async def test_for_a_user_with_a_password_a_claim_is_the_reset(it: Installation, other_worker: str) -> None:
    """All their sessions end at once, and the old password with them."""
    person = await it.invite()
    second = await session_of(it, person.email, PASSWORD)
    ways = [(url, key) for url in (it.url, other_worker) for key in (person.session, person.jwt, second)]
    for url, key in ways:
        await it.ok("GET", "/v1/models", key=key, url=url)
    link = await invite(it, person.user_id)
    status, answer = await claim(it, link, person.user_id, OTHER_PASSWORD, await open_link(it, link))
    assert status == 200
    for url, key in ways:
        assert refusal(await it.call("GET", "/v1/models", key=key, url=url)) == (401, "key_unknown", "key")
    await it.ok("GET", "/v1/models", key=answer["token"], url=other_worker)
    assert (await log_in(it, person.email, PASSWORD))[0] == 401
    assert (await log_in(it, person.email, OTHER_PASSWORD))[0] == 200


async def test_a_reset_leaves_keys_alone(it: Installation) -> None:
    person = await it.invite()
    key = (await it.ok("POST", "/key/generate", {}, key=person.session))["key"]
    link = await invite(it, person.user_id)
    await claim(it, link, person.user_id, OTHER_PASSWORD, await open_link(it, link))
    await it.ok("GET", "/v1/models", key=key)


# Cut short


async def pending(it: Installation, user_id: str, password: str) -> str:
    """The claim id of a password that is kept until its invitation is accepted."""
    identity, claim_id = it.running("identity"), str(uuid.uuid4())
    password_hash = await identity.own.hash(password)
    await identity.run(credentials.keep_pending, claim_id, user_id, password_hash)
    return claim_id


async def accept(it: Installation, user_id: str, link: str, claim_id: str) -> int:
    """The position of the accept; whoever claimed hears no more of it."""
    question = AcceptInvitation(id_hash=hash_of_link(link), user_id=user_id, claim_id=claim_id)
    return int((await it.running("identity").wire.ask("invitations", question, AcceptedInvitation)).position)


async def finish(it: Installation, user_id: str, claim_id: str, position: int) -> handlers.StartedSession:
    """What the one who claimed does with the answer."""
    visitor = handlers.Visitor(None, None)
    session: handlers.StartedSession = await it.running("identity").run(
        handlers.claim, claim_id=claim_id, user_id=user_id, accepted_position=position, visitor=visitor
    )
    return session


async def test_a_claim_that_was_accepted_but_never_answered_is_finished(it: Installation) -> None:
    person = await it.invite()
    link = await invite(it, person.user_id)
    await accept(it, person.user_id, link, await pending(it, person.user_id, OTHER_PASSWORD))
    await it.running("identity").fence({"invitations"})
    assert (await log_in(it, person.email, OTHER_PASSWORD))[0] == 200
    assert (await log_in(it, person.email, PASSWORD))[0] == 401
    assert (await it.call("GET", "/user/info", key=person.session))[0] == 401
    assert refusal(await opening(it, link)) == USED


async def test_a_claim_that_was_not_accepted_is_undone_and_the_link_still_works(it: Installation) -> None:
    user, link = await invited(it)
    await pending(it, user["user_id"], OTHER_PASSWORD)
    assert (await log_in(it, user["user_email"], OTHER_PASSWORD))[0] == 401
    assert (await claim(it, link, user["user_id"], PASSWORD, await open_link(it, link)))[0] == 200
    assert (await log_in(it, user["user_email"], OTHER_PASSWORD))[0] == 401
    assert (await log_in(it, user["user_email"], PASSWORD))[0] == 200


async def test_a_claim_finished_by_the_event_before_its_own_answer_starts_one_session_that_lives(
    it: Installation,
) -> None:
    user, link = await invited(it)
    claim_id = await pending(it, user["user_id"], PASSWORD)
    position = await accept(it, user["user_id"], link, claim_id)
    await it.running("identity").fence({"invitations"})
    session = await finish(it, user["user_id"], claim_id, position)
    await it.ok("GET", "/user/info", key=session.secret)
    assert await types_of(it, stream_of(user["user_id"])) == ["UserCreated", "PasswordSet"]
    assert await types_of(it, session_stream(session.session_id)) == ["SessionStarted"]


async def test_a_claim_so_late_that_another_was_accepted_since_starts_no_session(it: Installation) -> None:
    """The later one ended all that came before it."""
    user, link = await invited(it)
    late = await pending(it, user["user_id"], PASSWORD)
    position = await accept(it, user["user_id"], link, late)
    second = await invite(it, user["user_id"])
    assert (await claim(it, second, user["user_id"], OTHER_PASSWORD, await open_link(it, second)))[0] == 200
    with pytest.raises(handlers.ClaimOvertaken) as refused:
        await finish(it, user["user_id"], late, position)
    assert refused.value.code == "invitation_used"
    assert (await log_in(it, user["user_email"], PASSWORD))[0] == 401
    assert (await log_in(it, user["user_email"], OTHER_PASSWORD))[0] == 200


async def activate(it: Installation, claim_id: str, user_id: str, position: int) -> None:
    await it.running("identity").run(handlers.activate_password, claim_id, user_id, position)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["in order", "the later one first"])
async def test_of_two_accepts_the_later_one_holds_whichever_is_heard_of_first(
    it: Installation, order: tuple[int, int]
) -> None:
    user = await new_user(it, user_email=an_email())
    passwords = {1: PASSWORD, 2: OTHER_PASSWORD}
    claims = {position: await pending(it, user["user_id"], password) for position, password in passwords.items()}
    for position in order:
        await activate(it, claims[position], user["user_id"], 1_000_000 + position)
    assert (await log_in(it, user["user_email"], OTHER_PASSWORD))[0] == 200
    assert (await log_in(it, user["user_email"], PASSWORD))[0] == 401
    told = [r.data["claim_id"] for r in await log_of(it, stream=stream_of(user["user_id"])) if r.type == "PasswordSet"]
    assert told == [claims[position] for position in order if position == 2 or order == (1, 2)]


async def test_an_accept_delivered_twice_changes_nothing_the_second_time(it: Installation) -> None:
    user = await new_user(it, user_email=an_email())
    claim_id = await pending(it, user["user_id"], PASSWORD)

    async def deliver(tx: Transaction) -> None:
        await subscriptions.on_invitation_accepted(tx, accepted(user["user_id"], claim_id, tx.now))

    await it.running("identity").run(deliver)
    session = await session_of(it, user["user_email"], PASSWORD)
    await it.running("identity").run(deliver)
    await it.ok("GET", "/user/info", key=session)
    assert await types_of(it, stream_of(user["user_id"])) == ["UserCreated", "PasswordSet"]


async def test_an_accept_of_a_claim_that_nobody_knows_is_passed_over(it: Installation) -> None:
    """Such as one of another process, which did it all; or one that was forgotten."""
    person = await it.invite()

    async def deliver(tx: Transaction) -> None:
        await subscriptions.on_invitation_accepted(tx, accepted(person.user_id, str(uuid.uuid4()), tx.now))
        await subscriptions.on_invitation_accepted(tx, accepted("nobody", str(uuid.uuid4()), tx.now))

    await it.running("identity").run(deliver)
    await it.ok("GET", "/user/info", key=person.session)
    assert (await log_in(it, person.email, PASSWORD))[0] == 200


async def test_an_accept_for_a_user_deleted_meanwhile_is_passed_over(it: Installation) -> None:
    user = await new_user(it, user_email=an_email())
    claim_id = await pending(it, user["user_id"], PASSWORD)
    await it.ok("POST", "/user/delete", {"user_ids": [user["user_id"]]})
    await activate(it, claim_id, user["user_id"], 1)
    assert await types_of(it, stream_of(user["user_id"])) == ["UserCreated", "UserDeleted"]


def accepted(user_id: str, claim_id: str, at: datetime) -> Recorded:
    """What the stream of invitations would deliver."""
    event = InvitationAccepted(ref="ref", user_id=user_id, claim_id=claim_id, accepted_at=at)
    return Recorded(
        id=str(uuid.uuid4()),
        service="invitations",
        stream="invitation-ref",
        version=2,
        position=1_000_000,
        recorded_at=at + timedelta(seconds=1),
        actor="system",
        correlation_id="c",
        causation_id=None,
        event=event,
    )
