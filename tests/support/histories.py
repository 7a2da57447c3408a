"""Histories that chance draws: how many, and what must be true of every log and read model whatever happened."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
from hypothesis import HealthCheck, Phase, settings
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.event_store import Transaction
from shared.events import Event
from shared.schema import async_url, role_of
from shared.service import Service

HISTORIES = int(os.environ.get("KEYSTEAD_TEST_HISTORIES", "0"))
# A vain wait ends in the kernel's own time-outs; this is for a run of thousands.
TIMEOUT_SECONDS = 24 * 3600 if HISTORIES else 300


def histories(few: int) -> settings:
    """The same ``few`` histories in each run; KEYSTEAD_TEST_HISTORIES=1000 tries that many others, and shrinks."""
    unbounded = settings(
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    if HISTORIES:
        return settings(unbounded, max_examples=HISTORIES)
    return settings(unbounded, max_examples=few, derandomize=True, phases=[Phase.generate])


@dataclass(frozen=True)
class Entry:
    """An event in a log, as its owner sees it."""

    position: int
    id: str
    stream: str
    version: int
    type: str
    schema_version: int
    data: dict[str, Any]
    correlation_id: str
    causation_id: str | None
    recorded_at: datetime


Log = Sequence[Entry]


async def log_of(owner: "asyncpg.Connection[asyncpg.Record]", service: str) -> Log:
    """A service's whole log."""
    rows = await owner.fetch(
        "select position, id::text, stream, version, type, schema_version, data::text, correlation_id, causation_id,"
        f" recorded_at from {service}.events order by position"
    )
    return [Entry(**{**row, "data": json.loads(row["data"])}) for row in rows]


def check_log(service: str, log: Log) -> None:
    """Positions and versions have no gap, and times never go back."""
    assert [entry.position for entry in log] == list(range(1, len(log) + 1)), f"{service}: positions"
    times = [entry.recorded_at for entry in log]
    assert times == sorted(times), f"{service}: times go back"
    versions: dict[str, list[int]] = defaultdict(list)
    for entry in log:
        versions[entry.stream].append(entry.version)
    for stream, of_stream in versions.items():
        assert of_stream == list(range(1, len(of_stream) + 1)), f"{service}: versions of {stream}"


def check_reactions(heard: Log, caused: Log, reacts: Callable[[Entry], bool], what: str) -> None:
    """Each event of ``heard`` that is reacted to has one reaction in ``caused``, in the same order."""
    expected = [entry.id for entry in heard if reacts(entry)]
    reactions = [entry.causation_id for entry in caused if entry.causation_id]
    assert reactions == expected, f"{what}: not one reaction each, in order"


@dataclass(frozen=True)
class Scratch:
    """A schema in which a service's read models are folded anew, beside its own."""

    service: Service[Any]
    settings: Any
    owner_url: str
    dsn: str

    @property
    def schema(self) -> str:
        return f"{self.service.name}_folded"


async def check_fold(scratch: Scratch) -> None:
    """Every read model of the service is, row by row, what its projection makes of what was heard of the logs."""
    owner = await asyncpg.connect(scratch.owner_url)
    try:
        await owner.execute(f"create schema {scratch.schema} authorization {role_of(scratch.service.name)}")
        async with owner.transaction(isolation="repeatable_read"):
            events = await _heard(owner, scratch.service)
            await _fold(scratch, events)
        for projection in scratch.service.projections:
            for table in projection.tables:
                await _check_same(owner, scratch, table.name)
    finally:
        await owner.close()


async def _heard(owner: "asyncpg.Connection[asyncpg.Record]", service: Service[Any]) -> list[tuple[str, Event]]:
    """Of each source the events up to where the service has applied them."""
    events = []
    for catalog in (service.catalog, *(subscription.catalog for subscription in service.subscriptions)):
        source = catalog.service
        heard = await owner.fetchval(f"select position from {service.name}.subscriptions where source = $1", source)
        log = await log_of(owner, source)
        for entry in log[:heard]:  # of one's own, which one does not hear, all
            events.append((source, catalog.load(entry.type, entry.schema_version, entry.data)))
    return events


async def _fold(scratch: Scratch, events: Sequence[tuple[str, Event]]) -> None:
    path = f"{scratch.schema},{scratch.service.name}"
    engine = create_async_engine(
        async_url(scratch.dsn), connect_args={"server_settings": {"search_path": path}}, poolclass=NullPool
    )

    async def nothing(_: Transaction, __: Event) -> None:
        """A projection adds no events."""

    async with engine.begin() as connection:
        tables = [table for projection in scratch.service.projections for table in projection.tables]
        await connection.run_sync(scratch.service.metadata.create_all, tables=tables, checkfirst=False)
        tx = Transaction(connection, scratch.service.catalog, nothing, datetime.now(UTC), settings=scratch.settings)
        for source, event in events:
            for projection in scratch.service.projections:
                if projection.source == source:
                    await projection.project(tx, event)
    await engine.dispose()


async def _check_same(owner: "asyncpg.Connection[asyncpg.Record]", scratch: Scratch, table: str) -> None:
    live, folded = f"{scratch.service.name}.{table}", f"{scratch.schema}.{table}"
    for one, other in ((live, folded), (folded, live)):
        more = await owner.fetch(f"select * from {one} except all select * from {other}")
        assert not more, f"{one} has rows that {other} has not: {[dict(row) for row in more]}"
