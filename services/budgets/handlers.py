"""What is done with budgets, holds and the ledger: an async function a command. Looks up, stamps, stores."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from services.budgets import holds, ledger, read_model, scopes, workers
from services.budgets.domain import hold as rules
from services.budgets.domain import window as rows
from services.budgets.domain.budget import (
    BUDGET,
    Budget,
    BudgetCommand,
    RemoveBudget,
    SetBudget,
    same_windows,
    stream_of,
)
from services.budgets.domain.window import Window
from services.budgets.events import HoldExceeded, ScopeTotal, SpendTotalsPublished, UsageSettled
from services.budgets.holds import Ends, Hold
from services.budgets.requests import PlacedHold, PlaceHold, Recorded, RecordRefusal, SettledHold, SettleHold, Usage
from shared.errors import Refused, Unavailable
from shared.event_store import Transaction

# A worker that was not heard of for so long has its holds written off (design §6).
GRACE = timedelta(seconds=60)
PRESUMED = "a worker was lost during this call: it is charged all that it held until the worker's record of it turns up"

UNTOLD = "nobody said what this call was"

End = SettleHold | RecordRefusal
Ended = SettledHold | Recorded


# Budgets


async def set_budget(
    tx: Transaction, scope: str, *, limit_nano_usd: int | None, duration: str | None, set_at: datetime
) -> None:
    """The scope's limit from now on; nothing happens if it is that already."""
    await _change_budget(tx, scope, SetBudget(scope, limit_nano_usd, duration, set_at))


async def remove_budget(tx: Transaction, scope: str) -> None:
    """The scope is gone. What it spent stays."""
    await _change_budget(tx, scope, RemoveBudget(scope, tx.now))


async def _change_budget(tx: Transaction, scope: str, command: BudgetCommand) -> None:
    before, _ = await tx.load(stream_of(scope), BUDGET)
    if not await tx.execute(stream_of(scope), BUDGET, command):
        return
    budget, _ = await tx.load(stream_of(scope), BUDGET)
    await scopes.lock_scopes(tx, [scope])
    window = await _window_now(tx, scope, budget, begun_anew=not same_windows(before, budget))
    await scopes.store_windows(tx, await _tell(tx, [window]))
    await scopes.mark_changed(tx, [scope])


async def _window_now(tx: Transaction, scope: str, budget: Budget, *, begun_anew: bool) -> Window:
    if not begun_anew:
        return (await scopes.load_windows(tx, [scope]))[scope]
    key = rows.window_at(scope, budget, tx.now, tx.settings.timezone)
    await scopes.unlimit_others(tx, key)
    (window,) = await scopes.open_windows(tx, {key: budget.max_budget_nano_usd})
    return window


# Holds


async def place_holds(tx: Transaction, asked: Sequence[PlaceHold]) -> list[PlacedHold | Refused]:
    """Decide on each in turn, in one transaction. An answer each: the hold, or why there is none."""
    await scopes.lock_scopes(tx, {scope for question in asked for scope in question.scopes})
    known, live = await holds.find_known(tx, [q.hold_id for q in asked], [q.worker_id for q in asked])
    windows = await scopes.load_windows(tx, {scope for question in asked for scope in question.scopes})
    placed: list[Hold] = []
    answers: list[PlacedHold | Refused] = []
    for question in asked:
        try:
            hold = known.get(question.hold_id)
            if hold is None:
                hold = _place(tx, question, windows, live)
                known[hold.hold_id] = hold
                placed.append(hold)
            answers.append(_placed(hold))
        except Refused as refused:
            answers.append(refused)
    if placed:
        touched = {key.scope for hold in placed for key in hold.windows}
        await holds.store_placed(tx, [windows[scope] for scope in sorted(touched)], placed)
    return answers


def _place(tx: Transaction, question: PlaceHold, windows: dict[str, Window], live: Collection[str]) -> Hold:
    """The hold, which ``windows`` then know of."""
    if question.worker_id not in live:
        raise Unavailable("this gateway worker was given up by budgets", reason="budgets_unavailable")
    ask = rules.Ask(
        question.input_nano_usd, question.output_nano_usd_per_token, question.output_cap, question.output_max
    )
    scopes_of_call = list(dict.fromkeys(question.scopes))
    placement = rules.place([windows[scope] for scope in scopes_of_call], ask, tx.now)
    for scope in scopes_of_call:
        windows[scope] = rows.set_aside(windows[scope], placement.held_nano_usd)
    return Hold(
        hold_id=question.hold_id,
        worker_id=question.worker_id,
        state="open",
        held_nano_usd=placement.held_nano_usd,
        output_cap=placement.output_cap,
        admitted_at=tx.now,
        windows=tuple(windows[scope].key for scope in scopes_of_call),
    )


