"""Ends that overtake their beginnings: a worker that gave up waiting ends what it asked for, come what may."""

import asyncio
import uuid
from collections.abc import Sequence
from decimal import Decimal

import pytest

from services.budgets import handlers
from services.budgets.handlers import End, Ended
from services.budgets.requests import JoinWorker, LeaveWorker, Passed, PlacedHold, PlaceHold, SettleHold
from shared.errors import Refused, Unavailable
from shared.event_store import Transaction
from tests.support.budgets_world import Key, World
from tests.support.eventually import eventually


async def ask_for(world: World, key: Key, worst: int) -> PlaceHold:
    return PlaceHold(
        hold_id=str(uuid.uuid4()),
        worker_id=world.worker_id,
        scopes=key.scopes,
        positions=await world.positions(),
        input_nano_usd=worst,
        output_nano_usd_per_token=Decimal(0),
        output_cap=0,
        output_max=0,
    )


async def somebody_waits_for_a_lock(world: World) -> None:
    async def is_so() -> bool:
        waiting = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        return bool(await world.owner.fetchval(waiting))

    await eventually(is_so)


async def test_a_hold_that_is_settled_before_it_is_placed_is_never_placed(world: World) -> None:
    key = await world.new_key(limit=100)
    late = await ask_for(world, key, 60)
    await world.settle(late.hold_id, 0)
    with pytest.raises(Unavailable):
        await world.keys.wire.ask("budgets", late, PlacedHold)
    assert (await world.window(key.scope)).leased == 0


async def test_a_hold_that_is_settled_while_it_is_being_placed_stays_open_nowhere(world: World) -> None:
    key = await world.new_key(limit=100)
    await world.heard()
    late = await ask_for(world, key, 60)
    placed, may_commit = asyncio.Event(), asyncio.Event()

    async def place(tx: Transaction) -> Sequence[PlacedHold | Refused]:
        answers = await handlers.place_holds(tx, [late])
        placed.set()
        await may_commit.wait()
        return answers

    placing = asyncio.create_task(world.budgets.run(place))
    await placed.wait()
    settling = asyncio.create_task(world.settle(late.hold_id, 0, key))
    await somebody_waits_for_a_lock(world)
    may_commit.set()
    assert isinstance((await placing)[0], PlacedHold)
    assert (await settling).charged_nano_usd == 0
    assert (await world.window(key.scope)).leased == 0
    assert await world.rows("select 1 from hold_windows where hold_id = $1", late.hold_id) == []
    (hold,) = await world.rows("select state, held_nano_usd from holds where hold_id = $1", late.hold_id)
    assert hold == {"state": "settled", "held_nano_usd": 60}


async def test_a_hold_that_is_placed_while_it_is_being_settled_is_refused(world: World) -> None:
    key = await world.new_key(limit=100)
    await world.heard()
    late = await ask_for(world, key, 60)
    settled, may_commit = asyncio.Event(), asyncio.Event()

    async def settle(tx: Transaction) -> Sequence[Ended]:
        end: End = SettleHold(hold_id=late.hold_id, billed_nano_usd=0, usage=None)
        answers = await handlers.end_calls(tx, [end])
        settled.set()
        await may_commit.wait()
        return answers

    settling = asyncio.create_task(world.budgets.run(settle))
    await settled.wait()
    placing = asyncio.create_task(world.keys.wire.ask("budgets", late, PlacedHold))
    await somebody_waits_for_a_lock(world)
    may_commit.set()
    await settling
    with pytest.raises(Unavailable) as refused:
        await placing
    assert refused.value.message == "this hold was settled before it was placed"
    assert (await world.window(key.scope)).leased == 0


async def test_a_worker_whose_leaving_overtakes_its_joining_never_lives(world: World) -> None:
    worker_id = str(uuid.uuid4())
    for question in (LeaveWorker(worker_id=worker_id), JoinWorker(worker_id=worker_id)):
        await world.keys.wire.ask("budgets", question, Passed)
    assert await world.rows("select gone from workers where worker_id = $1", worker_id) == [{"gone": True}]
