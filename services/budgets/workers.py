"""The rows of gateway workers: who lives, and how far each has applied the owners' logs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from services.budgets.statements import execute, fetch
from shared.event_store import Transaction

# Rows of workers long gone, once none of their holds is open, say nothing any more.
KEPT = timedelta(days=1)

JOIN = "insert into workers (worker_id, renewed_at) values ($1, $2) on conflict do nothing"
# A late renewal never takes a position back.
RENEW = """
    update workers w
       set number = greatest(w.number, $2) + 1, renewed_at = $3,
           positions = (
            select coalesce(jsonb_object_agg(source, position), '{}')
              from (select source, max(position) as position
                      from (select key as source, value::bigint as position from jsonb_each_text(w.positions)
                            union all
                            select key, value::bigint from jsonb_each_text($4::jsonb)) both_
                     group by source) newest)
     where w.worker_id = $1 and not w.gone
    returning w.number
"""
# Should it overtake the joining, that comes too late.
LEAVE = """
    insert into workers (worker_id, renewed_at, gone) values ($1, $2, true)
    on conflict (worker_id) do update set gone = true, renewed_at = excluded.renewed_at where not workers.gone
"""
LIVE = "select worker_id, number, positions::text from workers where not gone order by worker_id"
GIVE_UP = """
    update workers set gone = true where worker_id = $1 and number = $2 and not gone returning worker_id
"""
FORGET = """
    delete from workers w
     where w.gone and w.renewed_at < $1
       and not exists (select from holds h where h.worker_id = w.worker_id and h.state = 'open')
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """A live worker, the number of its last renewal and what it had applied by then."""

    worker_id: str
    number: int
    positions: Mapping[str, int]

    def has_applied(self, positions: Mapping[str, int]) -> bool:
        """Whether it goes by ``positions``. A source it never names it does not hear, and admits nothing by."""
        heard = self.positions.items()
        return bool(heard) and all(position >= positions.get(source, 0) for source, position in heard)


async def join(tx: Transaction, worker_id: str) -> None:
    """From now on barriers wait for this worker."""
    await execute(tx, JOIN, worker_id, tx.now)


async def renew(tx: Transaction, worker_id: str, number: int, positions: Mapping[str, int]) -> int | None:
    """The number of this renewal; None for a worker that is gone or never joined."""
    rows = await fetch(tx, RENEW, worker_id, number, tx.now, json.dumps(dict(positions)))
    return rows[0][0] if rows else None


async def leave(tx: Transaction, worker_id: str) -> None:
    """It ends in order."""
    await execute(tx, LEAVE, worker_id, tx.now)


async def list_live(tx: Transaction) -> list[Worker]:
    """All workers that barriers wait for."""
    rows = await fetch(tx, LIVE)
    return [Worker(worker_id, number, json.loads(positions)) for worker_id, number, positions in rows]


async def give_up(tx: Transaction, unmoved: Mapping[str, int]) -> list[str]:
    """Mark workers gone whose number is still the one given; their next renewal is not granted. Returns them."""
    given_up = [await fetch(tx, GIVE_UP, worker_id, number) for worker_id, number in sorted(unmoved.items())]
    return [worker_id for rows in given_up for (worker_id,) in rows]


async def forget_gone(tx: Transaction) -> None:
    """Delete the rows that say nothing any more."""
    await execute(tx, FORGET, tx.now - KEPT)
