"""The usage ledger: a row a call, by month, never changed; what its digests are of; and how it is read."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.budgets.requests import Usage
from services.budgets.statements import execute, fetch
from shared.event_store import Transaction

Row = dict[str, Any]

INTEGER_MAX = 2**62  # what an upstream reports may be anything
MONTHS_AHEAD = 2

# In the order of the table; every name with its type, to read JSON as rows.
_TYPES = {
    "admitted_at": "timestamptz",
    "hold_id": "text",
    "call_id": "text",
    "request_id": "text",
    "call_type": "text",
    "status": "text",
    "token": "text",
    "key_id": "text",
    "key_alias": "text",
    "user_id": "text",
    "scopes": "text[]",
    "model": "text",
    "model_group": "text",
    "model_id": "text",
    "provider": "text",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "cache_read_tokens": "bigint",
    "cache_creation_tokens": "bigint",
    "input_nano_usd": "bigint",
    "output_nano_usd": "bigint",
    "held_nano_usd": "bigint",
    "billed_nano_usd": "bigint",
    "spend_nano_usd": "bigint",
    "started_at": "timestamptz",
    "first_token_at": "timestamptz",
    "ended_at": "timestamptz",
    "request_tags": "text[]",
    "session_id": "text",
    "attempted_retries": "bigint",
    "usage_object": "text",
    "error_code": "text",
    "error_class": "text",
    "error_message": "text",
}
COLUMNS = tuple(_TYPES)
_NAMES = ", ".join(COLUMNS)
ROW_RECORD = f"({', '.join(f'{name} {kind}' for name, kind in _TYPES.items())})"
PERSON_RECORD = "(admitted_at timestamptz, hold_id text, user_id text, ip text, user_agent text, end_user text)"


def add_rows(table: str, parameter: str) -> str:
    """SQL that adds the rows in a JSON parameter to the ledger or to what is presumed."""
    source = f"jsonb_to_recordset({parameter}::jsonb) as n{ROW_RECORD}"
    return f"insert into {table} ({_NAMES}) select {_NAMES} from {source} on conflict do nothing"


def add_persons(parameter: str) -> str:
    """SQL that adds what identifies persons."""
    source = f"jsonb_to_recordset({parameter}::jsonb) as n{PERSON_RECORD}"
    return f"insert into ledger_persons select * from {source} on conflict do nothing"


def row_of(
    usage: Usage,
    *,
    hold_id: str,
    admitted_at: datetime,
    scopes: Sequence[str],
    held_nano_usd: int,
    billed_nano_usd: int | None,
    spend_nano_usd: int,
) -> Row:
    """The ledger's row of a call, exactly as it is stored: what can't be stored is replaced."""
    row = {
        name: value
        for name, value in usage.model_dump(exclude={"ip", "user_agent", "end_user", "usage_object"}).items()
        if name in _TYPES
    }
    row |= {
        "admitted_at": admitted_at,
        "hold_id": hold_id,
        "scopes": sorted(scopes),
        "held_nano_usd": held_nano_usd,
        "billed_nano_usd": billed_nano_usd,
        "spend_nano_usd": spend_nano_usd,
        "usage_object": json.dumps(usage.usage_object, sort_keys=True, separators=(",", ":")),
    }
    return {name: _storable(row[name]) for name in COLUMNS}


def person_of(usage: Usage, row: Row) -> Row:
    """What identifies a person in that call; kept beside the ledger."""
    person = {"user_id": usage.user_id, "ip": usage.ip, "user_agent": usage.user_agent, "end_user": usage.end_user}
    return {"admitted_at": row["admitted_at"], "hold_id": row["hold_id"]} | {n: _storable(v) for n, v in person.items()}


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows' canonical form, in hold id order: JSON with sorted names, a row a line, times in UTC."""
    lines = (
        json.dumps(row, sort_keys=True, separators=(",", ":")) for row in sorted(rows, key=lambda row: row["hold_id"])
    )
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def months_of(rows: Iterable[Row]) -> set[date]:
    """The months of the ledger that rows belong to, by their first days."""
    return {date.fromisoformat(row["admitted_at"][:10]).replace(day=1) for row in rows}


