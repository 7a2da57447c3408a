"""Workers and barriers: who is waited for, who is given up, and what becomes of a lost worker's holds."""

import asyncio
import uuid
from datetime import timedelta

import pytest

from services.budgets import barrier as barriers
from services.budgets import jobs
from services.budgets.events import UsageSettled
from services.budgets.requests import (
    BARRIER_TOPIC,
    AwaitBarrier,
    BarrierRaised,
    LeaveWorker,
    Passed,
    Renewed,
    RenewWorker,
)
from shared.errors import Refused
from tests.support.budgets import NOON
from tests.support.budgets_world import World, gathered

GRACE = timedelta(seconds=61)


async def renew(world: World, worker_id: str, number: int, **positions: int) -> Renewed:
    question = RenewWorker(worker_id=worker_id, number=number, positions=positions)
    return await world.keys.wire.ask("budgets", question, Renewed)


async def barrier(world: World, **positions: int) -> int:
    question = AwaitBarrier(positions=positions)
    return (await world.keys.wire.ask("budgets", question, Passed, timeout_seconds=30)).waited_for


async def leave(world: World, worker_id: str) -> None:
    await world.keys.wire.ask("budgets", LeaveWorker(worker_id=worker_id), Passed)


@pytest.fixture
async def worker(world: World) -> str:
    """The only worker that lives."""
    for row in await world.rows("select worker_id from workers where not gone"):
        await leave(world, row["worker_id"])
    worker_id = world.worker_id = str(uuid.uuid4())
    await world.join(worker_id)
    return worker_id


# Renewals


async def test_each_renewal_has_a_number_of_its_own(world: World, worker: str) -> None:
    assert await renew(world, worker, 0, keys=1) == Renewed(granted=True, number=1)
    assert await renew(world, worker, 1, keys=1) == Renewed(granted=True, number=2)


async def test_a_renewal_whose_answer_was_lost_is_granted_again(world: World, worker: str) -> None:
    await renew(world, worker, 0, keys=1)
    assert await renew(world, worker, 0, keys=1) == Renewed(granted=True, number=2)


async def test_a_late_renewal_takes_no_position_back(world: World, worker: str) -> None:
    await renew(world, worker, 0, keys=5, identity=1)
    await renew(world, worker, 1, keys=3, identity=2)
    assert await barrier(world, keys=5, identity=2) == 0


async def test_a_worker_that_left_or_never_joined_is_not_renewed(world: World, worker: str) -> None:
    await leave(world, worker)
    assert not (await renew(world, worker, 0)).granted
    assert not (await renew(world, "stranger", 0)).granted


async def test_a_worker_that_left_does_not_come_back_by_joining(world: World, worker: str) -> None:
    await leave(world, worker)
    await world.join(worker)
    assert not (await renew(world, worker, 0)).granted


# Barriers


async def test_a_barrier_that_all_have_passed_waits_for_nobody(world: World, worker: str) -> None:
    await renew(world, worker, 0, keys=7)
    assert await barrier(world, keys=7) == 0


async def test_without_workers_a_barrier_waits_for_nobody(world: World, worker: str) -> None:
    await leave(world, worker)
    assert await barrier(world, keys=7) == 0


async def test_a_barrier_tells_all_workers_and_passes_when_they_have_renewed(world: World, worker: str) -> None:
    heard: asyncio.Queue[BarrierRaised] = asyncio.Queue()

    async def hear(payload: bytes) -> None:
        await heard.put(BarrierRaised.model_validate_json(payload))

    await world.keys.wire.listen(BARRIER_TOPIC, hear)
    waiting = asyncio.create_task(barrier(world, keys=8))
    assert (await heard.get()).positions == {"keys": 8}
    await renew(world, worker, 0, keys=7)
    assert not waiting.done()
    await renew(world, worker, 1, keys=8)
    assert await waiting == 1


async def test_a_renewal_that_is_heard_here_passes_the_barrier_without_another_look(
    world: World, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barriers, "LOOK_SECONDS", 3600.0)
    raised = asyncio.Event()

    async def hear(_: bytes) -> None:
        raised.set()

    await world.keys.wire.listen(BARRIER_TOPIC, hear)
    waiting = asyncio.create_task(barrier(world, keys=8))
    await raised.wait()
    for number in range(3):
        await renew(world, worker, number, keys=7)
    assert not waiting.done()
    await renew(world, worker, 3, keys=8)
    await waiting


async def test_a_renewal_that_another_replica_heard_passes_the_barrier(world: World, worker: str) -> None:
    waiting = asyncio.create_task(barrier(world, keys=8))
    await world.rows(
        "update workers set positions = '{\"keys\": 8}', number = number + 1 where worker_id = $1 returning 1", worker
    )
    assert await waiting in (0, 1)


async def test_a_barrier_is_passed_by_a_live_a_renewing_and_a_dead_worker(world: World, worker: str) -> None:
    """The dead one is waited for as long as it may go on; the one that renews is not given up with it."""
    await world.join("renewing")
    await world.join("dead")
    await renew(world, worker, 0, keys=9)
    waiting = asyncio.create_task(barrier(world, keys=9))
    for number in range(12):  # half a second each: the bound is five
        await renew(world, worker, number, keys=9)
        await renew(world, "renewing", number, keys=8)
        await jobs.give_up_workers(world.budgets)
        world.clock.seconds += 0.5
    assert {row["worker_id"] for row in await world.rows("select worker_id from workers where not gone")} == {
        worker,
        "renewing",
    }
    assert not waiting.done()
    await renew(world, "renewing", 12, keys=9)
    assert await waiting == 2
    assert not (await renew(world, "dead", 0, keys=9)).granted
    await leave(world, "renewing")


