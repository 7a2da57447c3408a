"""The relay: publishes a service's committed events to JetStream, in position order, at least once."""

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from shared.event_store import COLUMNS, recorded_from

if TYPE_CHECKING:
    from shared.service import Running

log = structlog.get_logger()

BATCH = 200
IDLE_SECONDS = 1.0  # a NOTIFY wakes the relay; this is only for one that got lost
RETRY_SECONDS = 0.5


async def relay(running: "Running[Any]") -> None:
    """Publish for ever. A commit's NOTIFY wakes it; whatever fails is tried again."""
    committed = asyncio.Event()
    while True:
        try:
            connection = await asyncpg.connect(running.dsn, server_settings={"search_path": running.service.name})
            try:
                await connection.add_listener(f"{running.service.name}_events", lambda *_: committed.set())
                await running.wire.declare_stream()
                while not connection.is_closed():
                    committed.clear()
                    while await publish_next(running, connection) == BATCH:
                        pass
                    if not await _set_within(committed, IDLE_SECONDS):
                        # NATS may have lost all it held, and nobody can follow what is not there.
                        await running.wire.declare_stream()
            finally:
                await connection.close(timeout=1)
        except Exception as fault:  # noqa: BLE001 - PostgreSQL or NATS is away: nothing is lost, it is only late
            log.warning("relay.interrupted", service=running.service.name, fault=repr(fault))
            await asyncio.sleep(RETRY_SECONDS)


async def publish_next(running: "Running[Any]", connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Publish the next events that were not, ``BATCH`` at most. Returns how many.

    They are sent without waiting for one another: a subscriber that sees a gap reads the log.
    """
    published = await connection.fetchval("select published from relay")
    rows = await connection.fetch(
        f"select {COLUMNS} from events where position > $1 order by position limit {BATCH}", published
    )
    if rows and running.relay_delay_seconds:
        await asyncio.sleep(running.relay_delay_seconds)
    catalog = running.service.catalog
    await asyncio.gather(*(running.wire.publish(recorded_from(tuple(row), catalog)) for row in rows))
    if rows:
        await connection.execute(
            "update relay set published = $1 where published = $2", rows[-1]["position"], published
        )
    return len(rows)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
