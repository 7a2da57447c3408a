"""What keys hears, what it answers to others, and what time causes."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.identity.events import FirstKey
from services.keys import jobs
from services.keys.requests import CountedKeys, CountUserKeys, FindKey, FoundKey, ListedKeys, ListUserKeys
from shared.answers import from_wire, json_bytes
from shared.event_store import Transaction, read_log
from shared.events import Recorded, from_cloudevent
from shared.secret import NewKey, draw_key
from tests.support.keys import NOON, USD
from tests.support.keys_world import ADMIN, Caller, World, keys_world

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
async def bounded_module_world() -> AsyncIterator[World]:
    async with keys_world(max_budget=100, budget_duration="30d", duration="90d", rpm_limit=1000) as world:
        yield world


@pytest.fixture
def bounded(bounded_module_world: World) -> World:
    bounded_module_world.clock.now = NOON
    return bounded_module_world


async def generate(world: World, who: Caller, **body: Any) -> Any:
    return await world.ok(who, "POST", "/key/generate", body)


async def with_first_key(world: World) -> tuple[Caller, NewKey]:
    drawn = draw_key()
    first_key = FirstKey(key_id=drawn.key_id, token=drawn.token, key_name=drawn.key_name)
    return await world.new_user(first_key=first_key), drawn


async def identitys_log(world: World) -> list[Recorded]:
    async def read(tx: Transaction) -> list[Recorded]:
        events, _ = await read_log(tx.connection, tx.catalog, 0, 100_000)
        return [from_cloudevent(json_bytes(event), tx.catalog) for event in events]

    return await world.identity.run(read)


async def find(world: World, token: str) -> FoundKey:
    """As the gateway does."""
    return await world.identity.wire.ask("keys", FindKey(token=token), FoundKey)


async def test_a_user_who_comes_with_a_key_has_it(world: World) -> None:
    ada, drawn = await with_first_key(world)
    await world.heard()
    info = (await world.ok(ada, "GET", f"/key/info?key={drawn.key}"))["info"]
    assert (info["user_id"], info["key_id"], info["key_name"]) == (ada.user_id, drawn.key_id, drawn.key_name)
    assert (info["models"], info["max_budget"], info["expires"], info["status"]) == ([], None, None, "active")


async def test_a_first_key_is_filled_by_the_upper_bounds(bounded: World) -> None:
    ada, drawn = await with_first_key(bounded)
    await bounded.heard()
    info = (await bounded.ok(ada, "GET", f"/key/info?key={drawn.key_id}"))["info"]
    assert (info["max_budget"], info["budget_duration"], info["rpm_limit"], info["tpm_limit"]) == (
        100,
        "30d",
        1000,
        None,
    )
    assert info["expires"] == "2027-02-22T12:47:15.000000Z"


async def test_upper_bounds_hold_on_generate_and_update(bounded: World) -> None:
    ada = await bounded.new_user()
    status, answer = await bounded.call(ada, "POST", "/key/generate", {"max_budget": 100_000})
    assert (status, answer["error"]) == (
        400,
        {
            "message": "max_budget is over the upper bound: 100000 > 100",
            "type": "invalid_request_error",
            "param": "max_budget",
            "code": "400",
            "reason": "over_upper_bound",
        },
    )
    made = await generate(bounded, ada, max_budget=None)
    assert (made["max_budget"], made["duration"], made["rpm_limit"]) == (100, "90d", 1000)
    for change in ({"max_budget": None}, {"duration": "-1"}, {"duration": None}, {"budget_duration": "60d"}):
        refused = await bounded.refused(ADMIN, "POST", "/key/update", {"key": made["key"], **change})
        assert refused == (400, "over_upper_bound", next(iter(change)))


async def test_a_deleted_users_keys_are_deleted_by_whoever_deleted_them(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    keys = [await generate(world, ada, key_alias=f"of ada {number}") for number in range(3)]
    others = await generate(world, bob)
    await world.delete_user(ada)
    await world.heard()
    for key in keys:
        assert await world.log_of(key["key_id"]) == ["KeyGenerated", "KeyDeleted"]
    assert (await world.ok(bob, "GET", f"/key/info?key={others['key_id']}"))["info"]["status"] == "active"
    await generate(world, bob, key_alias="of ada 0")


async def test_the_same_event_delivered_twice_changes_nothing(world: World) -> None:
    ada, drawn = await with_first_key(world)
    await world.delete_user(ada)
    await world.heard()
    before = await world.log_of(drawn.key_id)
    events = await identitys_log(world)
    assert await world.keys.readers["identity"].apply(events)
    assert await world.log_of(drawn.key_id) == before == ["KeyGenerated", "KeyDeleted"]


async def test_handlers_of_events_are_idempotent_without_their_position_too(world: World) -> None:
    ada, drawn = await with_first_key(world)
    await world.delete_user(ada)
    await world.heard()
    events = [event for event in await identitys_log(world) if event.stream == f"user-{ada.user_id}"]
    handlers = {subscription.source: subscription.handlers for subscription in world.keys.service.subscriptions}
    for recorded in events:
        await world.keys.run(handlers["identity"][type(recorded.event)], recorded, fenced=True)
    assert await world.log_of(drawn.key_id) == ["KeyGenerated", "KeyDeleted"]


async def test_a_key_generated_while_its_user_is_deleted_dies_or_is_never_made(world: World) -> None:
    for _ in range(10):
        ada = await world.new_user()
        await world.heard()
        calls = [world.call(ada, "POST", "/key/generate", {}) for _ in range(5)]
        answers, _ = await asyncio.gather(asyncio.gather(*calls), world.delete_user(ada))
        await world.heard()
        made = [answer["key_id"] for status, answer in answers if status == 200]
        for key_id in made:
            assert await world.log_of(key_id) == ["KeyGenerated", "KeyDeleted"]
        assert {status for status, _ in answers} <= {200, 404}


async def test_a_key_is_found_by_its_hash_as_the_gateway_needs_it(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, key_alias="found", models=["fast"], tags=["ci"], max_budget=1, duration="1d")
    found = await find(world, made["token"])
    assert found == FoundKey(
        position=found.position,
        exists=True,
        key_id=made["key_id"],
        token=made["token"],
        key_alias="found",
        user_id=ada.user_id,
        models=("fast",),
        tags=("ci",),
        max_budget_nano_usd=USD,
        expires_at=NOON + DAY,
    )
    await world.ok(ADMIN, "POST", "/key/block", {"key": made["token"]})
    blocked = await find(world, made["token"])
    assert blocked.blocked
    assert blocked.position > found.position


async def test_an_unknown_or_deleted_key_does_not_exist(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    await world.ok(ada, "POST", "/key/delete", {"keys": [made["token"]]})
    for token in (made["token"], made["key_id"], "0" * 64, ""):
        found = await find(world, token)
        assert found == FoundKey(position=found.position, exists=False)


async def test_a_users_keys_are_told_as_they_are_shown(world: World) -> None:
    ada = await world.new_user()
    old = await generate(world, ada, max_budget=0.25)
    world.clock.now = NOON + timedelta(minutes=1)
    new = await generate(world, ada)
    gone = await generate(world, ada)
    await world.ok(ada, "POST", "/key/delete", {"keys": [gone["token"]]})
    answer = await world.identity.wire.ask("keys", ListUserKeys(user_id=ada.user_id), ListedKeys)
    assert [key["token"] for key in answer.keys] == [new["token"], old["token"]]
    assert answer.total == 2
    shown = await world.ok(ada, "GET", "/key/list?return_full_object=true")
    assert json.loads(json_bytes(from_wire(answer.keys))) == shown["keys"]
    one = await world.identity.wire.ask("keys", ListUserKeys(user_id=ada.user_id, limit=1), ListedKeys)
    assert (len(one.keys), one.total) == (1, 2)


async def test_keys_are_counted_without_the_deleted_ones(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    gone = await generate(world, ada)
    await generate(world, ada)
    await world.ok(ada, "POST", "/key/delete", {"keys": [gone["token"]]})
    question = CountUserKeys(user_ids=(ada.user_id, bob.user_id))
    counted = await world.identity.wire.ask("keys", question, CountedKeys)
    assert counted.counts == {ada.user_id: 1}


async def test_that_a_key_expired_is_told_once(world: World) -> None:
    ada = await world.new_user()
    made, other = await generate(world, ada, duration="1d"), await generate(world, ada, duration="3d")
    world.clock.now = NOON + DAY
    for _ in range(2):
        await jobs.expire_keys(world.keys)
    assert await world.log_of(made["key_id"]) == ["KeyGenerated", "KeyExpired"]
    assert await world.log_of(other["key_id"]) == ["KeyGenerated"]


async def test_a_new_duration_revives_an_expired_key_which_expires_again(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, duration="1d")
    world.clock.now = NOON + DAY
    await jobs.expire_keys(world.keys)
    revived = await world.ok(ada, "POST", "/key/update", {"key": made["key"], "duration": "1d"})
    assert revived["status"] == "active"
    world.clock.now = NOON + 2 * DAY
    await jobs.expire_keys(world.keys)
    assert await world.log_of(made["key_id"]) == ["KeyGenerated", "KeyExpired", "KeyUpdated", "KeyExpired"]
