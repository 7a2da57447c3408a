"""POST /key/generate (contract §3.6, §2.2 note 6, §6)."""

import asyncio
import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest

from shared.secret import parse_key
from tests.support.keys import NOON, USD
from tests.support.keys_world import ADMIN, Caller, World

# §3.1: what must be present, and what is constant.
PRESENT = set(
    "token key_name key_alias key_id user_id team_id models spend total_spend max_budget soft_budget budget_duration"
    " budget_reset_at budget_limits budget_id litellm_budget_table budget_enforcement tpm_limit rpm_limit"
    " max_parallel_requests metadata tags expires blocked key_type status created_at created_by updated_at updated_by"
    " last_active rotation_count last_rotation_at grace_until".split()
)
CONSTANT: dict[str, Any] = {
    "aliases": {},
    "config": {},
    "permissions": {},
    "allowed_cache_controls": [],
    "allowed_routes": [],
    "model_spend": {},
    "model_max_budget": {},
    "organization_id": None,
    "soft_budget_cooldown": False,
    "auto_rotate": False,
    "rotation_interval": None,
}


async def generate(world: World, who: Caller, **body: Any) -> Any:
    return await world.ok(who, "POST", "/key/generate", body)


async def refused(world: World, who: Caller, **body: Any) -> tuple[int, str, str | None]:
    return await world.refused(who, "POST", "/key/generate", body)


async def test_an_answer_has_the_key_and_all_that_the_contract_says_of_it(world: World) -> None:
    ada = await world.new_user(max_budget_nano_usd=10 * USD)
    body = {
        "key_alias": "ada-laptop",
        "duration": "30d",
        "max_budget": 1.0,
        "budget_duration": "1d",
        "models": ["fast"],
        "metadata": {"purpose": "a test", "share": 0.5},
        "tags": ["ci"],
    }
    made = await generate(world, ada, **body)
    assert made.keys() == PRESENT | CONSTANT.keys() | {"key", "token_id", "duration"}
    assert CONSTANT.items() <= made.items()
    assert re.fullmatch(r"sk-ks1_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}", made["key"])
    assert parse_key(made["key"]) == made["key_id"]
    assert made["token"] == made["token_id"] == hashlib.sha256(made["key"].encode()).hexdigest()
    assert made["key_name"] == "sk-..." + made["key"][-4:]
    assert made | body == made
    assert made["expires"] == "2026-12-24T12:47:15.000000Z"
    assert made["budget_reset_at"] == "2026-11-25T00:00:00.000000Z"
    assert made["user_id"] == made["created_by"] == made["updated_by"] == ada.user_id
    assert made["created_at"] == made["updated_at"] == "2026-11-24T12:47:15.000000Z"
    assert (made["status"], made["blocked"], made["key_type"]) == ("active", False, "default")
    assert (made["spend"], made["total_spend"], made["last_active"]) == (0, 0, None)
    assert (made["budget_enforcement"], made["team_id"], made["rotation_count"]) == ("strict", None, 0)


async def test_a_key_is_in_no_event_and_no_other_answer(world: World) -> None:
    ada = await world.new_user()
    key = (await generate(world, ada))["key"]
    rows = await world.keys.run(lambda tx: tx.connection.exec_driver_sql("select data::text from events"))
    assert key not in str(rows.all())
    assert key not in str(await world.ok(ada, "GET", f"/key/info?key={key}"))
    assert key not in str(await world.ok(ada, "GET", "/key/list?return_full_object=true"))


async def test_nothing_at_all_makes_a_key_without_limits(world: World) -> None:
    made = await generate(world, await world.new_user())
    assert (made["models"], made["max_budget"], made["expires"], made["duration"]) == ([], None, None, None)
    assert (made["metadata"], made["tags"], made["budget_reset_at"]) == ({}, [], None)


async def test_a_user_can_generate_the_moment_that_they_exist(world: World) -> None:
    """No wait between the two: keys catches up with identity before it refuses."""
    for _ in range(10):
        await generate(world, await world.new_user())


async def test_a_user_who_was_deleted_gets_no_key(world: World) -> None:
    ada = await world.new_user()
    await world.delete_user(ada)
    await world.heard()
    assert await refused(world, ada) == (404, "not_found", "user_id")