async def add_months(tx: Transaction, months: Iterable[date]) -> None:
    """See to it that the ledger has these months."""
    for month in sorted(months):
        await execute(tx, "select add_ledger_month($1)", month)


def months_ahead(now: datetime) -> list[date]:
    """This month, and those that a ledger should have before they begin."""
    months = [now.astimezone(UTC).date().replace(day=1)]
    for _ in range(MONTHS_AHEAD):
        months.append((months[-1] + timedelta(days=31)).replace(day=1))
    return months


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which rows of the ledger. Null asks for any; ``started_before`` is the first instant after."""

    user_id: str | None = None
    key_id: str | None = None
    token: str | None = None
    request_id: str | None = None
    started_from: datetime | None = None
    started_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A call as it is shown; ``presumed`` for one of a lost worker, whose bill nobody knows yet."""

    row: Mapping[str, Any]
    ip: str | None
    user_agent: str | None
    end_user: str
    presumed: bool


@dataclass(frozen=True, slots=True)
class DaySpend:
    """What one key's calls to one model cost a user on one day (UTC)."""

    day: date
    token: str
    user_id: str | None
    model: str
    spend_nano_usd: int


# A condition for each part of a filter that asks for something: so each reading is planned for what it asks for.
# A call is admitted within a day of its start, so dates find the months.
_CONDITIONS = {
    "user_id": "u.user_id = {}",
    "key_id": "u.key_id = {}",
    "token": "u.token = {}",
    "request_id": "u.request_id = {}",
    "started_from": "u.started_at >= {0}::timestamptz and u.admitted_at >= {0}::timestamptz - interval '1 day'",
    "started_before": "u.started_at < {0}::timestamptz and u.admitted_at < {0}::timestamptz + interval '1 day'",
}
LIST = f"""
    select {", ".join(f"u.{name}" for name in COLUMNS)}, u.presumed, p.ip, p.user_agent, coalesce(p.end_user, '')
      from (select * from usage_rows u where {{conditions}}
             order by u.admitted_at desc, u.hold_id desc limit {{limit}}::bigint) u
      left join ledger_persons p on p.admitted_at = u.admitted_at and p.hold_id = u.hold_id
     order by u.started_at desc, u.hold_id desc
"""
SUM_BY_DAY = """
    select (u.started_at at time zone 'utc')::date as day, u.token, u.user_id, u.model, sum(u.spend_nano_usd)::bigint
      from usage_rows u where {conditions}
     group by 1, 2, 3, 4 order by 1, 2, 3, 4
"""


async def list_usage(tx: Transaction, wanted: UsageFilter, limit: int) -> list[UsageRow]:
    """Up to ``limit`` calls, newest first."""
    conditions, parameters = _where(wanted)
    sql = LIST.format(conditions=conditions, limit=f"${len(parameters) + 1}")
    usage = []
    for row in await fetch(tx, sql, *parameters, limit):
        *columns, presumed, ip, user_agent, end_user = row
        usage.append(UsageRow(dict(zip(COLUMNS, columns, strict=True)), ip, user_agent, end_user, presumed))
    return usage


async def sum_by_day(tx: Transaction, wanted: UsageFilter) -> list[DaySpend]:
    """What was spent, by day, key, user and model, oldest first."""
    conditions, parameters = _where(wanted)
    return [DaySpend(*row) for row in await fetch(tx, SUM_BY_DAY.format(conditions=conditions), *parameters)]


def _where(wanted: UsageFilter) -> tuple[str, list[object]]:
    asked = {name: value for name in _CONDITIONS if (value := getattr(wanted, name)) is not None}
    conditions = [_CONDITIONS[name].format(f"${number}") for number, name in enumerate(asked, 1)]
    return " and ".join(conditions) or "true", list(asked.values())


def canonical(row: Mapping[str, Any]) -> Row:
    """A stored row in the form that digests are of."""
    return {name: _storable(row[name]) for name in COLUMNS}


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        case int():
            return min(max(value, -INTEGER_MAX), INTEGER_MAX)
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        case list() | tuple():
            return [_storable(item) for item in value]
    return value
