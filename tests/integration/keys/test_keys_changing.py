"""POST /key/update, /key/block, /key/unblock, /key/delete (contract §3.6, §2.2 notes 6 and 7, §5.7)."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.support.keys import NOON, USD
from tests.support.keys_world import ADMIN, VIEWER, Caller, World

DAY = timedelta(days=1)


async def generate(world: World, who: Caller, **body: Any) -> Any:
    return await world.ok(who, "POST", "/key/generate", body)


async def update(world: World, who: Caller, **body: Any) -> Any:
    return await world.ok(who, "POST", "/key/update", body)


async def update_refused(world: World, who: Caller, **body: Any) -> tuple[int, str, str | None]:
    return await world.refused(who, "POST", "/key/update", body)


async def delete(world: World, who: Caller, *keys: str, **body: Any) -> Any:
    return await world.ok(who, "POST", "/key/delete", {"keys": list(keys), **body})


async def delete_refused(world: World, who: Caller, *keys: str, **body: Any) -> tuple[int, str, str | None]:
    return await world.refused(who, "POST", "/key/delete", {"keys": list(keys), **body})


async def test_an_update_changes_what_is_sent_clears_what_is_null_and_leaves_the_rest(world: World) -> None:
    ada = await world.new_user()
    made = await generate(
        world, ada, key_alias="laptop", duration="1d", tags=["ci"], models=["fast"], metadata={"a": 1}
    )
    world.clock.now = NOON + timedelta(hours=1)
    changed = await update(world, ada, key=made["key"], duration="2d", tags=None, metadata={"b": 2})
    differing = {name for name in changed.keys() & made.keys() if changed[name] != made[name]}
    assert differing == {"key", "tags", "metadata", "expires", "updated_at"}
    assert changed["key"] == made["token"]
    assert (changed["tags"], changed["metadata"]) == ([], {"b": 2})
    assert changed["expires"] == "2026-11-26T13:47:15.000000Z"
    assert changed["updated_at"] == "2026-11-24T13:47:15.000000Z"
    assert (await update(world, ada, key=made["key"], duration=None))["expires"] is None


async def test_an_alias_alone_finds_a_key(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, key_alias="by alias")
    changed = await update(world, ada, key_alias="by alias", tags=["found"])
    assert (changed["key"], changed["key_alias"], changed["tags"]) == (made["token"], "by alias", ["found"])


async def test_an_update_needs_to_say_which_key(world: World) -> None:
    assert await update_refused(world, ADMIN, tags=["x"]) == (400, "field_missing", "key")


async def test_spend_can_not_be_set(world: World) -> None:
    made = await generate(world, await world.new_user())
    assert await update_refused(world, ADMIN, key=made["token"], spend=0) == (400, "field_read_only", "spend")


async def test_two_keys_can_not_be_renamed_to_one_alias(world: World) -> None:
    ada = await world.new_user()
    made = [await generate(world, ada) for _ in range(4)]
    answers = await asyncio.gather(
        *(world.call(ada, "POST", "/key/update", {"key": key["key"], "key_alias": "the one"}) for key in made)
    )
    assert sorted(status for status, _ in answers) == [200, 400, 400, 400]


async def test_changes_of_one_key_at_once_all_happen(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    changes: list[dict[str, Any]] = [{"tags": ["a"]}, {"metadata": {"b": 1}}, {"models": ["fast"]}, {"key_alias": "d"}]
    await asyncio.gather(*(update(world, ada, key=made["key"], **change) for change in changes))
    info = (await world.ok(ada, "GET", f"/key/info?key={made['key_id']}"))["info"]
    assert (info["tags"], info["metadata"], info["models"], info["key_alias"]) == (["a"], {"b": 1}, ["fast"], "d")


@pytest.mark.parametrize(
    "body",
    [
        {"max_budget": 1},
        {"max_budget": None},
        {"budget_duration": "1d"},
        {"user_id": "bob"},
        {"team_id": None},
        {"blocked": False},
        {"budget_enforcement": "strict"},
    ],
)
async def test_a_user_loosens_no_limit_of_their_key(world: World, body: dict[str, Any]) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    refused = await update_refused(world, ada, key=made["key"], **body)
    assert refused == (403, "role_not_allowed", next(iter(body)))


async def test_a_user_changes_only_keys_that_they_generated(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    for_ada = await generate(world, ADMIN, user_id=ada.user_id)
    bobs = await generate(world, bob)
    assert await update_refused(world, ada, key=for_ada["token"], tags=["x"]) == (403, "not_yours", "key")
    assert await update_refused(world, ada, key=bobs["token"], tags=["x"]) == (403, "not_yours", None)
    assert await update_refused(world, ada, key="nobody's", tags=["x"]) == (403, "not_yours", None)
    assert await update_refused(world, ADMIN, key="nobody's", tags=["x"]) == (404, "not_found", "key")
    assert await update_refused(world, VIEWER, key=bobs["token"], tags=["x"]) == (403, "role_not_allowed", None)


async def test_an_admin_sets_budgets_and_blocks_in_one_update(world: World) -> None:
    made = await generate(world, await world.new_user())
    changed = await update(world, ADMIN, key=made["key_id"], max_budget="2.5", budget_duration="7d", blocked=True)
    assert (changed["max_budget"], changed["budget_duration"], changed["status"]) == (2.5, "7d", "revoked")
    assert changed["budget_reset_at"] == "2026-11-30T00:00:00.000000Z"
    assert await world.log_of(made["key_id"]) == ["KeyGenerated", "KeyUpdated", "KeyBlocked"]


async def test_an_admin_gives_a_key_to_another_user(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user(models=("fast",))
    made = await generate(world, ada, models=["priced"])
    assert await update_refused(world, ADMIN, key=made["key"], user_id="nobody") == (404, "not_found", "user_id")
    refused = await update_refused(world, ADMIN, key=made["key"], user_id=bob.user_id)
    assert refused == (403, "model_not_allowed", "models")
    changed = await update(world, ADMIN, key=made["key"], user_id=bob.user_id, models=["fast"])
    assert changed["user_id"] == bob.user_id
    await world.delete_user(ada)
    await world.heard()
    assert (await world.ok(bob, "GET", f"/key/info?key={made['key_id']}"))["info"]["status"] == "active"
    assert await update_refused(world, ADMIN, key=made["key"], user_id=None) == (400, "out_of_range", "user_id")


async def test_a_key_changed_with_a_key_gets_no_more_than_that_one_has(world: World) -> None:
    ada = await world.new_user()
    weak = await generate(world, ada, duration="7d", models=["fast"])
    strong = await generate(world, ada)
    with_key = Caller(ada.user_id, key_id=weak["key_id"])
    assert await update_refused(world, with_key, key=weak["key"], duration="8d") == (400, "over_own_limit", "duration")
    assert await update_refused(world, with_key, key=strong["key"], models=[]) == (400, "over_own_limit", "models")
    await update(world, with_key, key=weak["key"], tags=["renamed"])


async def test_when_a_change_is_answered_every_worker_goes_by_it(world: World) -> None:
    """All that changes what workers admit waits at the barrier; a repeat decides nothing and waits all the same."""
    made = await generate(world, await world.new_user())
    assert world.barriers == []
    await update(world, ADMIN, key=made["key"], max_budget=1)
    for path in ("block", "block", "unblock", "unblock"):
        await world.ok(ADMIN, "POST", f"/key/{path}", {"key": made["key"]})
    await delete(world, ADMIN, made["key"])
    assert await delete_refused(world, ADMIN, made["key"]) == (404, "not_found", "keys")
    one, two, three, four, five, six, seven = world.barriers
    assert one < two == three < four == five < six == seven
    assert await world.log_of(made["key_id"]) == [
        "KeyGenerated",
        "KeyUpdated",
        "KeyBlocked",
        "KeyUnblocked",
        "KeyDeleted",
    ]


async def test_a_blocked_key_is_revoked_until_it_is_unblocked(world: World) -> None:
    made = await generate(world, await world.new_user())
    blocked = await world.ok(ADMIN, "POST", "/key/block", {"key": made["key"]})
    assert (blocked["blocked"], blocked["status"], blocked["updated_by"]) == (True, "revoked", ADMIN.user_id)
    assert "key" not in blocked
    unblocked = await world.ok(ADMIN, "POST", "/key/unblock", {"key": made["token"]})
    assert (unblocked["blocked"], unblocked["status"]) == (False, "active")


async def test_only_admins_block(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    assert await world.refused(ada, "POST", "/key/block", {"key": made["key"]}) == (403, "role_not_allowed", None)
    assert await world.refused(ADMIN, "POST", "/key/block", {"key": "none"}) == (404, "not_found", "key")
    assert await world.refused(ADMIN, "POST", "/key/block", {}) == (400, "field_missing", "key")


async def test_keys_are_deleted_by_hash_id_themselves_or_alias_and_answered_without_the_key(world: World) -> None:
    ada = await world.new_user()
    one, two, three = [await generate(world, ada) for _ in range(3)]
    four = await generate(world, ada, key_alias="number four")
    answer = await delete(world, ada, one["key"], two["token"], three["key_id"], key_aliases=["number four"])
    assert answer == {"deleted_keys": [one["token"], two["token"], three["token"], "number four"]}
    for key in (one, two, three, four):
        assert await world.log_of(key["key_id"]) == ["KeyGenerated", "KeyDeleted"]


async def test_a_key_named_twice_is_deleted_once(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, key_alias="twice")
    answer = await delete(world, ada, made["key"], made["token"], key_aliases=["twice"])
    assert answer == {"deleted_keys": [made["token"], made["token"], "twice"]}
    assert await world.log_of(made["key_id"]) == ["KeyGenerated", "KeyDeleted"]


async def test_of_several_keys_all_are_deleted_or_none(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    mine, foreign = await generate(world, ada), await generate(world, bob)
    assert await delete_refused(world, ada, mine["key"], foreign["key"]) == (403, "not_yours", None)
    assert await delete_refused(world, ada, mine["key"], "nobody's") == (403, "not_yours", None)
    assert await delete_refused(world, ADMIN, mine["key"], "nobody's") == (404, "not_found", "keys")
    assert await delete_refused(world, ada, mine["key"], key_aliases=["none"]) == (403, "not_yours", None)
    assert await world.log_of(mine["key_id"]) == ["KeyGenerated"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [({}, "field_missing"), ({"keys": []}, "out_of_range"), ({"keys": ["k"] * 101}, "out_of_range")],
)
async def test_one_to_a_hundred_keys_are_deleted_at_once(world: World, body: dict[str, Any], reason: str) -> None:
    status, told, _ = await world.refused(ADMIN, "POST", "/key/delete", body)
    assert (status, told) == (400, reason)


async def test_deletes_of_the_same_keys_at_once_delete_each_once(world: World) -> None:
    ada = await world.new_user()
    made = [(await generate(world, ada))["token"] for _ in range(6)]
    orders = [made, made[::-1], made[3:] + made[:3]]
    answers = await asyncio.gather(*(world.call(ada, "POST", "/key/delete", {"keys": order}) for order in orders))
    assert sorted(status for status, _ in answers) == [200, 404, 404]
    assert (await world.ok(ada, "GET", "/key/list?status=deleted"))["total_count"] == 6


async def test_a_deleted_key_can_be_neither_changed_nor_blocked(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    await delete(world, ada, made["key"])
    assert await update_refused(world, ada, key=made["key"], tags=["x"]) == (404, "not_found", "key")
    assert await world.refused(ADMIN, "POST", "/key/block", {"key": made["key"]}) == (404, "not_found", "key")


async def test_an_alias_means_the_key_that_has_it_now(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    old = await generate(world, ada, key_alias="handed on")
    await delete(world, ada, old["key"])
    assert await delete_refused(world, ada, key_aliases=["handed on"]) == (404, "not_found", "key_aliases")
    await generate(world, bob, key_alias="handed on")
    assert await delete_refused(world, ada, key_aliases=["handed on"]) == (403, "not_yours", None)
    assert await delete(world, bob, key_aliases=["handed on"]) == {"deleted_keys": ["handed on"]}


async def test_a_users_budget_is_not_asked_when_an_admin_changes_a_key(world: World) -> None:
    ada = await world.new_user(max_budget_nano_usd=USD)
    made = await generate(world, ada, max_budget=1)
    assert (await update(world, ADMIN, key=made["key"], max_budget=5))["max_budget"] == 5
