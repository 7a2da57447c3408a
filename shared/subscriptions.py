"""Subscriptions: what one service hears of another's log, applied in order, each event's effect with its position."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from faststream.nats import NatsMessage

from shared import trace
from shared.errors import Unavailable
from shared.event_store import Transaction
from shared.events import Catalog, Event, Recorded, from_cloudevent
from shared.requests import LastPosition, LogSpan, Position, ReadLog

if TYPE_CHECKING:
    from shared.service import Running

log = structlog.get_logger()

Handler = Callable[[Transaction, Recorded], Awaitable[None]]
BACK_OFF_SECONDS = (0.1, 0.5, 2.0, 5.0)
FAR_BEHIND = 50  # messages waiting: from here on whole spans of the log are applied in one transaction


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a service hears of ``catalog``'s service: the read models that fold it first, then ``handlers``."""

    catalog: Catalog
    handlers: Mapping[type[Event], Handler] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return self.catalog.service


class Reader:
    """One service's reading of one source. Its place is a row of the service's own database.

    Whoever applies locks that row first: the consumer, a fence and another replica can't apply the same event twice
    nor overtake each other, whatever JetStream delivers, loses or repeats.
    """

    def __init__(self, running: "Running[Any]", subscription: Subscription) -> None:
        self._running = running
        self._subscription = subscription
        self._catching_up = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._next_asking: asyncio.Task[int] | None = None
        self.source = subscription.source

    async def prepare(self) -> None:
        async with self._running.engine.begin() as connection:
            await connection.exec_driver_sql(
                "insert into subscriptions (source, position) values ($1, 0) on conflict do nothing", (self.source,)
            )

    async def position(self) -> int:
        """The last position of the source that was applied."""

        async def look(tx: Transaction) -> int:
            row = await tx.connection.exec_driver_sql(
                "select position from subscriptions where source = $1", (self.source,)
            )
            position: int = row.scalar_one()
            return position

        return await self._running.run(look, fenced=True)

    async def deliver(self, message: NatsMessage) -> None:
        """A message of the live stream."""
        try:
            recorded = from_cloudevent(message.body, self._subscription.catalog)
        except ValueError as fault:
            log.warning("subscription.not_an_event", source=self.source, fault=str(fault))
            await message.ack()
            return
        # What goes wrong with it belongs to its story.
        with trace.tracing(trace.Trace.caused_by(recorded)):
            await self._deliver(recorded, message)

    async def _deliver(self, recorded: Recorded, message: NatsMessage) -> None:
        metadata = message.raw_message.metadata
        try:
            if metadata.num_pending > FAR_BEHIND or not await self.apply([recorded]):
                await self.catch_up()
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is tried again
            delay = BACK_OFF_SECONDS[min(metadata.num_delivered or 1, len(BACK_OFF_SECONDS)) - 1]
            log.warning("subscription.retrying", source=self.source, position=recorded.position, fault=repr(fault))
            await message.nack(delay=delay)
        else:
            await message.ack()

    async def apply(self, events: Sequence[Recorded]) -> bool:
        """Apply what follows on what was applied; what was already is passed over. False if something is missing."""

        async def effects(tx: Transaction) -> bool:
            row = await tx.connection.exec_driver_sql(
                "select position from subscriptions where source = $1 for update", (self.source,)
            )
            before = position = row.scalar_one()
            for recorded in events:
                if recorded.position == position + 1:
                    await self._effect(tx, recorded)
                    position = recorded.position
            if position != before:
                await tx.connection.exec_driver_sql(
                    "update subscriptions set position = $2 where source = $1", (self.source, position)
                )
            return not events or events[-1].position <= position

        return await self._running.run(effects, fenced=True)

    async def _effect(self, tx: Transaction, recorded: Recorded) -> None:
        tx.caused_by(recorded)
        with trace.tracing(tx.trace):
            for projection in self._running.service.projections:
                if projection.source == self.source:
                    await projection.project(tx, recorded.event)
            handler = self._subscription.handlers.get(type(recorded.event))
            if handler is not None:
                await handler(tx, recorded)

    async def catch_up(self, until: int | None = None) -> int:
        """Apply the source's log up to ``until``, or to its end as it is now. Returns the position reached."""
        if until is None:
            until = await self.last_of_source()
        async with self._catching_up:  # one reading serves all who wait for it
            while (position := await self.position()) < until:
                span = await self._running.wire.ask(self.source, ReadLog(after=position), LogSpan)
                if not span.events:
                    raise Unavailable(f"{self.source}'s log ends before position {until}")
                events = [from_cloudevent(json.dumps(e).encode(), self._subscription.catalog) for e in span.events]
                await self._apply_or_wait(events)
        return position

    async def _apply_or_wait(self, events: Sequence[Recorded]) -> None:
        # Who waits here has asked for something else: what these events' handlers say is not the answer.
        try:
            await self.apply(events)
        except Exception as fault:
            log.warning("subscription.stuck", source=self.source, position=events[0].position, fault=repr(fault))
            raise Unavailable(f"{self._running.service.name} can't apply {self.source}'s events") from fault

    async def last_of_source(self) -> int:
        """Where the source's log ends, by its owner's word. One asking serves all who came before it went out."""
        if self._next_asking is None:
            self._next_asking = asyncio.create_task(self._ask_for_last())
        return await asyncio.shield(self._next_asking)

    async def _ask_for_last(self) -> int:
        async with self._asking:
            self._next_asking = None  # who comes from here on needs a later answer
            return (await self._running.wire.ask(self.source, LastPosition(), Position)).position
