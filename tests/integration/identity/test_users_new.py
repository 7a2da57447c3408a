"""``POST /user/new``: what it takes, fills in, answers and refuses (§3.2, §5.9)."""

import asyncio
import hashlib
import io
import json
import re
import uuid
from typing import Any

import pytest

from services.identity.domain.user import stream_of
from tests.support.identity import (
    USER_FIELDS,
    an_email,
    log_of,
    new_user,
    reasons,
    refusal,
    types_of,
    user_info,
)
from tests.support.installation import MASTER_KEY, Installation

KEY_FIELDS = {"key", "key_name", "token", "token_id", "expires", "key_id"}
DEEP: Any = "bottom"
for _ in range(9):
    DEEP = {"d": DEEP}


async def test_the_answer_has_every_field_of_the_contract_and_no_other(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {})
    assert set(user) == USER_FIELDS | KEY_FIELDS


async def test_with_nothing_said_it_is_a_viewer_without_limits_and_has_a_key(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {})
    assert str(uuid.UUID(user["user_id"])) == user["user_id"]
    assert user["key"].startswith("sk-ks1_")
    expected: dict[str, Any] = {
        "user_email": None,
        "user_alias": None,
        "user_role": "internal_user_viewer",
        "teams": [],
        "models": [],
        "spend": 0,
        "total_spend": 0,
        "max_budget": None,
        "budget_duration": None,
        "budget_reset_at": None,
        "budget_limits": None,
        "budget_enforcement": "strict",
        "max_parallel_requests": None,
        "tpm_limit": None,
        "rpm_limit": None,
        "metadata": {},
        "sso_user_id": None,
        "team_id": None,
        "organization_id": None,
        "allowed_cache_controls": [],
        "model_spend": {},
        "model_max_budget": {},
        "organization_memberships": [],
    }
    assert {name: user[name] for name in expected} == expected


async def test_what_is_said_is_kept_and_answered_as_the_contract_writes_it(it: Installation) -> None:
    email, user_id = an_email(), f"Ada, the 1st: {uuid.uuid4()}"
    said = {
        "user_id": user_id,
        "user_email": f"  {email.upper()} ",
        "user_alias": "Ada Lovelace",
        "user_role": "internal_user",
        "models": ["mock-fast", "all-proxy-models", "all-team-models", "no-default-models"],
        "max_budget": "0.000000001",
        "budget_duration": "monthly",
        "budget_enforcement": "strict",
        "metadata": {"floor": 3, "share": 0.25, "tags": ["a", None], "says": "usd:5"},
    }
    user = await new_user(it, **said)
    told = {name: user[name] for name in said}
    assert told == said | {"user_email": email, "max_budget": 1e-9}
    assert {name: value for name, value in user.items() if name in USER_FIELDS} == await user_info(it, user_id)


