"""Settlements on the real database: charged once, in the ledger once, and what is told of them."""

import uuid
from datetime import timedelta
from typing import Any

import pytest

from services.budgets.events import BudgetExhausted, BudgetThresholdReached, HoldExceeded, UsageSettled
from services.budgets.ledger import canonical, digest
from services.budgets.requests import SettledHold, SettleHold
from shared.errors import Refused
from shared.event_store import Transaction
from tests.support.budgets import NOON
from tests.support.budgets_world import World, gathered

LEDGER = "select * from ledger where hold_id = $1"


async def test_a_settled_hold_is_charged_in_every_scope_and_the_rest_is_free_again(world: World) -> None:
    key = await world.new_key(100, user_id=await world.new_user(200))
    settled = await world.settle(await world.hold(key, 60), 25, key)
    assert settled.charged_nano_usd == 25
    for scope in key.scopes[:2]:
        window = await world.window(scope)
        assert (window.spent, window.leased) == (25, 0)
        assert settled.window_spent_nano_usd[scope] == 25
    assert set(settled.window_spent_nano_usd) == set(key.scopes)


async def test_a_windows_spend_includes_this_call_and_those_before(world: World) -> None:
    key = await world.new_key(100)
    await world.spend(key, 10)
    settled = await world.settle(await world.hold(key, 60), 25, key)
    assert settled.window_spent_nano_usd[key.scope] == 35


async def test_a_hold_is_settled_once_and_answers_the_same_again(world: World) -> None:
    key = await world.new_key(1000)
    hold_id = await world.hold(key, 60)
    first, *others = await gathered(*(world.settle(hold_id, 25, key) for _ in range(5)))
    assert isinstance(first, SettledHold)
    await world.spend(key, 100)
    assert [*others, await world.settle(hold_id, 59, key)] == [first] * 5
    assert (await world.window(key.scope)).spent == 125
    assert len(await world.rows(LEDGER, hold_id)) == 1


async def test_an_unknown_bill_is_the_whole_hold(world: World) -> None:
    key = await world.new_key(100)
    settled = await world.settle(await world.hold(key, 60), None, key, status="failure")
    assert settled.charged_nano_usd == 60


async def test_a_bill_above_the_hold_is_charged_up_to_it_and_told(world: World) -> None:
    key = await world.new_key(100)
    hold_id = await world.hold(key, 60)
    assert (await world.settle(hold_id, 75, key)).charged_nano_usd == 60
    told = [e.event for e in await world.events(HoldExceeded) if e.stream == f"hold-{hold_id}"]
    assert told == [HoldExceeded(hold_id=hold_id, held_nano_usd=60, billed_nano_usd=75, at=NOON)]
    (row,) = await world.rows(LEDGER, hold_id)
    assert (row["held_nano_usd"], row["billed_nano_usd"], row["spend_nano_usd"]) == (60, 75, 60)


async def test_an_attempt_that_cost_nothing_and_is_made_again_leaves_no_row(world: World) -> None:
    key = await world.new_key(100)
    hold_id = await world.hold(key, 60)
    question = SettleHold(hold_id=hold_id, billed_nano_usd=0, usage=None)
    await world.keys.wire.ask("budgets", question, SettledHold)
    assert (await world.window(key.scope)).free == 100
    assert await world.rows(LEDGER, hold_id) == []


async def test_what_is_charged_leaves_a_row_even_if_nobody_says_what_it_was(world: World) -> None:
    key = await world.new_key(100, user_id=await world.new_user())
    hold_id = await world.hold(key, 60)
    await world.keys.wire.ask("budgets", SettleHold(hold_id=hold_id, billed_nano_usd=None, usage=None), SettledHold)
    (row,) = await world.rows(LEDGER, hold_id)
    assert (row["spend_nano_usd"], row["key_id"], row["user_id"], row["token"]) == (
        60,
        key.key_id,
        key.user_id,
        key.token,
    )


async def test_a_hold_that_was_settled_before_it_was_placed_is_never_placed(world: World) -> None:
    """The worker gave up waiting for its hold and said so; the two may overtake each other."""
    key = await world.new_key(100)
    hold_id = str(uuid.uuid4())
    assert (await world.settle(hold_id, 0, key, status="failure")).charged_nano_usd == 0
    with pytest.raises(Refused) as refused:
        await world.place(key, 60, hold_id=hold_id)
    assert refused.value.code == "budgets_unavailable"
    assert (await world.window(key.scope)).leased == 0
    assert (await world.settle(hold_id, 50, key)).charged_nano_usd == 0


async def test_a_hold_stays_in_the_window_that_admitted_it(world: World) -> None:
    key = await world.new_key(100, "1d")
    hold_id = await world.hold(key, 60)
    await world.spend(key, 10)
    world.clock.now = NOON + timedelta(days=1)
    await world.spend(key, 5)
    settled = await world.settle(hold_id, 30, key)
    assert settled.window_spent_nano_usd[key.scope] == 40
    assert (await world.window(key.scope)).spent == 5
    (row,) = await world.rows(LEDGER, hold_id)
    assert row["admitted_at"] == NOON


