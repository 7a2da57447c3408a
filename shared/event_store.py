"""The event store: a transaction that loads a stream, decides, and appends what was decided."""

import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import seed as sowing
from shared import trace as tracing
from shared.aggregate import Aggregate
from shared.errors import Refused
from shared.events import Catalog, Event, Recorded
from shared.secret import TokenBytes

State = TypeVar("State")
Command = TypeVar("Command")
E_ = TypeVar("E_", bound=Event)
Project = Callable[["Transaction", Event], Awaitable[None]]

COLUMNS = (
    "position, id::text, stream, version, type, schema_version, data::text,"
    " actor, correlation_id, causation_id, recorded_at"
)
SPAN_BYTES = 512 * 1024  # an answer to ReadLog stays well under NATS's message limit


@dataclass(slots=True)
class Transaction:
    """One transaction of one service. Whatever it does is committed as a whole or not at all.

    ``now`` is the instant the work goes by; ``own`` is whatever the service itself hung on its running self.
    ``seed`` is there for a request that may be repeated, and then ``repeated`` are the streams that it changed before.
    """

    connection: AsyncConnection
    catalog: Catalog
    project: Project
    now: datetime
    settings: Any = None
    own: Any = None
    trace: tracing.Trace = field(default_factory=tracing.current)
    seed: sowing.Seed | None = field(default_factory=sowing.current)
    repeated: set[str] = field(default_factory=set)
    rests_on: set[str] = field(default_factory=set)
    barriers: set[str] = field(default_factory=set)
    carried_out_by: set[str] = field(default_factory=set)
    _pending: list[Recorded] = field(default_factory=list)
    _claims: dict[str, tuple[str, Refused]] = field(default_factory=dict)
    _releases: list[tuple[str, str]] = field(default_factory=list)

    async def load(self, stream: str, aggregate: Aggregate[State, Command, E_]) -> tuple[State, int]:
        """The state of a stream and its version, the transaction's own events included."""
        rows = await self.connection.exec_driver_sql(
            "select type, schema_version, data::text, version from events where stream = $1 order by version", (stream,)
        )
        state, version = aggregate.initial, 0
        for row in rows:
            type_name, schema_version, data, version = _fields(row)
            state = aggregate.evolve(state, self.catalog.load(type_name, schema_version, json.loads(data)))  # type: ignore[arg-type]
        for recorded in self._pending:
            if recorded.stream == stream:
                state = aggregate.evolve(state, recorded.event)  # type: ignore[arg-type]
                version += 1
        return state, version

    async def execute(
        self,
        stream: str,
        aggregate: Aggregate[State, Command, E_],
        command: Command,
        *,
        claims: Mapping[str, Refused] | None = None,
        releases: Sequence[str] = (),
    ) -> Sequence[E_]:
        """Decide ``command`` on ``stream`` and keep what was decided for the commit.

        ``claims`` are names that must be nobody else's, each with what the client is told if it is taken;
        ``releases`` are given back. Neither is touched if nothing was decided.

        A request that was cut off after its commit comes again with the same seed: what it decided then is returned,
        and nothing is decided anew.
        """
        state, version = await self.load(stream, aggregate)
        # Looked for after the loading: what is committed later than this conflicts with the version.
        if self.seed is not None and (before := await self._decided_before(stream, self.seed)):
            self.repeated.add(stream)
            return before  # type: ignore[return-value]
        events = aggregate.decide(state, command)
        if events:
            self._claims |= {claim: (stream, refused) for claim, refused in (claims or {}).items()}
            self._releases += [(claim, stream) for claim in releases]
        for number, event in enumerate(events, version + 1):
            await self._add(stream, number, event)
        return events

    async def _decided_before(self, stream: str, seed: sowing.Seed) -> list[Event]:
        rows = await self.connection.exec_driver_sql(
            "select type, schema_version, data::text from events where stream = $1 and causation_id = $2"
            " order by version",
            (stream, seed.command_id),
        )
        return [
            self.catalog.load(type_name, version, json.loads(data)) for type_name, version, data in map(_fields, rows)
        ]

    def draw(self, purpose: str) -> TokenBytes:
        """Random bytes; for a request that may be repeated the same ones again, for the same ``purpose``."""
        return secrets.token_bytes if self.seed is None else self.seed.token_bytes(purpose)

    async def record(self, stream: str, event: Event) -> None:
        """Append a fact that nothing was decided for, at the end of ``stream``, wherever that is."""
        await self._add(stream, 0, event)

    async def _add(self, stream: str, version: int, event: Event) -> None:
        self._pending.append(
            Recorded(
                id=str(uuid.uuid4()),
                service=self.catalog.service,
                stream=stream,
                version=version,
                position=0,
                recorded_at=self.now,
                actor=self.trace.actor,
                correlation_id=self.trace.correlation_id,
                causation_id=self.trace.causation_id,
                event=event,
            )
        )
        await self.project(self, event)

    async def flush(self) -> int | None:
        """Write claims, then take the log's lock and append: the transaction's last step. The last position, if any."""
        # In one order, whoever releases or takes: two that cross must not deadlock.
        for claim in sorted({claim for claim, _ in self._releases} | set(self._claims)):
            for stream in (stream for released, stream in self._releases if released == claim):
                await self.connection.exec_driver_sql(
                    "delete from claims where claim = $1 and stream = $2", (claim, stream)
                )
            if claim in self._claims:
                await self._take(claim, *self._claims[claim])
        if not self._pending:
            return None
        batch = json.dumps([_item(recorded) for recorded in self._pending])
        position: int = (
            await self.connection.exec_driver_sql("select append_events($1::jsonb)", (batch,))
        ).scalar_one()
        return position

    async def _take(self, claim: str, stream: str, refused: Refused) -> None:
        taken = await self.connection.exec_driver_sql(
            "insert into claims (claim, stream) values ($1, $2) on conflict do nothing", (claim, stream)
        )
        if taken.rowcount == 0:
            owner = await self.connection.exec_driver_sql("select stream from claims where claim = $1", (claim,))
            if owner.scalar() != stream:
                raise refused

    async def last_position(self, streams: Sequence[str] = ()) -> int:
        """Where the log ends, or the last of ``streams``' events stands; 0 if there is none."""
        if streams:
            rows = await self.connection.exec_driver_sql(
                "select coalesce(max(position), 0) from events where stream = any($1::text[])", (list(streams),)
            )
        else:
            rows = await self.connection.exec_driver_sql("select coalesce(max(position), 0) from events")
        position: int = rows.scalar_one()
        return position

    async def story_of(self, stream: str) -> tracing.Trace:
        """What is done about a stream later, when nobody asks for it, is caused by its first event."""
        rows = await self.connection.exec_driver_sql(
            "select correlation_id, id::text, actor from events where stream = $1 order by version limit 1", (stream,)
        )
        return tracing.Trace(*rows.one())

    def caused_by(self, recorded: Recorded) -> None:
        """What follows is a reaction to ``recorded``, whoever waits for it."""
        self.seed = None
        self.trace = tracing.Trace.caused_by(recorded)