async def test_money_is_answered_as_exactly_the_number_that_was_sent(it: Installation) -> None:
    user_id = str(uuid.uuid4())
    body = json.dumps({"user_id": user_id, "auto_create_key": False, "max_budget": 0.00005})
    headers = {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"}
    async with it.http.post(f"{it.url}/user/new", data=body, headers=headers) as answer:
        assert '"max_budget":0.00005,' in await answer.text()


async def test_a_budget_duration_says_when_the_budget_is_reset(it: Installation) -> None:
    user = await new_user(it, max_budget=1, budget_duration="1mo")
    created, reset = user["created_at"], user["budget_reset_at"]
    assert reset.endswith("-01T00:00:00.000000Z")
    assert created < reset


async def test_the_default_of_a_field_that_is_not_implemented_is_accepted(it: Installation) -> None:
    nothing: dict[str, Any] = {"organization_id": None, "permissions": {}, "guardrails": [], "teams": [], "spend": 0}
    assert (await new_user(it, **nothing, send_invite_email=False, tpm_limit=None))["teams"] == []


EMAIL_254 = "a" * 241 + "@example.test"
REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"user_email": ""}, "out_of_range", "user_email"),
    ({"user_email": "a@"}, "out_of_range", "user_email"),
    ({"user_email": "ada"}, "out_of_range", "user_email"),
    ({"user_email": "a@b@c"}, "out_of_range", "user_email"),
    ({"user_email": "a da@example.test"}, "out_of_range", "user_email"),
    ({"user_email": f"a{EMAIL_254}"}, "out_of_range", "user_email"),
    ({"user_email": "a\x00@example.test"}, "out_of_range", "user_email"),
    ({"user_email": 5}, "wrong_type", "user_email"),
    ({"user_role": "emperor"}, "out_of_range", "user_role"),
    ({"user_role": ["proxy_admin"]}, "wrong_type", "user_role"),
    ({"user_id": ""}, "out_of_range", "user_id"),
    ({"user_id": " ada"}, "out_of_range", "user_id"),
    ({"user_id": "ada\n"}, "out_of_range", "user_id"),
    ({"user_id": "a" * 256}, "out_of_range", "user_id"),
    ({"user_id": "a\ud800"}, "json_malformed", "user_id"),
    ({"user_id": 7}, "wrong_type", "user_id"),
    ({"user_alias": ""}, "out_of_range", "user_alias"),
    ({"user_alias": "a\x07b"}, "out_of_range", "user_alias"),
    ({"user_alias": "a" * 256}, "out_of_range", "user_alias"),
    ({"user_alias": True}, "wrong_type", "user_alias"),
    ({"models": "mock-fast"}, "wrong_type", "models"),
    ({"models": ["mock-fast", 5]}, "wrong_type", "models.1"),
    ({"models": ["mock-fast"] * 501}, "out_of_range", "models"),
    ({"models": ["mock-fast", "mock-fats"]}, "model_unknown", "models"),
    ({"max_budget": -0.01}, "out_of_range", "max_budget"),
    ({"max_budget": 1_000_000_001}, "out_of_range", "max_budget"),
    ({"max_budget": "1e400"}, "out_of_range", "max_budget"),
    ({"max_budget": "a lot"}, "wrong_type", "max_budget"),
    ({"max_budget": True}, "wrong_type", "max_budget"),
    ({"budget_duration": "0d"}, "duration_malformed", "budget_duration"),
    ({"budget_duration": "-1"}, "duration_malformed", "budget_duration"),
    ({"budget_duration": "11y"}, "duration_malformed", "budget_duration"),
    ({"budget_duration": 30}, "wrong_type", "budget_duration"),
    ({"budget_enforcement": "soft"}, "field_unsupported", "budget_enforcement"),
    ({"budget_enforcement": "lax"}, "out_of_range", "budget_enforcement"),
    ({"metadata": ["a"]}, "wrong_type", "metadata"),
    ({"metadata": DEEP}, "out_of_range", "metadata"),
    ({"metadata": {"a": "x" * 16 * 1024}}, "out_of_range", "metadata"),
    ({"teams": ["nobody's"]}, "not_found", "teams"),
    ({"teams": [{"team_id": "nobody's", "user_role": "user"}]}, "not_found", "teams"),
    ({"teams": "nobody's"}, "wrong_type", "teams"),
    ({"auto_create_key": "yes"}, "wrong_type", "auto_create_key"),
    ({"spend": 0.5}, "field_read_only", "spend"),
    ({"password": "correct horse battery staple"}, "field_unsupported", "password"),
    ({"send_invite_email": "yes"}, "wrong_type", "send_invite_email"),
    ({"send_invite_email": True}, "user_has_no_email", "user_email"),
    ({"soft_budget": 1}, "field_unsupported", "soft_budget"),
    ({"tpm_limit": 1000}, "field_unsupported", "tpm_limit"),
    ({"rpm_limit": 10}, "field_unsupported", "rpm_limit"),
    ({"max_parallel_requests": 2}, "field_unsupported", "max_parallel_requests"),
    ({"budget_limits": [{"budget_duration": "1d", "max_budget": 1}]}, "field_unsupported", "budget_limits"),
    ({"sso_user_id": "okta|7"}, "field_unsupported", "sso_user_id"),
    ({"organization_id": "acme"}, "field_unsupported", "organization_id"),
    ({"permissions": {"get_spend_routes": True}}, "field_unsupported", "permissions"),
    ({"user_mail": "ada@example.test"}, "field_unknown", "user_mail"),
]