async def test_a_call_that_was_refused_leaves_a_row_without_spend(world: World) -> None:
    key = await world.new_key(0)
    call_id = str(uuid.uuid4())
    for _ in range(2):
        await world.refuse(key, call_id=call_id, error_code="429", error_class="budget_exceeded")
    (row,) = await world.rows("select * from ledger where call_id = $1", call_id)
    assert (row["status"], row["spend_nano_usd"], row["scopes"]) == ("failure", 0, [])


async def test_text_that_a_database_can_not_store_stops_nobody(world: World) -> None:
    key = await world.new_key(1000)
    hostile = {"session_id": "a\0b", "end_user": "\0", "usage_object": {"x": "\0"}, "prompt_tokens": 10**40}
    holds = [await world.hold(key, 10) for _ in range(3)]
    answers = await gathered(*(world.settle(hold_id, 10, key, **hostile) for hold_id in holds))
    assert all(isinstance(answer, SettledHold) for answer in answers)


# The ledger


async def test_each_settled_batch_is_one_event_whose_digest_its_rows_prove(world: World) -> None:
    key = await world.new_key(10_000)
    before = len(await world.events(UsageSettled))
    holds = [await world.hold(key, 100) for _ in range(30)]
    await gathered(*(world.settle(hold_id, n, key) for n, hold_id in enumerate(holds)))
    batches = [e.event for e in (await world.events(UsageSettled))[before:]]
    assert all(isinstance(event, UsageSettled) for event in batches)
    assert len(batches) < len(holds)
    stored = await world.rows("select * from ledger where hold_id = any($1)", holds)
    assert sum(event.count for event in batches) == len(stored) == 30  # type: ignore[attr-defined]
    assert sum(event.total_nano_usd for event in batches) == sum(range(30))  # type: ignore[attr-defined]


async def test_a_digest_can_be_made_again_from_what_is_stored(world: World) -> None:
    key = await world.new_key(1000, user_id=await world.new_user())
    hold_id = await world.hold(key, 100)
    await world.settle(hold_id, 51, key, usage_object={"b": 1.5, "a": None}, request_tags=("t1", "User-Agent: curl"))
    (row,) = await world.rows(LEDGER, hold_id)
    *_, recorded = await world.events(UsageSettled)
    assert recorded.event == UsageSettled(count=1, total_nano_usd=51, digest=digest([canonical(row)]), settled_at=NOON)
    assert recorded.stream == "usage-2026-11-24"


async def test_what_identifies_a_person_is_beside_the_ledger(world: World) -> None:
    key = await world.new_key(1000)
    hold_id = await world.hold(key, 100)
    await world.settle(hold_id, 51, key, ip="192.0.2.7", user_agent="curl/7.88.1", end_user="end-user-7")
    (row,) = await world.rows(LEDGER, hold_id)
    assert "192.0.2.7" not in str(row)
    (person,) = await world.rows("select * from ledger_persons where hold_id = $1", hold_id)
    assert (person["ip"], person["user_agent"], person["end_user"]) == ("192.0.2.7", "curl/7.88.1", "end-user-7")


@pytest.mark.parametrize(
    "statement", ["update ledger set spend_nano_usd = 0", "delete from ledger", "drop table ledger"]
)
async def test_the_service_itself_can_not_change_the_ledger(world: World, statement: str) -> None:
    async def change(tx: Transaction) -> None:
        await tx.connection.exec_driver_sql(statement)

    with pytest.raises(Exception, match=r"permission denied|must be owner"):
        await world.budgets.run(change)


async def test_a_call_of_a_month_that_the_ledger_does_not_have_makes_it(world: World) -> None:
    world.clock.now = NOON + timedelta(days=3000)
    key = await world.new_key(100)
    await world.spend(key, 10)
    assert len(await world.rows("select 1 as there from ledger_2035_02")) == 1


# What is told


async def told(world: World, scope: str) -> list[Any]:
    thresholds = [e.event for e in await world.events(BudgetThresholdReached)]
    exhausted = [e.event for e in await world.events(BudgetExhausted)]
    return [
        *(event.threshold for event in thresholds if event.scope == scope),  # type: ignore[attr-defined]
        *("exhausted" for event in exhausted if event.scope == scope),  # type: ignore[attr-defined]
    ]


async def test_thresholds_are_told_once_a_window_as_spend_is_recorded(world: World) -> None:
    key = await world.new_key(100, "1d")
    await world.hold(key, 10)
    for amount, after in ((49, []), (1, [0.5]), (10, [0.5]), (25, [0.5, 0.8])):
        await world.spend(key, amount)
        assert await told(world, key.scope) == after
    world.clock.now = NOON + timedelta(days=1)
    await world.spend(key, 50)
    assert await told(world, key.scope) == [0.5, 0.8, 0.5]


async def test_a_used_up_budget_is_told_once(world: World) -> None:
    key = await world.new_key(100)
    await world.spend(key, 100)
    assert await told(world, key.scope) == [0.5, 0.8, 0.95, "exhausted"]
    with pytest.raises(Refused):
        await world.place(key, 1)
    await world.settle(await world.hold(key, 0), 0, key)
    assert await told(world, key.scope) == [0.5, 0.8, 0.95, "exhausted"]
