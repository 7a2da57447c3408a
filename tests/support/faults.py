"""What befalls those who carry events: sessions ended by the server, streams that lose or repeat what they held."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import nats.js.errors
from hypothesis import strategies as st

from shared.errors import Unavailable
from shared.requests import LogSpan, ReadLog
from shared.service import Running

LOST_ALREADY = (nats.js.errors.NotFoundError, nats.js.errors.NoStreamResponseError)


@dataclass(frozen=True)
class LoseDuty:
    """The session that holds the lock is ended by the server."""

    service: str


@dataclass(frozen=True)
class LoseSessions:
    """All the service's sessions are."""

    service: str


@dataclass(frozen=True)
class RepublishFrom:
    """The relay has forgotten that it published the last ``back`` events."""

    service: str
    back: int


@dataclass(frozen=True)
class Redeliver:
    """Old and new events are in the stream again, in this order (as places in the log, from its end)."""

    service: str
    places: Sequence[int]


@dataclass(frozen=True)
class LoseMessages:
    """The stream loses messages: its last ``few``, or all."""

    service: str
    few: int | None


@dataclass(frozen=True)
class LoseStream:
    service: str


@dataclass(frozen=True)
class LoseConsumer:
    reader: str
    source: str


@dataclass(frozen=True)
class SetClockBack:
    """As if the database's clock had gone wrong when the last event was recorded, and is right again."""

    service: str


Fault = LoseDuty | LoseSessions | RepublishFrom | Redeliver | LoseMessages | LoseStream | LoseConsumer | SetClockBack


places = st.lists(st.integers(0, 9) | st.integers(0, 3), min_size=1, max_size=6).map(tuple)


def faults_of(hears: Mapping[str, Sequence[str]]) -> st.SearchStrategy[Fault]:
    """Any of them; ``hears`` says of each service whom it hears of."""
    services = st.sampled_from(sorted({*hears, *(source for sources in hears.values() for source in sources)}))
    sources = st.sampled_from(sorted({source for sources in hears.values() for source in sources}))
    consumers = [(reader, source) for reader, sources in sorted(hears.items()) for source in sources]
    return st.one_of(
        st.builds(LoseDuty, services),
        st.builds(LoseSessions, services),
        st.builds(RepublishFrom, sources, st.integers(1, 20)),
        st.builds(Redeliver, sources, places),
        st.builds(LoseMessages, sources, st.none() | st.integers(1, 4)),
        st.builds(LoseStream, sources),
        st.sampled_from([LoseConsumer(*pair) for pair in consumers]),
        st.builds(SetClockBack, sources),
    )


async def befalls(owner_url: str, fault: Fault, running: Running[Any] | None) -> str:
    """Make it so. ``running`` is a replica of the service whose stream it is about."""
    match fault:
        case LoseDuty(service):
            return await terminate(owner_url, service, "application_name = 'keystead duty'")
        case LoseSessions(service):
            return await terminate(owner_url, service, "true")
        case RepublishFrom(service, back):
            return await _execute(
                owner_url, f"update {service}.relay set published = greatest(0, published - $1)", back
            )
        case SetClockBack(service):
            return await _execute(
                owner_url,
                f"update {service}.events set recorded_at = recorded_at + interval '1 hour'"
                f" where position = (select max(position) from {service}.events)",
            )
        case _ if running is None:
            return "nobody there"
        case _:
            with suppress(*LOST_ALREADY, Unavailable):
                await _on_the_stream(fault, running)
            return ""


async def terminate(owner_url: str, service: str, which: str) -> str:
    """End those sessions of the service, and wait until they have ended."""
    return await _execute(
        owner_url,
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        f" where datname = current_database() and usename = $1 and {which}",
        f"keystead_{service}",
    )


async def _execute(owner_url: str, statement: str, *args: Any) -> str:
    owner = await asyncpg.connect(owner_url)
    try:
        return str(await owner.execute(statement, *args))
    finally:
        await owner.close()


async def _on_the_stream(fault: Fault, running: Running[Any]) -> None:
    wire = running.wire
    jetstream, stream = wire.jetstream, wire.stream_of(running.service.name)
    match fault:
        case Redeliver(places=places):
            await _redeliver(running, places)
        case LoseMessages(few=None):
            await jetstream.purge_stream(stream)
        case LoseMessages(few=int(few)):
            last = (await jetstream.stream_info(stream)).state.last_seq
            for number in range(max(1, last - few + 1), last + 1):
                with suppress(nats.js.errors.APIError):  # that one is lost already
                    await jetstream.delete_msg(stream, number)
        case LoseStream():
            await jetstream.delete_stream(stream)
        case LoseConsumer(reader=reader, source=source):
            await jetstream.delete_consumer(stream, f"{wire.namespace}{reader}-{source}".replace(".", "_"))


async def _redeliver(running: Running[Any], places: Sequence[int]) -> None:
    wire, service = running.wire, running.service.name
    last = await running.run(lambda tx: tx.last_position())
    span = await wire.ask(service, ReadLog(after=max(0, last - 10), limit=10), LogSpan)
    for envelope in [span.events[-1 - place] for place in places if place < len(span.events)]:
        await wire.jetstream.publish(f"{wire.namespace}{service}.Again.by-hand", json.dumps(envelope).encode())


def source_of(fault: Fault) -> str:
    """Whose log or stream it is about."""
    return fault.source if isinstance(fault, LoseConsumer) else fault.service


def loses_messages(fault: Fault) -> bool:
    return isinstance(fault, LoseMessages | LoseStream)
