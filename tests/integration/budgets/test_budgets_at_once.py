"""Everything at once, through two replicas: afterwards the rows say what the ledger and the open holds say."""

import random
from typing import Any

from services.budgets import jobs
from services.budgets.requests import LeaveWorker, Passed, SettledHold
from shared.errors import Refused
from tests.support.budgets import MINUTE
from tests.support.budgets_world import Key, World, gathered

# What a window should say: the ledger's charges to its scope, what is presumed, and the holds open in it.
BOOKS = """
    select (select coalesce(sum(spend_nano_usd), 0) from usage_rows
             where $1 = any(scopes) and admitted_at >= $2 and admitted_at < $3) as spent,
           (select coalesce(sum(held_nano_usd), 0) from holds h join hold_windows hw using (hold_id)
             where h.state = 'open' and hw.scope = $1 and hw.window_start = $2 and hw.window_end = $3) as leased,
           (select coalesce(sum(spend_nano_usd), 0) from usage_rows
             where presumed and $1 = any(scopes) and admitted_at >= $2 and admitted_at < $3) as presumed
"""
TOTALS = """
    select s.scope, s.total_spent_nano_usd as total,
           (select coalesce(sum(u.spend_nano_usd), 0) from usage_rows u where s.scope = any(u.scopes)) as charged
      from scopes s
"""


async def call(world: World, key: Key, rng: random.Random, worker_id: str) -> Any:
    """A call as a gateway makes it; now and then its worker never tells how it ended, or tells twice."""
    worst = rng.randint(0, 50)
    try:
        hold_id = await world.hold(key, worst, worker_id=worker_id)
    except Refused as refused:
        return refused.code
    if worker_id == "lost":
        return hold_id
    billed = rng.choice([None, 0, worst // 2, worst, worst * 2])
    settled = await world.settle(hold_id, billed, key)
    if rng.random() < 0.2:
        assert await world.settle(hold_id, billed, key) == settled
    return settled


async def test_the_rows_say_what_the_ledger_and_the_open_holds_say(world: World) -> None:
    await world.replica()
    await world.join("lost")
    rng = random.Random(3)
    user_id = await world.new_user(2500, "30d")
    keys = [await world.new_key(1000, duration, user_id) for duration in ("1d", "30d", None)]

    async def change(key: Key) -> None:
        # Budgets hears of it when the next call names that position.
        await world.update_key(key, rng.choice([200, 800, 1500, None]), rng.choice(["1d", "30d", "1y", None]))

    calls = [call(world, rng.choice(keys), rng, rng.choice(["w1", "w1", "w1", "lost"])) for _ in range(200)]
    changes = [change(rng.choice(keys)) for _ in range(20)]
    todo = [*calls, *changes, *(jobs.publish_totals(world.budgets) for _ in range(10))]
    rng.shuffle(todo)
    answers = await gathered(*todo)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert sum(isinstance(answer, SettledHold) for answer in answers) > 50

    await agree(world)
    await world.keys.wire.ask("budgets", LeaveWorker(worker_id="lost"), Passed)
    world.clock.now += 2 * MINUTE
    await jobs.write_off_holds(world.budgets)
    lost = [answer for answer in answers if isinstance(answer, str) and not answer.startswith("budget_")]
    assert lost
    await agree(world)
    await gathered(*(world.settle(hold_id, rng.randint(0, 50), keys[0], user_id=user_id) for hold_id in lost))
    await agree(world)


async def agree(world: World) -> None:
    """The window of each scope that holds now, and its total, against the books."""
    totals = await world.rows(TOTALS)
    assert len(totals) == 5
    for total in totals:
        assert total["total"] == total["charged"], total
        window = await world.window(total["scope"])
        (books,) = await world.rows(BOOKS, *window.key)
        assert (window.spent, window.leased, window.presumed) == (books["spent"], books["leased"], books["presumed"])
