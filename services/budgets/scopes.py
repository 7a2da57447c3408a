"""The rows of scopes and their windows: locked, loaded, opened and stored. The rules are the domain's."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.budgets.domain.budget import Budget
from services.budgets.domain.window import Window, WindowKey, set_limit, window_at
from services.budgets.statements import execute, fetch
from shared.event_store import Transaction

WINDOW_COLUMNS = """
    w.scope, w.window_start, w.window_end, w.limit_nano_usd, w.spent_nano_usd, w.leased_nano_usd, w.presumed_nano_usd,
    w.ceiling_nano_usd, w.reached, w.exhausted
"""
_WINDOW_RECORD = """
    n(scope text, window_start timestamptz, window_end timestamptz, limit_nano_usd bigint, spent_nano_usd bigint,
      leased_nano_usd bigint, presumed_nano_usd bigint, ceiling_nano_usd bigint, reached double precision[],
      exhausted boolean)
"""

LOCK = "select scope from scopes where scope = any($1::text[]) order by scope for update"
ADD = "insert into scopes (scope) select unnest($1::text[]) on conflict do nothing"

LOAD = f"""
    select s.scope, b.max_budget_nano_usd, b.budget_duration, b.set_at, {WINDOW_COLUMNS}
      from unnest($1::text[]) as s (scope)
      left join budgets_1 b on b.scope = s.scope
      left join windows w on w.scope = s.scope and w.window_end > $2 and w.window_start <= $2
"""

# What the scope was charged for calls admitted in the window, by what a row of the ledger is found by: key, user, all.
OPEN = f"""
    insert into windows as w (scope, window_start, window_end, limit_nano_usd, spent_nano_usd, leased_nano_usd,
                              presumed_nano_usd, ceiling_nano_usd)
    select n.scope, n.window_start, n.window_end, n.limit_nano_usd, charged.spent, held.leased, charged.presumed,
           case when n.limit_nano_usd is not null
                then greatest(n.limit_nano_usd, charged.spent + held.leased) end
      from jsonb_to_recordset($1::jsonb) as {_WINDOW_RECORD}
      cross join lateral (
        select coalesce(sum(u.spend_nano_usd), 0)::bigint as spent,
               coalesce(sum(u.spend_nano_usd) filter (where u.presumed), 0)::bigint as presumed
          from (
            select spend_nano_usd, presumed from usage_rows
             where starts_with(n.scope, 'key:') and key_id = substr(n.scope, 5) and n.scope = any(scopes)
               and admitted_at >= n.window_start and admitted_at < n.window_end
            union all
            select spend_nano_usd, presumed from usage_rows
             where starts_with(n.scope, 'user:') and user_id = substr(n.scope, 6) and n.scope = any(scopes)
               and admitted_at >= n.window_start and admitted_at < n.window_end
            union all
            select spend_nano_usd, presumed from usage_rows
             where not starts_with(n.scope, 'key:') and not starts_with(n.scope, 'user:') and n.scope = any(scopes)
               and admitted_at >= n.window_start and admitted_at < n.window_end
          ) u
      ) charged
      cross join lateral (
        select coalesce(sum(h.held_nano_usd), 0)::bigint as leased
          from holds h
         where h.state = 'open' and h.admitted_at >= n.window_start and h.admitted_at < n.window_end
           and exists (select from hold_windows hw where hw.hold_id = h.hold_id and hw.scope = n.scope)
      ) held
    on conflict (scope, window_end, window_start) do update
       set limit_nano_usd = excluded.limit_nano_usd, spent_nano_usd = excluded.spent_nano_usd,
           leased_nano_usd = excluded.leased_nano_usd, presumed_nano_usd = excluded.presumed_nano_usd,
           ceiling_nano_usd = excluded.ceiling_nano_usd
    returning {WINDOW_COLUMNS}
"""
# From now on those holds hold in the new windows, too.
ATTACH = f"""
    insert into hold_windows (hold_id, scope, window_start, window_end)
    select distinct h.hold_id, n.scope, n.window_start, n.window_end
      from jsonb_to_recordset($1::jsonb) as {_WINDOW_RECORD}
      join hold_windows hw on hw.scope = n.scope
      join holds h on h.hold_id = hw.hold_id and h.admitted_at >= n.window_start and h.admitted_at < n.window_end
    on conflict do nothing
"""

UNLIMIT_OTHERS = """
    update windows set limit_nano_usd = null, ceiling_nano_usd = null
     where scope = $1 and window_end > $2 and (window_start, window_end) <> ($3, $4) and limit_nano_usd is not null
"""

TAKE_CHANGED = """
    update scopes set changed = false
     where scope in (select scope from scopes where changed order by scope limit $1 for update)
    returning scope, total_spent_nano_usd, last_used_at
"""
MARK_CHANGED = "update scopes set changed = true where scope = any($1::text[])"


@dataclass(frozen=True, slots=True)
class Total:
    """What a scope spent since it began to exist."""

    scope: str
    spent_nano_usd: int
    last_used_at: datetime | None


async def lock_scopes(tx: Transaction, scopes: Iterable[str]) -> None:
    """Keep all others from the scopes' windows, holds and charges until the commit. A new scope gets its row."""
    wanted = sorted(set(scopes))
    if await _lock(tx, wanted) < len(wanted):
        await execute(tx, ADD, wanted)
        await _lock(tx, wanted)


