"""``POST /user/update``: what is absent stays, null clears, and a change of role bites at once (§3.2, §5.3)."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.identity.domain.user import DEFAULT_USER_ID, stream_of
from tests.support.identity import (
    USER_FIELDS,
    an_email,
    log_in,
    new_user,
    reasons,
    refusal,
    types_of,
    user_info,
)
from tests.support.installation import PASSWORD, Installation, claims_of, second_worker

EVERYTHING: dict[str, Any] = {
    "user_role": "internal_user",
    "user_alias": "Ada",
    "models": ["mock-fast"],
    "max_budget": 5,
    "budget_duration": "30d",
    "metadata": {"floor": 3},
}
CHANGED: dict[str, Any] = {
    "user_role": "proxy_admin_viewer",
    "user_alias": "Ada L.",
    "models": ["mock-priced", "mock-fast"],
    "max_budget": 0.00005,
    "budget_duration": "1d",
    "metadata": {"floor": 4},
}
CLEARED = {"user_alias": None, "user_email": None, "max_budget": None, "budget_duration": None}


@pytest.fixture(scope="module")
async def other_worker(it: Installation) -> AsyncIterator[str]:
    async with second_worker(it) as url:
        yield url


async def update(it: Installation, **body: Any) -> dict[str, Any]:
    answer = await it.ok("POST", "/user/update", body)
    assert set(answer) == {"user_id", "data"}
    user: dict[str, Any] = answer["data"]
    assert answer["user_id"] == user["user_id"]
    assert set(user) == USER_FIELDS
    return user


def but_for(user: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in user.items() if name in USER_FIELDS and name not in names}


@pytest.mark.parametrize("name", CHANGED)
async def test_an_admin_changes_one_field_and_nothing_else_changes(it: Installation, name: str) -> None:
    before = await new_user(it, user_email=an_email(), **EVERYTHING)
    after = await update(it, user_id=before["user_id"], **{name: CHANGED[name]})
    assert after[name] == CHANGED[name]
    assert but_for(after, name, "updated_at", "budget_reset_at") == but_for(
        before, name, "updated_at", "budget_reset_at"
    )
    assert after["updated_at"] > before["updated_at"]
    assert after == await user_info(it, before["user_id"])


@pytest.mark.parametrize("name", CLEARED)
async def test_null_clears_and_nothing_else_changes(it: Installation, name: str) -> None:
    before = await new_user(it, user_email=an_email(), **EVERYTHING)
    after = await update(it, user_id=before["user_id"], **{name: None})
    assert after[name] is None
    assert but_for(after, name, "updated_at", "budget_reset_at") == but_for(
        before, name, "updated_at", "budget_reset_at"
    )
    assert after == await user_info(it, before["user_id"])


@pytest.mark.parametrize(("name", "empty"), [("models", []), ("metadata", {})])
async def test_a_list_and_an_object_are_cleared_to_empty_ones(it: Installation, name: str, empty: Any) -> None:
    for cleared in (None, empty):
        user = await new_user(it, **EVERYTHING)
        assert (await update(it, user_id=user["user_id"], **{name: cleared}))[name] == empty


async def test_an_empty_text_clears_money(it: Installation) -> None:
    user = await new_user(it, **EVERYTHING)
    assert (await update(it, user_id=user["user_id"], max_budget=""))["max_budget"] is None


async def test_a_null_role_changes_nothing(it: Installation) -> None:
    user = await new_user(it, **EVERYTHING)
    assert (await update(it, user_id=user["user_id"], user_role=None))["user_role"] == "internal_user"


async def test_a_new_duration_counts_its_windows_from_now_and_the_same_one_goes_on(it: Installation) -> None:
    user = await new_user(it, max_budget=1, budget_duration="5d")
    assert (await update(it, user_id=user["user_id"], budget_duration="5d")) == but_for(user)
    changed = await update(it, user_id=user["user_id"], budget_duration="6d")
    assert changed["budget_reset_at"] > user["budget_reset_at"]


async def test_changing_a_user_to_what_they_are_changes_nothing(it: Installation) -> None:
    before = await new_user(it, user_email=an_email(), **EVERYTHING)
    same = EVERYTHING | {"user_email": before["user_email"].upper(), "user_id": before["user_id"]}
    assert await update(it, **same) == but_for(before)
    assert await update(it, user_id=before["user_id"]) == but_for(before)
    assert await types_of(it, stream_of(before["user_id"])) == ["UserCreated"]


async def test_a_user_is_found_by_email_in_any_case(it: Installation) -> None:
    user = await new_user(it, user_email=an_email())
    after = await update(it, user_email=user["user_email"].upper(), user_alias="Ada")
    assert (after["user_id"], after["user_alias"], after["user_email"]) == (user["user_id"], "Ada", user["user_email"])


async def test_an_email_beside_an_id_changes_it_and_the_old_one_is_free(it: Installation) -> None:
    user, new = await new_user(it, user_email=an_email()), an_email()
    old = user["user_email"]
    assert (await update(it, user_id=user["user_id"], user_email=new.upper()))["user_email"] == new
    assert (await new_user(it, user_email=old))["user_email"] == old
    assert refusal(await it.call("POST", "/user/new", {"user_email": new})) == (409, "duplicate_email", "user_email")


async def test_one_logs_in_by_the_new_email_and_no_more_by_the_old(it: Installation) -> None:
    person, new = await it.invite(), an_email()
    await update(it, user_id=person.user_id, user_email=new)
    assert (await log_in(it, new, PASSWORD))[0] == 200
    assert refusal(await log_in(it, person.email, PASSWORD)) == (401, "credentials_wrong", "invalid_credentials")


async def test_an_email_that_another_has_is_refused_and_nothing_changes(it: Installation) -> None:
    user, other = await new_user(it, user_email=an_email()), await new_user(it, user_email=an_email())
    body = {"user_id": user["user_id"], "user_email": other["user_email"].upper(), "user_alias": "Ada"}
    assert refusal(await it.call("POST", "/user/update", body)) == (409, "duplicate_email", "user_email")
    assert await user_info(it, user["user_id"]) == but_for(user)


async def test_of_twenty_at_once_who_take_one_email_one_wins(it: Installation) -> None:
    users, email = await asyncio.gather(*(new_user(it, user_email=an_email()) for _ in range(20))), an_email()
    bodies = [{"user_id": user["user_id"], "user_email": email} for user in users]
    outcomes = await asyncio.gather(*(it.call("POST", "/user/update", body) for body in bodies))
    assert reasons(list(outcomes)) == ["duplicate_email"] * 19 + ["ok"]
    emails = [(await user_info(it, user["user_id"]))["user_email"] for user in users]
    assert emails.count(email) == 1
    assert sum(after == user["user_email"] for after, user in zip(emails, users, strict=True)) == 19


async def test_two_who_swap_their_emails_at_once_end_in_no_deadlock(it: Installation) -> None:
    one, other = await new_user(it, user_email=an_email()), await new_user(it, user_email=an_email())
    outcomes = await asyncio.gather(
        it.call("POST", "/user/update", {"user_id": one["user_id"], "user_email": other["user_email"]}),
        it.call("POST", "/user/update", {"user_id": other["user_id"], "user_email": one["user_email"]}),
    )
    assert set(reasons(list(outcomes))) <= {"duplicate_email", "ok"}
    emails = {(await user_info(it, user["user_id"]))["user_email"] for user in (one, other)}
    assert len(emails) == 2


async def test_changes_of_different_fields_at_once_are_all_kept(it: Installation) -> None:
    user_id = (await new_user(it, **EVERYTHING))["user_id"]
    await asyncio.gather(*(update(it, user_id=user_id, **{name: CHANGED[name]}) for name in ("models", "user_alias")))
    after = await user_info(it, user_id)
    assert (after["models"], after["user_alias"]) == (CHANGED["models"], CHANGED["user_alias"])


async def test_many_changes_of_one_user_at_once_lose_nothing(it: Installation) -> None:
    """Each keeps what it does not name as the last one left it; and an address that was given up is free."""
    user, emails = await new_user(it, user_email=an_email()), [an_email() for _ in range(8)]
    changes: list[dict[str, Any]] = [{"user_email": email} for email in emails]
    changes += [{"max_budget": 7}, {"models": ["mock-fast"]}, {"metadata": {"floor": 3}}, {"user_alias": "Ada"}]
    outcomes = await asyncio.gather(
        *(it.call("POST", "/user/update", {"user_id": user["user_id"], **change}) for change in changes)
    )
    assert {status for status, _ in outcomes} <= {200, 409}
    done = {name for change, (status, _) in zip(changes, outcomes, strict=True) if status == 200 for name in change}
    after = await user_info(it, user["user_id"])
    kept = {"max_budget": 7, "models": ["mock-fast"], "metadata": {"floor": 3}, "user_alias": "Ada"}
    assert {name: after[name] for name in kept if name in done} == {name: kept[name] for name in kept if name in done}
    for email in {user["user_email"], *emails} - {after["user_email"]}:
        await new_user(it, user_email=email)


async def test_who_is_deleted_while_they_are_changed_is_changed_before_or_not_at_all(it: Installation) -> None:
    """And whatever address they had last is free."""
    users, emails = [await new_user(it) for _ in range(8)], [an_email() for _ in range(32)]
    changes = [{"user_id": users[n % 8]["user_id"], "user_email": email} for n, email in enumerate(emails)]
    outcomes = await asyncio.gather(
        *(it.call("POST", "/user/update", change) for change in changes),
        *(it.call("POST", "/user/delete", {"user_ids": [user["user_id"]]}) for user in users),
    )
    assert set(reasons(list(outcomes))) <= {"ok", "not_found", "version_conflict"}
    await asyncio.gather(*(it.call("POST", "/user/delete", {"user_ids": [user["user_id"]]}) for user in users))
    for email in emails:
        await new_user(it, user_email=email)


# Refused

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"password": "correct horse battery staple"}, "field_unsupported", "password"),
    ({"spend": 0}, "field_read_only", "spend"),
    ({"spend": None}, "field_read_only", "spend"),
    ({"teams": ["a"]}, "field_unknown", "teams"),
    ({"auto_create_key": True}, "field_unknown", "auto_create_key"),
    ({"send_invite_email": True}, "field_unknown", "send_invite_email"),
    ({"user_email": "nobody"}, "out_of_range", "user_email"),
    ({"user_role": "emperor"}, "out_of_range", "user_role"),
    ({"user_alias": ""}, "out_of_range", "user_alias"),
    ({"models": ["mock-fats"]}, "model_unknown", "models"),
    ({"max_budget": -1}, "out_of_range", "max_budget"),
    ({"max_budget": 1_000_000_001}, "out_of_range", "max_budget"),
    ({"budget_duration": "soon"}, "duration_malformed", "budget_duration"),
    ({"budget_enforcement": "soft"}, "field_unsupported", "budget_enforcement"),
    ({"metadata": "x"}, "wrong_type", "metadata"),
    ({"tpm_limit": 5}, "field_unsupported", "tpm_limit"),
    ({"soft_budget": 5}, "field_unsupported", "soft_budget"),
    ({"sso_user_id": "okta|7"}, "field_unsupported", "sso_user_id"),
    ({"organization_id": "acme"}, "field_unsupported", "organization_id"),
    ({"alias": "Ada"}, "field_unknown", "alias"),
]


@pytest.mark.parametrize(("said", "reason", "param"), REFUSED, ids=[json.dumps(case[0]) for case in REFUSED])
async def test_a_field_that_is_not_as_it_should_be_is_refused_and_nothing_changes(
    it: Installation, said: dict[str, Any], reason: str, param: str
) -> None:
    before = await new_user(it, **EVERYTHING)
    body = {"user_id": before["user_id"], "metadata": {"floor": 5}, **said}
    assert refusal(await it.call("POST", "/user/update", body)) == (400, reason, param)
    assert await user_info(it, before["user_id"]) == but_for(before)


@pytest.mark.parametrize("body", [{}, {"user_alias": "Ada"}, {"user_id": None, "user_email": None}], ids=str)
async def test_one_who_is_not_named_is_not_changed(it: Installation, body: dict[str, Any]) -> None:
    assert refusal(await it.call("POST", "/user/update", body)) == (400, "field_missing", "user_id")


@pytest.mark.parametrize("name", ["user_id", "user_email"])
async def test_one_who_is_not_there_is_not_found(it: Installation, name: str) -> None:
    outcome = await it.call("POST", "/user/update", {name: an_email(), "user_alias": "Ada"})
    assert refusal(outcome) == (404, "not_found", name)


async def test_a_deleted_user_is_not_found(it: Installation) -> None:
    user = await new_user(it, user_email=an_email())
    await it.ok("POST", "/user/delete", {"user_ids": [user["user_id"]]})
    for name in ("user_id", "user_email"):
        assert (await it.call("POST", "/user/update", {name: user[name], "user_alias": "Ada"}))[0] == 404


@pytest.mark.parametrize("role", ["proxy_admin_viewer", "internal_user", "internal_user_viewer"])
async def test_the_master_keys_user_keeps_its_role(it: Installation, role: str) -> None:
    body = {"user_id": DEFAULT_USER_ID, "user_role": role, "user_alias": "nobody"}
    assert refusal(await it.call("POST", "/user/update", body)) == (400, "out_of_range", "user_role")
    user = await user_info(it, DEFAULT_USER_ID)
    assert (user["user_role"], user["user_alias"]) == ("proxy_admin", None)


async def test_the_master_keys_user_is_changed_in_all_else(it: Installation) -> None:
    user = await update(it, user_id=DEFAULT_USER_ID, user_role="proxy_admin", user_alias="The admin")
    assert user["user_alias"] == "The admin"
    await update(it, user_id=DEFAULT_USER_ID, user_alias=None)


# By whom


async def test_an_internal_user_changes_their_own_alias(it: Installation) -> None:
    person = await it.invite()
    for body in ({"user_id": person.user_id}, {"user_email": person.email.upper()}):
        alias = f"Ada {uuid.uuid4()}"
        answer = await it.ok("POST", "/user/update", body | {"user_alias": alias}, key=person.session)
        assert answer["data"]["user_alias"] == alias
    answer = await it.ok("POST", "/user/update", {"user_id": person.user_id, "user_alias": None}, key=person.session)
    assert answer["data"]["user_alias"] is None


@pytest.mark.parametrize("name", sorted(CHANGED.keys() - {"user_alias"}))
async def test_an_internal_user_changes_nothing_else_of_their_own(it: Installation, name: str) -> None:
    person = await it.invite()
    before = await user_info(it, person.user_id)
    for value in (CHANGED[name], None):
        body = {"user_id": person.user_id, "user_alias": "Ada", name: value}
        outcome = await it.call("POST", "/user/update", body, key=person.session)
        assert refusal(outcome) == (403, "role_not_allowed", name)
    assert await user_info(it, person.user_id) == before


async def test_an_internal_user_does_not_change_their_own_email(it: Installation) -> None:
    person = await it.invite()
    body = {"user_id": person.user_id, "user_email": an_email()}
    outcome = await it.call("POST", "/user/update", body, key=person.session)
    assert refusal(outcome) == (403, "role_not_allowed", "user_email")


async def test_an_internal_user_is_not_told_whether_another_exists(it: Installation) -> None:
    person, other = await it.invite(), await new_user(it, user_email=an_email())
    named = [{"user_id": other["user_id"]}, {"user_email": other["user_email"]}]
    unknown = [{"user_id": str(uuid.uuid4())}, {"user_email": an_email()}]
    outcomes = [
        await it.call("POST", "/user/update", who | {"user_alias": "Ada"}, key=person.session)
        for who in (*named, *unknown)
    ]
    assert refusal(outcomes[0]) == (403, "not_yours", None)
    assert outcomes == outcomes[:1] * 4


@pytest.mark.parametrize("role", ["proxy_admin_viewer", "internal_user_viewer"])
async def test_a_viewer_changes_nothing_not_even_their_own_alias(it: Installation, role: str) -> None:
    person = await it.invite(user_role=role)
    body = {"user_id": person.user_id, "user_alias": "Ada"}
    assert refusal(await it.call("POST", "/user/update", body, key=person.session)) == (403, "role_not_allowed", None)


# At once


async def test_a_change_of_role_bites_at_once_on_a_running_session_and_key_at_every_worker(
    it: Installation, other_worker: str
) -> None:
    person = await it.invite(user_role="proxy_admin")
    key = (await it.ok("POST", "/key/generate", {}, key=person.session))["key"]
    ways = [(url, credential) for url in (it.url, other_worker) for credential in (person.session, person.jwt, key)]

    async def asking() -> set[int]:
        return {(await it.call("GET", "/health", key=credential, url=url))[0] for url, credential in ways}

    for role, status in (("internal_user", 403), ("proxy_admin_viewer", 200), ("internal_user_viewer", 403)):
        await update(it, user_id=person.user_id, user_role=role)
        assert await asking() == {status}
    me = await it.ok("GET", "/keystead/v1/me", key=person.session)
    assert me["user_role"] == "internal_user_viewer"


async def test_a_change_of_role_does_not_end_a_session(it: Installation) -> None:
    person = await it.invite(user_role="proxy_admin")
    await update(it, user_id=person.user_id, user_role="internal_user")
    assert (await it.ok("GET", "/keystead/v1/me", key=person.session))["user_role"] == "internal_user"


async def test_an_admin_who_takes_their_own_role_away_has_lost_it(it: Installation) -> None:
    person = await it.invite(user_role="proxy_admin")
    body = {"user_id": person.user_id, "user_role": "internal_user"}
    await it.ok("POST", "/user/update", body, key=person.session)
    assert refusal(await it.call("POST", "/user/update", body, key=person.session)) == (
        403,
        "role_not_allowed",
        "user_role",
    )


async def test_narrowed_models_are_not_called_any_more_at_any_worker(it: Installation, other_worker: str) -> None:
    user = await it.ok("POST", "/user/new", {"user_role": "internal_user", "models": ["mock-fast"]})
    call = {"model": "mock-fast", "messages": [{"role": "user", "content": "Say hello."}]}
    for url in (it.url, other_worker):
        await it.ok("POST", "/v1/chat/completions", call, key=user["key"], url=url)
    await update(it, user_id=user["user_id"], models=["mock-priced"])
    for url in (it.url, other_worker):
        outcome = await it.call("POST", "/v1/chat/completions", call, key=user["key"], url=url)
        assert refusal(outcome) == (403, "model_not_allowed", "model")


async def test_the_claims_of_a_jwt_only_inform(it: Installation) -> None:
    """Rights come from the session, and so from the role that its user has now (§5.6)."""
    person = await it.invite(user_role="internal_user")
    await update(it, user_id=person.user_id, user_role="proxy_admin")
    assert claims_of(person.jwt)["user_role"] == "internal_user"
    await it.ok("GET", "/user/list", key=person.jwt)