def _placed(hold: Hold) -> PlacedHold:
    if hold.state == "void":
        raise Unavailable("this hold was settled before it was placed", reason="budgets_unavailable")
    return PlacedHold(held_nano_usd=hold.held_nano_usd, output_cap=hold.output_cap, admitted_at=hold.admitted_at)


async def end_calls(tx: Transaction, asked: Sequence[End]) -> list[Ended]:
    """Settle holds and note refusals, in one transaction: charges, the ledger's rows, and one event for all of them."""
    known, windows = await holds.load_to_settle(tx, [q.hold_id for q in asked if isinstance(q, SettleHold)])
    ends = Ends(windows)
    answers: list[Ended] = []
    for question in asked:
        if isinstance(question, RecordRefusal):
            _add_row(ends, question.usage, None)
            answers.append(Recorded())
        else:
            hold = ends.holds.get(question.hold_id) or known.get(question.hold_id)
            answers.append(await _settle(tx, ends, question, hold))
    await _tell_of(tx, ends)
    await _record(tx, ends)
    return answers


async def _settle(tx: Transaction, ends: Ends, question: SettleHold, hold: Hold | None) -> SettledHold:
    if hold is not None and hold.state in ("settled", "void"):
        return SettledHold(charged_nano_usd=hold.charged_nano_usd or 0, window_spent_nano_usd=dict(hold.window_spent))
    if hold is None:
        # Nothing was held, so nothing is charged; and should the asking be on its way, it comes too late.
        hold = Hold(question.hold_id, "", "void", 0, 0, question.usage.started_at if question.usage else tx.now)
    charged = rules.settled_charge(hold.held_nano_usd, question.billed_nano_usd)
    usage = question.usage or (await _unknown_usage(tx, hold, UNTOLD) if charged else None)
    _charge(ends, hold, charged, usage.ended_at if usage else hold.admitted_at)
    await _tell_of_excess(tx, hold, question.billed_nano_usd)
    ended = replace(
        hold,
        state="void" if hold.state == "void" else "settled",
        ended_at=tx.now,
        charged_nano_usd=charged,
        window_spent=_window_spent(ends.windows, hold),
    )
    ends.holds[hold.hold_id] = ended
    if usage:
        _add_row(ends, usage, ended, billed=question.billed_nano_usd)
    return SettledHold(charged_nano_usd=charged, window_spent_nano_usd=dict(ended.window_spent))


def _charge(ends: Ends, hold: Hold, charged: int, used_at: datetime) -> None:
    settle = rows.prove if hold.state == "written_off" else rows.settle
    for key in hold.windows:
        ends.windows[key] = settle(ends.windows[key], held=hold.held_nano_usd, charged=charged)
    spent = charged - (hold.held_nano_usd if hold.state == "written_off" else 0)
    for scope in _scopes_of(hold):
        ends.spend(scope, spent, used_at)


def _window_spent(windows: Mapping[rows.WindowKey, Window], hold: Hold) -> dict[str, int]:
    """By scope. After a change of duration a hold is in windows of both kinds; the one with the limit counts."""
    by_limit = sorted((windows[key] for key in hold.windows), key=lambda window: window.limit is not None)
    return {window.scope: window.spent for window in by_limit}


def _scopes_of(hold: Hold) -> list[str]:
    return sorted({key.scope for key in hold.windows})


async def _tell_of_excess(tx: Transaction, hold: Hold, billed_nano_usd: int | None) -> None:
    if billed_nano_usd is not None and billed_nano_usd > hold.held_nano_usd:
        await tx.record(
            f"hold-{hold.hold_id}",
            HoldExceeded(
                hold_id=hold.hold_id,
                held_nano_usd=hold.held_nano_usd,
                billed_nano_usd=billed_nano_usd,
                at=tx.now,
            ),
        )


def _add_row(ends: Ends, usage: Usage, hold: Hold | None, *, billed: int | None = None) -> None:
    """The ledger's row of a call. One that was refused held nothing; the same refusal again gets the same row."""
    if hold is None:
        hold = Hold(f"refused-{usage.call_id}", "", "void", 0, 0, usage.started_at, charged_nano_usd=0)
    row = _row(usage, hold, billed)
    ends.rows.append(row)
    ends.persons.append(ledger.person_of(usage, row))


def _row(usage: Usage, hold: Hold, billed: int | None = None) -> ledger.Row:
    return ledger.row_of(
        usage,
        hold_id=hold.hold_id,
        admitted_at=hold.admitted_at,
        scopes=_scopes_of(hold),
        held_nano_usd=hold.held_nano_usd,
        billed_nano_usd=billed,
        spend_nano_usd=hold.charged_nano_usd or 0,
    )