async def test_a_widened_list_of_models_holds_at_once(world: World) -> None:
    ada = await world.new_user(models=("fast",))
    assert await refused(world, ada, models=["priced"]) == (403, "model_not_allowed", "models")
    await world.update_user(ada, models=("fast", "priced"))
    await generate(world, ada, models=["priced"])


async def test_models_are_known_and_their_owner_may_call_them(world: World) -> None:
    ada = await world.new_user(models=("fast",))
    assert await refused(world, ada, models=["fast", "no-such-model"]) == (400, "model_unknown", "models")
    assert await refused(world, ADMIN, models=["priced"], user_id=ada.user_id) == (403, "model_not_allowed", "models")
    _, answer = await world.call(ada, "POST", "/key/generate", {"models": ["priced"]})
    assert answer["error"]["type"] == "user_model_access_denied"


async def test_a_key_of_another_is_an_admins_to_make(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    assert await refused(world, bob, user_id=ada.user_id) == (403, "not_yours", None)
    assert await refused(world, bob, user_id="nobody") == (403, "not_yours", None)
    assert await refused(world, ADMIN, user_id="nobody") == (404, "not_found", "user_id")
    made = await generate(world, ADMIN, user_id=ada.user_id)
    assert (made["user_id"], made["created_by"]) == (ada.user_id, ADMIN.user_id)


async def test_every_team_is_an_unknown_one(world: World) -> None:
    ada = await world.new_user()
    assert await refused(world, ada, team_id="t1") == (403, "not_yours", "team_id")
    assert await refused(world, ADMIN, team_id="t1", user_id=ada.user_id) == (404, "not_found", "team_id")
    await generate(world, ada, team_id=None)


@pytest.mark.parametrize("body", [{"key": "sk-" + "a" * 17}, {"blocked": True}, {"budget_enforcement": "strict"}])
async def test_what_only_an_admin_may_set_is_refused_to_users(world: World, body: dict[str, Any]) -> None:
    ada = await world.new_user()
    assert await refused(world, ada, **body) == (403, "role_not_allowed", next(iter(body)))


async def test_a_users_budget_bounds_what_they_give_their_keys_and_no_admin(world: World) -> None:
    ada = await world.new_user(max_budget_nano_usd=USD)
    await generate(world, ada, max_budget=1)
    assert await refused(world, ada, max_budget="1.000000001") == (400, "over_own_limit", "max_budget")
    await generate(world, ADMIN, user_id=ada.user_id, max_budget=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tpm_limit", 10),
        ("rpm_limit", 0),
        ("max_parallel_requests", 1),
        ("budget_id", "b"),
        ("budget_limits", [{"budget_duration": "1d", "max_budget": 1}]),
        ("soft_budget", 1),
        ("send_invite_email", True),
        ("budget_enforcement", "soft"),
        ("guardrails", ["g"]),
    ],
)
async def test_what_nothing_enforces_yet_is_refused_once_it_says_something(
    world: World, field: str, value: Any
) -> None:
    assert await refused(world, await world.new_user(), **{field: value}) == (400, "field_unsupported", field)
    await generate(world, await world.new_user(), **{field: None})


@pytest.mark.parametrize(
    ("body", "reason", "param"),
    [
        ({"max_budgett": 1}, "field_unknown", "max_budgett"),
        ({"spend": 1}, "field_read_only", "spend"),
        ({"max_budget": -1}, "out_of_range", "max_budget"),
        ({"max_budget": True}, "wrong_type", "max_budget"),
        ({"max_budget": "1,5"}, "wrong_type", "max_budget"),
        ({"duration": "30x"}, "duration_malformed", "duration"),
        ({"duration": "11y"}, "duration_malformed", "duration"),
        ({"budget_duration": "-1"}, "duration_malformed", "budget_duration"),
        ({"key_alias": ""}, "out_of_range", "key_alias"),
        ({"key_alias": "a\nb"}, "out_of_range", "key_alias"),
        ({"models": "fast"}, "wrong_type", "models"),
        ({"models": ["m"] * 501}, "out_of_range", "models"),
        ({"tags": [1]}, "wrong_type", "tags.0"),
        ({"key_type": "root"}, "out_of_range", "key_type"),
        ({"metadata": {"a": "b" * 17_000}}, "out_of_range", "metadata"),
        ({"blocked": "yes"}, "wrong_type", "blocked"),
    ],
)
async def test_bad_values_are_refused_and_make_nothing(
    world: World, body: dict[str, Any], reason: str, param: str
) -> None:
    ada = await world.new_user()
    assert await refused(world, ada, **body) == (400, reason, param)
    assert (await world.ok(ada, "GET", "/key/list"))["total_count"] == 0