@pytest.mark.parametrize(("said", "reason", "param"), REFUSED, ids=[json.dumps(case[0])[:60] for case in REFUSED])
async def test_a_field_that_is_not_as_it_should_be_is_refused_by_name_and_nobody_is_made(
    it: Installation, said: dict[str, Any], reason: str, param: str | None
) -> None:
    user_id = str(uuid.uuid4())
    status = 404 if reason == "not_found" else 400
    assert refusal(await it.call("POST", "/user/new", {"user_id": user_id, **said})) == (status, reason, param)
    assert (await it.call("GET", f"/user/info?user_id={user_id}"))[0] == 404


async def test_an_unknown_field_is_told_the_nearest_known_one(it: Installation) -> None:
    _, answer = await it.call("POST", "/user/new", {"user_mail": "ada@example.test"})
    assert "user_email" in answer["error"]["message"]


async def test_no_refusal_repeats_what_was_sent(it: Installation) -> None:
    for secret in ({"password": "hunter2 hunter2"}, {"user_email": "hunter2"}, {"max_budget": "hunter2"}):
        _, answer = await it.call("POST", "/user/new", secret)
        assert "hunter2" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", "application/json", (400, "json_malformed")),
        (b"[]", "application/json", (400, "json_malformed")),
        (b"{", "application/json", (400, "json_malformed")),
        (b'{"user_id":"a","user_id":"b"}', "application/json", (400, "json_malformed")),
        (b'{"user_alias":"\xff"}', "application/json", (400, "json_malformed")),
        (b'{"max_budget":NaN}', "application/json", (400, "json_malformed")),
        (b'{"max_budget":1e400}', "application/json", (400, "out_of_range")),
        (b"user_id=a", "application/x-www-form-urlencoded", (415, "media_type")),
        (b'{"metadata":{"a":"' + b"x" * 1024 * 1024 + b'"}}', "application/json", (413, "body_too_large")),
    ],
)
async def test_what_is_no_json_object_is_refused(
    it: Installation, body: bytes, content_type: str, expected: tuple[int, str]
) -> None:
    headers = {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": content_type}
    async with it.http.post(f"{it.url}/user/new", data=io.BytesIO(body), headers=headers) as answer:
        assert refusal((answer.status, await answer.json()))[:2] == expected


@pytest.mark.parametrize("role", ["proxy_admin_viewer", "internal_user", "internal_user_viewer"])
async def test_only_an_admin_makes_users(it: Installation, role: str) -> None:
    """Asked before the body is looked at (§1.4)."""
    person = await it.invite(user_role=role)
    for body in ({}, {"nonsense": 1}):
        outcome = await it.call("POST", "/user/new", body, key=person.session)
        assert refusal(outcome) == (403, "role_not_allowed", None)


async def test_without_a_credential_nobody_is_made_whatever_the_body(it: Installation) -> None:
    for body in ({}, {"nonsense": 1}, None):
        status, answer, headers = await it.request("POST", "/user/new", body, key=None)
        assert refusal((status, answer)) == (401, "credentials_missing", None)
        assert headers["WWW-Authenticate"] == "Bearer"


async def test_events_name_who_made_the_user(it: Installation) -> None:
    admin = await it.invite(user_role="proxy_admin")
    user = await it.ok("POST", "/user/new", {}, key=admin.session)
    (created,) = await log_of(it, stream=stream_of(user["user_id"]))
    assert (created.type, created.actor) == ("UserCreated", admin.user_id)


# Taken


@pytest.mark.parametrize("spelled", [str, str.upper, str.title, lambda email: f" {email}\t"])
async def test_an_address_that_somebody_has_is_refused_in_any_spelling(it: Installation, spelled: Any) -> None:
    email, user_id = an_email(), str(uuid.uuid4())
    await new_user(it, user_email=email)
    outcome = await it.call("POST", "/user/new", {"user_id": user_id, "user_email": spelled(email)})
    assert refusal(outcome) == (409, "duplicate_email", "user_email")
    assert (await it.call("GET", f"/user/info?user_id={user_id}"))[0] == 404


async def test_an_id_that_somebody_has_is_refused(it: Installation) -> None:
    user = await new_user(it)
    outcome = await it.call("POST", "/user/new", {"user_id": user["user_id"], "user_email": an_email()})
    assert refusal(outcome) == (409, "duplicate_user_id", "user_id")
    assert await user_info(it, user["user_id"]) == {name: user[name] for name in USER_FIELDS}


async def test_ids_differ_by_case(it: Installation) -> None:
    user_id = f"ada-{uuid.uuid4()}"
    for spelled in (user_id, user_id.upper()):
        assert (await new_user(it, user_id=spelled))["user_id"] == spelled


async def test_of_twenty_at_once_with_one_address_one_wins(it: Installation) -> None:
    email = an_email()
    spellings = [email, email.upper(), email.title()]
    bodies = [{"user_id": str(uuid.uuid4()), "user_email": spellings[number % 3]} for number in range(20)]
    outcomes = await asyncio.gather(*(it.call("POST", "/user/new", body) for body in bodies))
    assert reasons(list(outcomes)) == ["duplicate_email"] * 19 + ["ok"]
    made = [len(await types_of(it, stream_of(body["user_id"]))) for body in bodies]
    assert sorted(made) == [0] * 19 + [1]


async def test_of_twenty_at_once_with_one_id_one_wins_and_has_one_key(it: Installation) -> None:
    user_id = str(uuid.uuid4())
    outcomes = await asyncio.gather(*(it.call("POST", "/user/new", {"user_id": user_id}) for _ in range(20)))
    assert reasons(list(outcomes)) == ["duplicate_user_id"] * 19 + ["ok"]
    assert await types_of(it, stream_of(user_id)) == ["UserCreated"]
    (winner,) = (answer for status, answer in outcomes if status == 200)
    info = await it.ok("GET", f"/user/info?user_id={user_id}")
    assert [key["token"] for key in info["keys"]] == [winner["token"]]


async def test_twenty_users_made_at_once_are_twenty_users(it: Installation) -> None:
    users = await asyncio.gather(*(new_user(it, user_email=an_email()) for _ in range(20)))
    assert len({user["user_id"] for user in users}) == 20


# The first key


async def test_the_first_key_has_the_keys_form_and_is_known_by_its_hash(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {})
    key = user["key"]
    assert re.fullmatch(r"sk-ks1_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}", key)
    assert key.split("_")[1] == user["key_id"]
    assert user["token"] == user["token_id"] == hashlib.sha256(key.encode()).hexdigest()
    assert user["key_name"] == f"sk-...{key[-4:]}"


async def test_the_first_key_works_at_once(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"user_role": "internal_user"})
    me = await it.ok("GET", "/keystead/v1/me", key=user["key"])
    assert (me["user_id"], me["credential"]["kind"]) == (user["user_id"], "key")
    assert me["credential"]["key_id"] == user["key_id"]
    call = {"model": "mock-fast", "messages": [{"role": "user", "content": "Say hello."}]}
    await it.ok("POST", "/v1/chat/completions", call, key=user["key"])


