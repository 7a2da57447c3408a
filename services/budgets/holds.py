"""The rows of holds: what calls under way may cost, and how they ended."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from services.budgets import ledger
from services.budgets.domain.window import Window, WindowKey
from services.budgets.scopes import WINDOW_COLUMNS, store, window_from, windows_json
from services.budgets.statements import execute, fetch
from shared.event_store import Transaction

State = Literal["open", "settled", "written_off", "void"]

# How long an ended hold is remembered, for who asks again.
KEPT = timedelta(days=7)

KNOWN = """
    select coalesce((select array_agg(worker_id) from workers where worker_id = any($2::text[]) and not gone), '{}'),
           (select jsonb_agg(jsonb_build_array(hold_id, state, held_nano_usd, output_cap, admitted_at))
              from holds where hold_id = any($1::text[]))::text
"""
PLACE = f"""
    with windows_ as ({store("$1")}),
         holds_ as (
        insert into holds (hold_id, worker_id, state, held_nano_usd, output_cap, admitted_at)
        select hold_id, worker_id, 'open', held_nano_usd, output_cap, admitted_at
          from jsonb_to_recordset($2::jsonb)
            as n(hold_id text, worker_id text, held_nano_usd bigint, output_cap bigint, admitted_at timestamptz))
    insert into hold_windows (hold_id, scope, window_start, window_end)
    select hold_id, scope, window_start, window_end
      from jsonb_to_recordset($3::jsonb)
        as n(hold_id text, scope text, window_start timestamptz, window_end timestamptz)
"""

# A hold never changes its scopes, so those may be looked up before they are locked.
LOCK_SCOPES = """
    select scope from scopes
     where scope in (select scope from hold_windows where hold_id = any($1::text[])) order by scope for update
"""
LOAD = """
    select h.hold_id, h.worker_id, h.state, h.held_nano_usd, h.output_cap, h.admitted_at, h.ended_at,
           h.charged_nano_usd, h.window_spent::text, hw.scope, hw.window_start, hw.window_end
      from holds h left join hold_windows hw on hw.hold_id = h.hold_id
     where h.hold_id = any($1::text[])
     order by h.hold_id, hw.scope, hw.window_end, hw.window_start
       for update of h
"""
LOAD_WINDOWS = f"""
    select {WINDOW_COLUMNS} from windows w
     where (w.scope, w.window_end, w.window_start)
        in (select scope, window_end, window_start from hold_windows where hold_id = any($1::text[]))
"""

VOID = """
    insert into holds (hold_id, worker_id, state, held_nano_usd, output_cap, admitted_at, ended_at, charged_nano_usd)
    select hold_id, '', 'void', 0, 0, $2, $2, 0 from unnest($1::text[]) as n(hold_id)
    on conflict do nothing returning hold_id
"""

_END = f"""
    with windows_ as ({store("$1")}),
         totals as (
        update scopes s
           set total_spent_nano_usd = s.total_spent_nano_usd + n.spent,
               last_used_at = greatest(s.last_used_at, n.used_at), changed = true
          from jsonb_to_recordset($2::jsonb) as n(scope text, spent bigint, used_at timestamptz)
         where s.scope = n.scope),
         holds_ as (
        insert into holds as h (hold_id, worker_id, state, held_nano_usd, output_cap, admitted_at, ended_at,
                                charged_nano_usd, window_spent)
        select * from jsonb_to_recordset($3::jsonb)
            as n(hold_id text, worker_id text, state text, held_nano_usd bigint, output_cap bigint,
                 admitted_at timestamptz, ended_at timestamptz, charged_nano_usd bigint, window_spent jsonb)
        on conflict (hold_id) do update
           set state = excluded.state, ended_at = excluded.ended_at, charged_nano_usd = excluded.charged_nano_usd,
               window_spent = excluded.window_spent)
"""
SETTLE = f"""
    {_END},
         released as (delete from hold_windows where hold_id = any($4::text[])),
         proven as (delete from presumed_usage where hold_id = any($4::text[])),
         persons as ({ledger.add_persons("$5")})
    {ledger.add_rows("ledger", "$6")} returning hold_id
"""
WRITE_OFF = f"{_END} {ledger.add_rows('presumed_usage', '$4')}"

FORLORN = """
    select h.hold_id from holds h
     where h.state = 'open'
       and not exists (
        select from workers w where w.worker_id = h.worker_id and (not w.gone or w.renewed_at > $1))
     order by h.hold_id limit $2