async def _record(tx: Transaction, ends: Ends) -> None:
    """Store all of it; what is in the ledger already is not in the digest again."""
    await ledger.add_months(tx, ledger.months_of(ends.rows) - tx.own.ledger_months)
    added = await holds.store_settled(tx, ends)
    new = list({row["hold_id"]: row for row in ends.rows if row["hold_id"] in added}.values())
    if new:
        settled = UsageSettled(
            count=len(new),
            total_nano_usd=sum(row["spend_nano_usd"] for row in new),
            digest=ledger.digest(new),
            settled_at=tx.now,
        )
        await tx.record(f"usage-{tx.now.astimezone(UTC):%Y-%m-%d}", settled)


async def _tell_of(tx: Transaction, ends: Ends) -> None:
    ends.windows |= {window.key: window for window in await _tell(tx, ends.windows.values())}


async def _tell(tx: Transaction, windows: Collection[Window]) -> list[Window]:
    """Record what is to be told of the windows' spend; they remember it."""
    told = []
    for window in windows:
        remembering, news = rows.tell(window, tx.settings.budget_thresholds, tx.now)
        told.append(remembering)
        for event in news:
            await tx.record(f"window-{window.scope}", event)
    return told


async def write_off_holds(tx: Transaction, *, limit: int) -> int:
    """Charge ``limit`` holds of lost workers at most all that they held, as presumed. Returns how many there were."""
    forlorn = await holds.list_forlorn(tx, tx.now - GRACE, limit)
    if not forlorn:
        return 0
    known, windows = await holds.load(tx, forlorn)
    ends = Ends(windows)
    for hold in known.values():
        if hold.state == "open":
            await _write_off(tx, ends, hold)
    await _tell_of(tx, ends)
    await holds.store_written_off(tx, ends)
    return len(forlorn)


async def _write_off(tx: Transaction, ends: Ends, hold: Hold) -> None:
    for key in hold.windows:
        ends.windows[key] = rows.write_off(ends.windows[key], held=hold.held_nano_usd)
    for scope in _scopes_of(hold):
        ends.spend(scope, hold.held_nano_usd, hold.admitted_at)
    ended = replace(hold, state="written_off", ended_at=tx.now, charged_nano_usd=hold.held_nano_usd)
    ends.holds[hold.hold_id] = ended
    ends.rows.append(_row(await _unknown_usage(tx, hold, PRESUMED), ended))


async def _unknown_usage(tx: Transaction, hold: Hold, message: str) -> Usage:
    """What is known of a call that nobody told of: when it was admitted, and under what."""
    owners = dict(scope.split(":", 1) for scope in _scopes_of(hold) if ":" in scope)
    key = await read_model.find_key(tx, key_id=owners["key"], token="") if "key" in owners else None
    return Usage(
        call_id=hold.hold_id,
        request_id=hold.hold_id,
        call_type="",
        status="failure",
        token=key.token if key else "",
        key_id=owners.get("key"),
        key_alias=None,
        user_id=owners.get("user") or (key.user_id if key else None),
        model="",
        model_group="",
        model_id="",
        provider="",
        started_at=hold.admitted_at,
        first_token_at=hold.admitted_at,
        ended_at=hold.admitted_at,
        error_class="UsageUnknown",
        error_message=message,
    )


# Totals


async def publish_totals(tx: Transaction, *, limit: int) -> int:
    """Tell the other services of ``limit`` scopes at most what they spent. Returns how many there were."""
    changed = await scopes.take_changed(tx, limit)
    if not changed:
        return 0
    windows = await scopes.load_windows(tx, [total.scope for total in changed])
    totals = tuple(_total(total, windows[total.scope]) for total in changed)
    await tx.record("totals", SpendTotalsPublished(totals=totals, published_at=tx.now))
    return len(changed)


def _total(total: scopes.Total, window: Window) -> ScopeTotal:
    return ScopeTotal(
        scope=total.scope,
        window_start=window.key.start if window.resets_at else None,
        window_end=window.resets_at,
        window_spent_nano_usd=window.spent,
        total_spent_nano_usd=total.spent_nano_usd,
        last_used_at=total.last_used_at,
    )


# Upkeep


async def add_ledger_months(tx: Transaction) -> set[date]:
    """Make the ledger's months before they begin. Returns them."""
    months = ledger.months_ahead(tx.now)
    await ledger.add_months(tx, months)
    return set(months)


async def forget_old(tx: Transaction) -> None:
    """What nobody asks about any more: holds that ended long ago, and workers of whom nothing is left."""
    await holds.forget_old(tx)
    await workers.forget_gone(tx)
