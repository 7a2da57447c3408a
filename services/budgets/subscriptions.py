"""What comes in over NATS: what budgets hears of keys and users, and what gateway workers ask."""

from typing import Any

from services.budgets import handlers, workers
from services.budgets.barrier import await_barrier
from services.budgets.desk import catch_up
from services.budgets.domain.hold import BudgetExceeded, BudgetHeld
from services.budgets.requests import (
    AwaitBarrier,
    JoinWorker,
    LeaveWorker,
    Passed,
    PlacedHold,
    PlaceHold,
    Recorded,
    RecordRefusal,
    Renewed,
    RenewWorker,
    SettledHold,
    SettleHold,
)
from services.identity.events import CATALOG as IDENTITY
from services.identity.events import UserCreated, UserDeleted, UserUpdated
from services.keys.events import CATALOG as KEYS
from services.keys.events import KeyDeleted, KeyGenerated, KeyUpdated
from shared import events
from shared.errors import Refused, Unavailable
from shared.event_store import Transaction
from shared.service import Running
from shared.subscriptions import Subscription


async def on_key_limits(tx: Transaction, recorded: events.Recorded) -> None:
    """A key's budget is what its terms say."""
    match recorded.event:
        case (
            KeyGenerated(key_id=key_id, terms=terms, created_at=at)
            | KeyUpdated(key_id=key_id, terms=terms, updated_at=at)
        ):
            await handlers.set_budget(
                tx,
                f"key:{key_id}",
                limit_nano_usd=terms.max_budget_nano_usd,
                duration=terms.budget_duration,
                set_at=terms.budget_set_at or at,
            )


async def on_key_deleted(tx: Transaction, recorded: events.Recorded) -> None:
    """A key that is gone has no budget; what it spent stays (§5.8)."""
    match recorded.event:
        case KeyDeleted(key_id=key_id):
            await handlers.remove_budget(tx, f"key:{key_id}")


async def on_user_limits(tx: Transaction, recorded: events.Recorded) -> None:
    """A user's budget, for personal keys, is what their limits say."""
    match recorded.event:
        case (
            UserCreated(user_id=user_id, limits=limits, created_at=at)
            | UserUpdated(user_id=user_id, limits=limits, updated_at=at)
        ):
            await handlers.set_budget(
                tx,
                f"user:{user_id}",
                limit_nano_usd=limits.max_budget_nano_usd,
                duration=limits.budget_duration,
                set_at=limits.budget_set_at or at,
            )


async def on_user_deleted(tx: Transaction, recorded: events.Recorded) -> None:
    """Likewise."""
    match recorded.event:
        case UserDeleted(user_id=user_id):
            await handlers.remove_budget(tx, f"user:{user_id}")


# All that a call can be told; anything else is not about the call.
REFUSALS = frozenset({BudgetExceeded.reason, BudgetHeld.reason})

SUBSCRIPTIONS = [
    Subscription(IDENTITY, {UserCreated: on_user_limits, UserUpdated: on_user_limits, UserDeleted: on_user_deleted}),
    Subscription(KEYS, {KeyGenerated: on_key_limits, KeyUpdated: on_key_limits, KeyDeleted: on_key_deleted}),
]


async def place_hold(running: Running[Any], question: PlaceHold) -> PlacedHold:
    """Only when all is applied that the worker saw: a scope that nobody told of yet is not unlimited."""
    await catch_up(running, question.positions)
    try:
        placed: PlacedHold = await running.own.places.ask(question)
    except Refused as refused:
        if refused.code in REFUSALS:
            raise
        raise Unavailable(refused.message, reason="budgets_unavailable") from refused
    return placed


async def settle_hold(running: Running[Any], question: SettleHold) -> SettledHold:
    """Charged, once."""
    try:
        settled: SettledHold = await running.own.ends.ask(question)
    except Refused as refused:
        # Nothing refuses a settlement: whoever asks must go on asking.
        raise Unavailable(refused.message, reason="budgets_unavailable") from refused
    return settled


async def record_refusal(running: Running[Any], question: RecordRefusal) -> Recorded:
    """A row of the ledger."""
    recorded: Recorded = await running.own.ends.ask(question)
    return recorded


async def join_worker(running: Running[Any], question: JoinWorker) -> Passed:
    """A row of its own."""
    await running.run(workers.join, question.worker_id)
    return Passed(waited_for=0)


async def renew_worker(running: Running[Any], question: RenewWorker) -> Renewed:
    """Whoever waits at a barrier here looks again."""
    number = await running.run(workers.renew, question.worker_id, question.number, question.positions)
    running.own.renewals.ring()
    return Renewed(granted=number is not None, number=number or 0)


async def leave_worker(running: Running[Any], question: LeaveWorker) -> Passed:
    """Nobody waits for it any more."""
    await running.run(workers.leave, question.worker_id)
    running.own.renewals.ring()
    return Passed(waited_for=0)


async def pass_barrier(running: Running[Any], question: AwaitBarrier) -> Passed:
    """Answered when nobody admits by an older state."""
    return Passed(waited_for=await await_barrier(running, question.positions))


ANSWERS: dict[type[Any], Any] = {
    PlaceHold: place_hold,
    SettleHold: settle_hold,
    RecordRefusal: record_refusal,
    JoinWorker: join_worker,
    RenewWorker: renew_worker,
    LeaveWorker: leave_worker,
    AwaitBarrier: pass_barrier,
}
