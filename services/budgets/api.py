"""The routes of budgets: what calls cost (§3.8), and what is left of a budget."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from services.budgets import ledger, read_model, scopes
from services.budgets.domain.budget import Budget
from services.budgets.domain.window import Window
from services.budgets.ledger import UsageFilter, UsageRow
from services.budgets.settings import BudgetsSettings
from services.budgets.spend_row import SpendDay, SpendRow, spend_days, spend_row
from services.identity.requests import OpenedEmails, OpenEmails
from shared import values
from shared.answers import Answer, JsonAnswer
from shared.body import StrictRoute
from shared.errors import Refused
from shared.event_store import Transaction
from shared.money import Usd
from shared.permissions import NotYours, Operation
from shared.principal import Principal, may, running
from shared.secret import token_of
from shared.service import Running
from shared.values import Day, Id, Name

router = APIRouter(route_class=StrictRoute, tags=["budgets"])

Budgets = Annotated[Running[BudgetsSettings], Depends(running("budgets"))]

ROWS_MAX = 1000
TRUNCATED = {"x-litellm-spend-logs-truncated": "true"}
PROXY = "proxy"


class NotFound(Refused):
    """Nobody has it, and the caller may see all of its kind."""

    reason = "not_found"


class RangeMalformed(Refused):
    """It ends before it begins."""

    reason = "range_malformed"


class SpendLogsQuery(values.Query):
    """Which calls. Dates are days in UTC, both included."""

    api_key: Name | None = None
    user_id: Id | None = None
    request_id: Name | None = None
    start_date: Day | None = None
    end_date: Day | None = None
    summarize: bool = True


class BudgetWindow(Answer):
    """``pending_limit`` shows a lowered limit while open holds take more than it."""

    budget_duration: str | None
    window_start: datetime | None
    window_end: datetime | None
    limit: Usd | None
    spent: Usd
    presumed: Usd
    leased: Usd
    remaining: Usd | None
    pending_limit: Usd | None


class ScopeBudget(Answer):
    """A scope's budget, and its window now. Without a duration it never resets, and the window has no ends."""

    scope: str
    enforcement: Literal["strict"] = "strict"
    windows: list[BudgetWindow]


@router.get("/spend/logs", response_model=list[SpendRow] | list[SpendDay])
async def list_spend_logs(
    budgets: Budgets,
    principal: Annotated[Principal, may(Operation.SPEND_LOGS)],
    query: Annotated[SpendLogsQuery, Query()],
) -> Response:
    """What calls cost, newest first; with both dates, unless `summarize` is false, a row a day."""
    if query.start_date and query.end_date and query.end_date < query.start_date:
        raise RangeMalformed("end_date is before start_date", param="end_date")
    if query.summarize and query.start_date and query.end_date:
        return JsonAnswer(spend_days(await budgets.run(_sum_by_day, principal, query)))
    rows = await budgets.run(_list_usage, principal, query)
    shown = rows[:ROWS_MAX]
    emails = await _emails(budgets, shown)
    headers = TRUNCATED if len(rows) > ROWS_MAX else None
    return JsonAnswer([spend_row(row, emails) for row in shown], headers=headers)


@router.get("/keystead/v1/budgets/{scope:path}", response_model=ScopeBudget)
async def get_budget(
    budgets: Budgets, principal: Annotated[Principal, may(Operation.BUDGET_READ)], scope: str
) -> Response:
    """What a scope may spend, has spent and holds: `key:<key_id>`, `user:<id>` or `proxy`, percent-encoded."""
    await budgets.fence({"identity", "keys"})  # its limits and its owner are others' to say

    async def look(tx: Transaction) -> ScopeBudget:
        await _require_scope(tx, principal, scope)
        budget, window = await scopes.find_window(tx, scope)
        return ScopeBudget(scope=scope, windows=[_budget_window(budget, window)])

    return JsonAnswer(await budgets.run(look, fenced=True))


async def _list_usage(tx: Transaction, principal: Principal, query: SpendLogsQuery) -> list[UsageRow]:
    wanted = await _filter(tx, principal, query)
    rows = await ledger.list_usage(tx, wanted, ROWS_MAX + 1)
    if not rows and wanted.token is not None:
        await _require_used(tx, wanted)
    return rows