async def _lock(tx: Transaction, scopes: list[str]) -> int:
    return len(await fetch(tx, LOCK, scopes))


async def load_windows(tx: Transaction, scopes: Collection[str]) -> dict[str, Window]:
    """Each scope's window that ``tx.now`` falls in, with the limit that is set now. The scopes must be locked."""
    budgets, found = await _read(tx, scopes)
    keys = {scope: window_at(scope, budget, tx.now, tx.settings.timezone) for scope, budget in budgets.items()}
    missing = {key: budgets[key.scope].max_budget_nano_usd for key in keys.values() if key not in found}
    if missing:
        found |= {window.key: window for window in await open_windows(tx, missing)}
    return {scope: _limited(found[key], budgets[scope]) for scope, key in keys.items()}


async def find_window(tx: Transaction, scope: str) -> tuple[Budget, Window]:
    """A scope's budget and window, to be shown: nothing is locked, and a window that nobody used yet is empty."""
    budgets, found = await _read(tx, [scope])
    budget = budgets[scope]
    key = window_at(scope, budget, tx.now, tx.settings.timezone)
    return budget, _limited(found.get(key, Window(key)), budget)


async def open_windows(tx: Transaction, limits: Mapping[WindowKey, int | None]) -> list[Window]:
    """Begin windows with what was charged to calls admitted in them, and with the holds still open of those."""
    records = windows_json(Window(key, limit) for key, limit in limits.items())
    windows = [window_from(row) for row in await fetch(tx, OPEN, records)]
    await execute(tx, ATTACH, records)
    return windows


async def store_windows(tx: Transaction, windows: Iterable[Window]) -> None:
    """Write changed windows back; the scopes are locked since they were loaded."""
    await execute(tx, store(parameter="$1"), windows_json(windows))


def store(parameter: str) -> str:
    """SQL that stores the windows in a parameter made by ``windows_json``."""
    return f"""
        update windows w
           set limit_nano_usd = n.limit_nano_usd, spent_nano_usd = n.spent_nano_usd,
               leased_nano_usd = n.leased_nano_usd, presumed_nano_usd = n.presumed_nano_usd,
               ceiling_nano_usd = n.ceiling_nano_usd, reached = n.reached, exhausted = n.exhausted
          from jsonb_to_recordset({parameter}::jsonb) as {_WINDOW_RECORD}
         where w.scope = n.scope and w.window_end = n.window_end and w.window_start = n.window_start
    """


async def unlimit_others(tx: Transaction, key: WindowKey) -> None:
    """A change of duration: the limit is on the window of the new kind, and on no other that has not ended."""
    await execute(tx, UNLIMIT_OTHERS, key.scope, tx.now, key.start, key.end)


async def take_changed(tx: Transaction, limit: int) -> list[Total]:
    """Up to ``limit`` scopes whose totals changed since they were taken last; taken, and locked, they count as told."""
    return [Total(*row) for row in await fetch(tx, TAKE_CHANGED, limit)]


async def mark_changed(tx: Transaction, scopes: Iterable[str]) -> None:
    """What a scope's totals say has changed, though nothing was spent."""
    await execute(tx, MARK_CHANGED, sorted(scopes))


def window_from(row: Sequence[Any]) -> Window:
    """A window from ``WINDOW_COLUMNS``."""
    scope, start, end, limit, spent, leased, presumed, ceiling, reached, exhausted = row
    return Window(WindowKey(scope, start, end), limit, spent, leased, presumed, ceiling, tuple(reached), exhausted)


async def _read(tx: Transaction, scopes: Collection[str]) -> tuple[dict[str, Budget], dict[WindowKey, Window]]:
    budgets: dict[str, Budget] = {}
    windows: dict[WindowKey, Window] = {}
    for scope, limit, duration, set_at, *columns in await fetch(tx, LOAD, list(scopes), tx.now):
        budgets[scope] = Budget(limit, duration, set_at)
        if columns[0] is not None:
            window = window_from(columns)
            windows[window.key] = window
    return budgets, windows


def _limited(window: Window, budget: Budget) -> Window:
    """A window made by a replica whose clock was ahead may not have heard of the latest limit."""
    if window.limit == budget.max_budget_nano_usd:
        return window
    return set_limit(window, budget.max_budget_nano_usd)


def windows_json(windows: Iterable[Window]) -> str:
    """Windows as the parameter of ``store``."""
    return json.dumps(
        [
            {
                "scope": window.scope,
                "window_start": window.key.start.isoformat(),
                "window_end": window.key.end.isoformat(),
                "limit_nano_usd": window.limit,
                "spent_nano_usd": window.spent,
                "leased_nano_usd": window.leased,
                "presumed_nano_usd": window.presumed,
                "ceiling_nano_usd": window.ceiling,
                "reached": window.reached,
                "exhausted": window.exhausted,
            }
            for window in windows
        ]
    )