async def read_log(
    connection: AsyncConnection, catalog: Catalog, after: int, limit: int, types: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], int]:
    """Envelopes after ``after`` in position order, and the position that the reading got to."""
    rows = (
        await connection.exec_driver_sql(
            f"select {COLUMNS} from events where position > $1 order by position limit $2", (after, limit)
        )
    ).all()
    events: list[dict[str, Any]] = []
    size, read_up_to = 0, after
    for row in rows:
        envelope = json.loads(recorded_from(row, catalog).to_cloudevent())
        size += len(_fields(row)[6])
        if events and size > SPAN_BYTES:
            break
        read_up_to = row[0]
        if not types or envelope["type"] in types:
            events.append(envelope)
    return events, read_up_to


def _fields(row: Row[Any]) -> tuple[Any, ...]:
    # SQLAlchemy types a row by the columns of a Core select; what driver SQL gives it can't know.
    return tuple[Any, ...](row)


def recorded_from(row: Any, catalog: Catalog) -> Recorded:
    """A row of ``COLUMNS`` as what it records."""
    position, id_, stream, version, type_name, schema_version, data, actor, correlation_id, causation_id, at = row
    return Recorded(
        id=id_,
        service=catalog.service,
        stream=stream,
        version=version,
        position=position,
        recorded_at=at,
        actor=actor,
        correlation_id=correlation_id,
        causation_id=causation_id,
        event=catalog.load(type_name, schema_version, json.loads(data)),
    )


def _item(recorded: Recorded) -> dict[str, Any]:
    return {
        "id": recorded.id,
        "stream": recorded.stream,
        "version": recorded.version or None,
        "actor": recorded.actor,
        "correlation_id": recorded.correlation_id,
        "causation_id": recorded.causation_id,
        **recorded.event.stored()._asdict(),
    }