async def test_a_dead_worker_is_not_given_up_before_the_bound(world: World, worker: str) -> None:
    await jobs.give_up_workers(world.budgets)
    world.clock.seconds += 4.9
    await jobs.give_up_workers(world.budgets)
    assert (await renew(world, worker, 0)).granted
    world.clock.seconds += 4.9
    await jobs.give_up_workers(world.budgets)
    assert (await renew(world, worker, 1)).granted


async def test_a_worker_that_never_applies_what_is_waited_for_makes_the_barrier_unavailable(
    world: World, worker: str
) -> None:
    waiting = asyncio.create_task(barrier(world, keys=10**9))
    number = 0
    while not waiting.done():
        number = (await renew(world, worker, number, keys=1)).number
        world.clock.seconds += 1.0
    with pytest.raises(Refused) as refused:
        await waiting
    assert refused.value.code == "unavailable"


# Lost workers


async def test_a_lost_workers_hold_is_written_off_as_presumed_after_the_grace(world: World, worker: str) -> None:
    key = await world.new_key(100, user_id=await world.new_user())
    await world.hold(key, 60)
    await leave(world, worker)
    world.clock.now = NOON + timedelta(seconds=59)
    await jobs.write_off_holds(world.budgets)
    assert (await world.window(key.scope)).leased == 60
    world.clock.now = NOON + GRACE
    await jobs.write_off_holds(world.budgets)
    window = await world.window(key.scope)
    assert (window.spent, window.leased, window.presumed) == (60, 0, 60)
    await jobs.write_off_holds(world.budgets)
    assert await world.window(key.scope) == window


async def test_a_living_workers_hold_is_not_written_off(world: World, worker: str) -> None:
    key = await world.new_key(100)
    await world.hold(key, 60)
    world.clock.now = NOON + timedelta(hours=1)
    await jobs.write_off_holds(world.budgets)
    assert (await world.window(key.scope)).leased == 60


async def test_a_hold_is_written_off_once_however_many_replicas_do_it(world: World, worker: str) -> None:
    replica = await world.replica()
    key = await world.new_key(1000)
    for _ in range(10):
        await world.hold(key, 60)
    await leave(world, worker)
    world.clock.now = NOON + GRACE
    done = await gathered(*(jobs.write_off_holds(running) for running in (world.budgets, replica) for _ in range(4)))
    assert set(done) == {None}
    window = await world.window(key.scope)
    assert (window.spent, window.leased, window.presumed) == (600, 0, 600)


async def write_off(world: World, worker: str) -> None:
    await leave(world, worker)
    world.clock.now += GRACE
    await jobs.write_off_holds(world.budgets)


async def test_a_presumed_charge_is_proven_by_the_settlement_that_comes_after_all(world: World, worker: str) -> None:
    key = await world.new_key(100)
    hold_id = await world.hold(key, 60)
    await write_off(world, worker)
    settled = await world.settle(hold_id, 25, key)
    assert (settled.charged_nano_usd, settled.window_spent_nano_usd[key.scope]) == (25, 25)
    window = await world.window(key.scope)
    assert (window.spent, window.leased, window.presumed) == (25, 0, 0)
    assert await world.settle(hold_id, 25, key) == settled
    (row,) = await world.rows("select * from ledger where hold_id = $1", hold_id)
    assert (row["spend_nano_usd"], row["admitted_at"]) == (25, NOON)
    assert await world.rows("select * from presumed_usage where hold_id = $1", hold_id) == []


async def test_a_proven_charge_of_the_whole_hold_leaves_the_sum_as_it_was(world: World, worker: str) -> None:
    key = await world.new_key(100)
    hold_id = await world.hold(key, 60)
    await write_off(world, worker)
    await world.settle(hold_id, None, key)
    window = await world.window(key.scope)
    assert (window.spent, window.presumed) == (60, 0)


async def test_what_is_presumed_is_shown_and_no_settled_batch(world: World, worker: str) -> None:
    key = await world.new_key(100, user_id=await world.new_user())
    hold_id = await world.hold(key, 60)
    before = await world.events(UsageSettled)
    await write_off(world, worker)
    assert await world.events(UsageSettled) == before
    (row,) = await world.rows("select * from usage_rows where hold_id = $1", hold_id)
    assert (row["presumed"], row["spend_nano_usd"], row["status"], row["token"], row["user_id"]) == (
        True,
        60,
        "failure",
        key.token,
        key.user_id,
    )


async def test_what_is_presumed_counts_in_a_window_that_begins_anew(world: World, worker: str) -> None:
    key = await world.new_key(100, "30d")
    hold_id = await world.hold(key, 60)
    await write_off(world, worker)
    await world.update_key(key, 100, "1d")
    await world.heard()
    window = await world.window(key.scope)
    assert (window.spent, window.presumed) == (60, 60)
    await world.settle(hold_id, 10, key)
    window = await world.window(key.scope)
    assert (window.spent, window.presumed) == (10, 0)


async def test_old_rows_are_forgotten_and_what_counts_is_not(world: World, worker: str) -> None:
    key = await world.new_key(100)
    await world.spend(key, 10)
    hold_id = await world.hold(key, 60)
    await leave(world, worker)
    world.clock.now = NOON + timedelta(days=8)
    await jobs.forget_old(world.budgets)
    assert [row["hold_id"] for row in await world.rows("select hold_id from holds where worker_id = $1", worker)] == [
        hold_id
    ]
    assert (await world.window(key.scope)).spent == 10
    await jobs.write_off_holds(world.budgets)
    await jobs.forget_old(world.budgets)
    assert await world.rows("select worker_id from workers where worker_id = $1", worker) == []
