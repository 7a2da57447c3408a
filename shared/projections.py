"""Projections: the tables that events are folded into, so that they can be read."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import MetaData, Table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.dml import Insert

from shared.event_store import Transaction
from shared.events import Event

READ_MODEL_LOCK = 0x72656164


@dataclass(frozen=True, slots=True)
class Projection:
    """A read model: its tables, and how one service's events change them.

    ``source`` is the service whose events are folded; the own service's are folded in the commit that adds them.
    ``project`` is the only writer of the tables, goes by the times inside the events, and may see an event again
    only when the table is built anew.
    """

    name: str
    source: str
    tables: tuple[Table, ...]
    project: Callable[[Transaction, Event], Awaitable[None]]


async def create_tables(engine: AsyncEngine, metadata: MetaData) -> None:
    """Make the tables that are not there yet; a changed read model has a new number, and so new tables."""
    async with engine.begin() as connection:
        await _lock(connection)
        await connection.run_sync(metadata.create_all)


async def _lock(connection: AsyncConnection) -> None:
    # Replicas start at once, and `create table if not exists` is no protection against a race of two.
    await connection.exec_driver_sql("select pg_advisory_xact_lock($1)", (READ_MODEL_LOCK,))


def upsert(table: Table, key: Mapping[str, object], values: Mapping[str, object]) -> Insert:
    """The row of ``key`` gets ``values``, whether it is there or not."""
    statement = insert(table).values(**key, **values)
    return statement.on_conflict_do_update(index_elements=list(key), set_=dict(values or key))