async def _sum_by_day(tx: Transaction, principal: Principal, query: SpendLogsQuery) -> Sequence[ledger.DaySpend]:
    wanted = await _filter(tx, principal, query)
    sums = await ledger.sum_by_day(tx, wanted)
    if not sums and wanted.token is not None:
        await _require_used(tx, wanted)
    return sums


async def _filter(tx: Transaction, principal: Principal, query: SpendLogsQuery) -> UsageFilter:
    """A filter by the id of what the caller may not see is refused, never an empty list (§5.10)."""
    sees_all = principal.reaches_all(Operation.SPEND_LOGS)
    if query.user_id is not None:
        principal.require(Operation.SPEND_LOGS, owner_id=query.user_id)
        if sees_all:
            await _require_user(tx, query.user_id)
    wanted = UsageFilter(
        user_id=query.user_id if sees_all else principal.user_id,
        request_id=query.request_id,
        started_from=_midnight(query.start_date),
        started_before=_midnight(_day_after(query.end_date)),
    )
    return wanted if query.api_key is None else await _with_key(tx, principal, query.api_key, wanted)


async def _with_key(tx: Transaction, principal: Principal, name: str, wanted: UsageFilter) -> UsageFilter:
    """``name`` is a key, its hash or its key_id; or the master key, with which calls are made, too."""
    token = token_of(name) if name.startswith("sk-") else name
    key = await read_model.find_key(tx, key_id=name, token=token)
    if key is not None and (principal.reaches_all(Operation.SPEND_LOGS) or key.user_id == principal.user_id):
        return replace(wanted, key_id=key.key_id)
    tx.rests_on.add("keys")
    if not principal.reaches_all(Operation.SPEND_LOGS):
        raise NotYours("api_key: it is not yours, or does not exist", param="api_key")
    return replace(wanted, token=token)


async def _require_used(tx: Transaction, wanted: UsageFilter) -> None:
    """Raises ``NotFound`` for a credential that is no key, and that nobody called with."""
    if not await ledger.list_usage(tx, UsageFilter(token=wanted.token), 1):
        raise NotFound("api_key: there is no such key", param="api_key")


async def _require_user(tx: Transaction, user_id: str) -> None:
    if not await read_model.user_exists(tx, user_id):
        tx.rests_on.add("identity")
        raise NotFound("user_id: there is no such user", param="user_id")


async def _require_scope(tx: Transaction, principal: Principal, scope: str) -> None:
    """Raises 404 or 403 unless there is such a scope and the caller may see it (§1.4)."""
    kind, _, name = scope.partition(":")
    known, owner_id = scope == PROXY, None
    if kind == "key" and (key := await read_model.find_key(tx, key_id=name, token="")):
        known, owner_id = True, key.user_id
    elif kind == "user" and await read_model.user_exists(tx, name):
        known, owner_id = True, name
    if not known and principal.reaches_all(Operation.BUDGET_READ):
        raise NotFound("scope: there is no such key, user or proxy", param="scope")
    principal.require(Operation.BUDGET_READ, owner_id=owner_id)


def _budget_window(budget: Budget, window: Window) -> BudgetWindow:
    return BudgetWindow(
        budget_duration=budget.budget_duration,
        window_start=window.key.start if window.resets_at else None,
        window_end=window.resets_at,
        limit=window.limit,
        spent=window.spent,
        presumed=window.presumed,
        leased=window.leased,
        remaining=None if window.limit is None else max(0, window.free),
        pending_limit=window.limit if window.pending else None,
    )


async def _emails(budgets: Running[Any], rows: Sequence[UsageRow]) -> dict[str, str]:
    user_ids = {row.row["user_id"] for row in rows} - {None}
    if not user_ids:
        return {}
    question = OpenEmails(user_ids=tuple(sorted(user_ids)))
    return (await budgets.wire.ask("identity", question, OpenedEmails)).emails


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def _day_after(day: date | None) -> date | None:
    return None if day in (None, date.max) else day + timedelta(days=1)
