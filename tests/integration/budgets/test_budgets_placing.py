"""Holds on the real database: all scopes or none, however many ask at once; the same question, the same answer."""

import uuid
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from services.budgets.requests import LeaveWorker, Passed, PlacedHold
from shared.errors import Refused
from tests.support.budgets import NOON
from tests.support.budgets_world import World, gathered


def codes(answers: list[object]) -> list[str]:
    return sorted(
        "placed" if isinstance(a, PlacedHold) else a.code for a in answers if isinstance(a, PlacedHold | Refused)
    )


async def test_a_hold_is_set_aside_in_every_scope(world: World) -> None:
    key = await world.new_key(100, user_id=await world.new_user())
    placed = await world.place(key, 60)
    assert (placed.held_nano_usd, placed.admitted_at) == (60, NOON)
    assert [(await world.window(scope)).leased for scope in key.scopes[:2]] == [60, 60]
    assert (await world.window("proxy")).leased >= 60


async def test_fifty_calls_at_once_never_hold_more_than_the_limit_and_all_that_fit_are_admitted(world: World) -> None:
    key = await world.new_key(2000)
    answers = await gathered(*(world.place(key, 100) for _ in range(50)))
    assert codes(answers) == ["budget_held"] * 30 + ["placed"] * 20
    window = await world.window(key.scope)
    assert (window.leased, window.ceiling) == (2000, 2000)


async def test_fifty_calls_at_once_through_two_replicas_hold_no_more(world: World) -> None:
    await world.replica()
    user_id = await world.new_user(1500)
    keys = [await world.new_key(1000, user_id=user_id) for _ in range(2)]
    answers = await gathered(*(world.place(keys[number % 2], 100) for number in range(50)))
    assert codes(answers) == ["budget_held"] * 35 + ["placed"] * 15
    assert (await world.window(f"user:{user_id}")).leased == 1500


async def test_fifty_calls_that_fit_are_all_admitted_and_settled(world: World) -> None:
    key = await world.new_key(5000)
    holds = await gathered(*(world.hold(key, 100) for _ in range(50)))
    await gathered(*(world.settle(hold_id, 99, key) for hold_id in holds))
    window = await world.window(key.scope)
    assert (window.spent, window.leased) == (4950, 0)


async def test_a_refused_call_leaves_nothing(world: World) -> None:
    """The key could pay, the user could not: so nothing is set aside on the key either."""
    user_id = await world.new_user(50)
    key = await world.new_key(1000, user_id=user_id)
    hold_id = str(uuid.uuid4())
    with pytest.raises(Refused) as refused:
        await world.place(key, 60, hold_id=hold_id)
    assert refused.value.code == "budget_exceeded"
    assert [(await world.window(scope)).leased for scope in key.scopes[:2]] == [0, 0]
    assert await world.rows("select from holds where hold_id = $1", hold_id) == []
    assert await world.rows("select from hold_windows where hold_id = $1", hold_id) == []


async def test_a_refusal_reaches_the_worker_with_its_headers(world: World) -> None:
    key = await world.new_key(50, "1d")
    with pytest.raises(Refused) as refused:
        await world.place(key, 40, scopes=key.scopes, output_cap=20, output_nano_usd_per_token=Decimal(1))
    assert refused.value.headers == {"x-should-retry": "false"}
    await world.hold(key, 40)
    with pytest.raises(Refused) as refused:
        await world.place(key, 20)
    assert (refused.value.code, refused.value.headers) == ("budget_held", {"Retry-After": "1"})
    await world.spend(await world.new_key(50, "1d"), 50)


async def test_a_used_up_window_says_when_it_ends(world: World) -> None:
    key = await world.new_key(50, "1d")
    await world.spend(key, 50)
    with pytest.raises(Refused) as refused:
        await world.place(key, 1)
    assert refused.value.headers == {"x-should-retry": "false", "Retry-After": str(12 * 3600)}


async def test_a_cap_is_chosen_by_what_is_not_spent(world: World) -> None:
    key = await world.new_key(800)
    one: dict[str, Any] = {"output_cap": None, "output_max": 1000, "output_nano_usd_per_token": Decimal(1)}
    answers = await gathered(*(world.place(key, 0, **one) for _ in range(8)))
    assert {(a.held_nano_usd, a.output_cap) for a in answers} == {(100, 100)}
    with pytest.raises(Refused) as refused:
        await world.place(key, 0, **one)
    assert refused.value.code == "budget_held"


async def test_the_same_hold_asked_twice_is_held_once(world: World) -> None:
    key = await world.new_key(100)
    hold_id = str(uuid.uuid4())
    first, *others = await gathered(*(world.place(key, 60, hold_id=hold_id) for _ in range(5)))
    assert isinstance(first, PlacedHold)
    world.clock.now = NOON.replace(hour=13)
    assert [*others, await world.place(key, 60, hold_id=hold_id)] == [first] * 5
    assert (await world.window(key.scope)).leased == 60


async def test_a_hold_asked_again_after_it_was_settled_is_not_held_again(world: World) -> None:
    key = await world.new_key(100)
    hold_id = str(uuid.uuid4())
    first = await world.place(key, 60, hold_id=hold_id)
    await world.settle(hold_id, 10, key)
    assert await world.place(key, 60, hold_id=hold_id) == first
    assert (await world.window(key.scope)).leased == 0


async def test_a_limit_that_was_set_just_now_holds(world: World) -> None:
    """Nobody told budgets of the key: what the worker had seen is asked for before the call is decided."""
    key = await world.new_key(10)
    with pytest.raises(Refused) as refused:
        await world.place(key, 11)
    assert refused.value.code == "budget_exceeded"


async def test_a_position_that_is_not_there_yet_is_waited_for_and_then_unavailable(world: World) -> None:
    key = await world.new_key(10)
    with pytest.raises(Refused) as refused:
        await world.place(key, 1, positions={"keys": 10**6})
    assert refused.value.code == "budgets_unavailable"


async def test_a_worker_that_nobody_knows_places_nothing(world: World) -> None:
    key = await world.new_key(100)
    with pytest.raises(Refused) as refused:
        await world.place(key, 1, worker_id="stranger")
    assert refused.value.code == "budgets_unavailable"


async def test_a_worker_that_left_places_nothing(world: World) -> None:
    key = await world.new_key(100)
    await world.join("leaving")
    await world.hold(key, 1, worker_id="leaving")
    await world.keys.wire.ask("budgets", LeaveWorker(worker_id="leaving"), Passed)
    with pytest.raises(Refused) as refused:
        await world.place(key, 1, worker_id="leaving")
    assert refused.value.code == "budgets_unavailable"


async def test_whatever_the_code_does_the_database_keeps_a_row_below_its_ceiling(world: World) -> None:
    key = await world.new_key(100)
    await world.hold(key, 100)
    with pytest.raises(asyncpg.CheckViolationError):
        await world.owner.execute("update windows set leased_nano_usd = 101 where scope = $1", key.scope)


async def test_spend_is_tallied_where_nobody_set_a_limit(world: World) -> None:
    key = await world.new_key()
    await world.spend(key, 70)
    window = await world.window(key.scope)
    assert (window.limit, window.spent, window.leased) == (None, 70, 0)