async def test_the_first_key_is_the_users_and_has_no_limits(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"max_budget": 5, "budget_duration": "1d", "models": ["mock-fast"]})
    info = await it.ok("GET", f"/key/info?key={user['token']}")
    key = info["info"]
    assert (key["user_id"], key["key_id"], key["key_type"]) == (user["user_id"], user["key_id"], "default")
    for name in ("max_budget", "budget_duration", "expires", "tpm_limit", "rpm_limit", "max_parallel_requests"):
        assert key[name] is None, name
    assert key["models"] == []


async def test_without_auto_create_key_there_is_none(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"auto_create_key": False})
    assert {name: user[name] for name in KEY_FIELDS} == dict.fromkeys(KEY_FIELDS) | {"key": ""}
    info = await it.ok("GET", f"/user/info?user_id={user['user_id']}")
    assert (info["keys"], info["total_keys"]) == ([], 0)


async def test_the_key_itself_is_in_no_answer_but_the_one_that_made_it(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {})
    for path in (f"/user/info?user_id={user['user_id']}", f"/key/info?key={user['token']}", "/user/list?page_size=100"):
        assert user["key"] not in json.dumps(await it.ok("GET", path))


async def test_an_answer_with_a_key_is_stored_by_nobody(it: Installation) -> None:
    _, _, headers = await it.request("POST", "/user/new", {})
    assert headers["Cache-Control"] == "no-store"