@pytest.mark.parametrize("body", [{"spend": 0}, {"spend": 0.0}, {"spend": None}, {"max_budget": ""}, {"models": None}])
async def test_values_that_say_nothing_are_as_if_they_were_not_there(world: World, body: dict[str, Any]) -> None:
    made = await generate(world, await world.new_user(), **body)
    assert (made["spend"], made["max_budget"], made["models"]) == (0, None, [])


async def test_an_admin_may_choose_a_key(world: World) -> None:
    key = "sk-Chosen_by-the-admin1"
    made = await generate(world, ADMIN, user_id=(await world.new_user()).user_id, key=key)
    assert (made["key"], made["key_name"]) == (key, "sk-...min1")
    assert made["token"] == hashlib.sha256(key.encode()).hexdigest()
    assert re.fullmatch("[0-9A-Za-z]{12}", made["key_id"])
    assert await refused(world, ADMIN, user_id=made["user_id"], key=key) == (400, "duplicate_key", "key")
    await world.ok(ADMIN, "POST", "/key/delete", {"keys": [key]})
    assert await refused(world, ADMIN, user_id=made["user_id"], key=key) == (400, "duplicate_key", "key")


@pytest.mark.parametrize(
    "key", ["sk-" + "a" * 16, "pk-" + "a" * 20, "sk-" + "ä" * 20, "sk-ks1_" + "a" * 20, "sk-kss1_" + "a" * 43]
)
async def test_a_chosen_key_that_could_not_be_told_apart_is_refused(world: World, key: str) -> None:
    assert await refused(world, ADMIN, key=key) == (400, "out_of_range", "key")


async def test_of_many_who_want_one_alias_at_once_one_gets_it(world: World) -> None:
    users = [await world.new_user() for _ in range(8)]
    answers = await asyncio.gather(
        *(world.call(user, "POST", "/key/generate", {"key_alias": "wanted"}) for user in users)
    )
    assert sorted(status for status, _ in answers) == [200] + [400] * 7
    refusals = [answer["error"] for status, answer in answers if status == 400]
    assert {(e["reason"], e["type"], e["param"]) for e in refusals} == {
        ("duplicate_key_alias", "bad_request_error", "key_alias")
    }


async def test_an_alias_is_free_again_when_its_key_is_deleted_or_renamed(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, key_alias="mine")
    await world.ok(ada, "POST", "/key/update", {"key": made["key"], "key_alias": "still mine"})
    again = await generate(world, ada, key_alias="mine")
    await world.ok(ada, "POST", "/key/delete", {"keys": [again["token"]]})
    await generate(world, ada, key_alias="mine")
    assert await refused(world, ada, key_alias="still mine") == (400, "duplicate_key_alias", "key_alias")


async def test_a_key_makes_no_stronger_key(world: World) -> None:
    ada = await world.new_user()
    weak = await generate(world, ada, max_budget=1, budget_duration="7d", duration="7d", models=["fast"])
    with_key = Caller(ada.user_id, key_id=weak["key_id"])
    made = await generate(world, with_key)
    same = ("max_budget", "budget_duration", "expires", "models")
    assert [made[name] for name in same] == [weak[name] for name in same]
    assert await refused(world, with_key, max_budget=2) == (400, "over_own_limit", "max_budget")
    assert await refused(world, with_key, duration="-1") == (400, "over_own_limit", "duration")
    assert await refused(world, with_key, models=["priced"]) == (400, "over_own_limit", "models")
    world.clock.now = NOON + timedelta(days=3)
    assert (await generate(world, with_key))["expires"] == weak["expires"]


async def test_viewers_and_keys_that_only_read_or_call_generate_nothing(world: World) -> None:
    ada = await world.new_user()
    viewer = Caller(ada.user_id, "internal_user_viewer")
    assert await refused(world, viewer) == (403, "role_not_allowed", None)
    for key_type in ("llm_api", "read_only"):
        made = await generate(world, ada, key_type=key_type)
        with_key = Caller(ada.user_id, key_id=made["key_id"], key_type=key_type)
        assert await refused(world, with_key) == (403, "key_type_not_allowed", None)