"""
FORGET = "delete from holds where state in ('settled', 'void') and ended_at < $1"


@dataclass(frozen=True, slots=True)
class Hold:
    """What one call may cost at most, and once it ended what it did. ``window_spent`` is what was answered then."""

    hold_id: str
    worker_id: str
    state: State
    held_nano_usd: int
    output_cap: int
    admitted_at: datetime
    ended_at: datetime | None = None
    charged_nano_usd: int | None = None
    window_spent: Mapping[str, int] = field(default_factory=dict)
    windows: tuple[WindowKey, ...] = ()


@dataclass(slots=True)
class Ends:
    """What the ends of some holds change, in the order in which they are decided."""

    windows: dict[WindowKey, Window]
    holds: dict[str, Hold] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    used_at: dict[str, datetime] = field(default_factory=dict)
    rows: list[ledger.Row] = field(default_factory=list)
    persons: list[ledger.Row] = field(default_factory=list)

    def spend(self, scope: str, amount: int, used_at: datetime) -> None:
        """``amount`` more, or less, since the scope began to exist."""
        self.spent[scope] = self.spent.get(scope, 0) + amount
        self.used_at[scope] = max(used_at, self.used_at.get(scope, used_at))


async def find_known(
    tx: Transaction, hold_ids: Sequence[str], worker_ids: Iterable[str]
) -> tuple[dict[str, Hold], set[str]]:
    """Those of the holds that were placed, or settled, before; and those of the workers that live."""
    ((live, known),) = await fetch(tx, KNOWN, list(hold_ids), list(set(worker_ids)))
    holds = (
        Hold(hold_id, "", state, held, cap, datetime.fromisoformat(at))
        for hold_id, state, held, cap, at in json.loads(known or "[]")
    )
    return {hold.hold_id: hold for hold in holds}, set(live)


async def store_placed(tx: Transaction, windows: Iterable[Window], placed: Sequence[Hold]) -> None:
    """New holds, and the windows in which they hold."""
    holds = [
        {
            "hold_id": hold.hold_id,
            "worker_id": hold.worker_id,
            "held_nano_usd": hold.held_nano_usd,
            "output_cap": hold.output_cap,
            "admitted_at": hold.admitted_at.isoformat(),
        }
        for hold in placed
    ]
    places = [
        {
            "hold_id": hold.hold_id,
            "scope": key.scope,
            "window_start": key.start.isoformat(),
            "window_end": key.end.isoformat(),
        }
        for hold in placed
        for key in hold.windows
    ]
    await execute(tx, PLACE, windows_json(windows), json.dumps(holds), json.dumps(places))


async def load(tx: Transaction, hold_ids: Sequence[str]) -> tuple[dict[str, Hold], dict[WindowKey, Window]]:
    """Those of the holds that are known, and the windows in which they hold; all of their scopes locked."""
    ids = list(hold_ids)
    await execute(tx, LOCK_SCOPES, ids)
    holds: dict[str, Hold] = {}
    for row in await fetch(tx, LOAD, ids):
        hold_id, worker_id, state, held, cap, admitted_at, ended_at, charged, window_spent, scope, start, end = row
        hold = holds.get(hold_id) or Hold(
            hold_id, worker_id, state, held, cap, admitted_at, ended_at, charged, json.loads(window_spent or "{}")
        )
        key = () if scope is None else (WindowKey(scope, start, end),)
        holds[hold.hold_id] = replace(hold, windows=hold.windows + key)
    windows = [window_from(row) for row in await fetch(tx, LOAD_WINDOWS, ids)]
    return holds, {window.key: window for window in windows}


async def load_to_settle(tx: Transaction, hold_ids: Sequence[str]) -> tuple[dict[str, Hold], dict[WindowKey, Window]]:
    """The same, and nobody places those that are not known any more.

    One that is being placed this very moment is waited for, and then it is known.
    """
    holds, windows = await load(tx, hold_ids)
    missing = sorted(set(hold_ids) - holds.keys())
    if not missing:
        return holds, windows
    voided = {row[0] for row in await fetch(tx, VOID, missing, tx.now)}
    if len(voided) < len(missing):
        holds, windows = await load(tx, hold_ids)
    return {hold_id: hold for hold_id, hold in holds.items() if hold_id not in voided}, windows


async def store_settled(tx: Transaction, ends: Ends) -> set[str]:
    """What was settled. Returns the hold ids of the ledger's new rows."""
    rows = await fetch(tx, SETTLE, *_ends(ends), list(ends.holds), json.dumps(ends.persons), json.dumps(ends.rows))
    return {row[0] for row in rows}


async def store_written_off(tx: Transaction, ends: Ends) -> None:
    """What was written off: the rows are presumed, and the holds remember where they held."""
    await execute(tx, WRITE_OFF, *_ends(ends), json.dumps(ends.rows))


async def list_forlorn(tx: Transaction, silent_since: datetime, limit: int) -> list[str]:
    """Open holds of workers that are gone and were last heard of before ``silent_since``."""
    return [row[0] for row in await fetch(tx, FORLORN, silent_since, limit)]


async def forget_old(tx: Transaction) -> None:
    """Holds that ended so long ago that nobody asks again."""
    await execute(tx, FORGET, tx.now - KEPT)


def _ends(ends: Ends) -> tuple[str, str, str]:
    totals = [
        {"scope": scope, "spent": spent, "used_at": ends.used_at[scope].isoformat()}
        for scope, spent in ends.spent.items()
    ]
    holds = [
        {
            "hold_id": hold.hold_id,
            "worker_id": hold.worker_id,
            "state": hold.state,
            "held_nano_usd": hold.held_nano_usd,
            "output_cap": hold.output_cap,
            "admitted_at": hold.admitted_at.isoformat(),
            "ended_at": hold.ended_at.isoformat() if hold.ended_at else None,
            "charged_nano_usd": hold.charged_nano_usd,
            "window_spent": dict(hold.window_spent),
        }
        for hold in ends.holds.values()
    ]
    return windows_json(ends.windows.values()), json.dumps(totals), json.dumps(holds)
