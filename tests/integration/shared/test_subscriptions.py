"""A subscription: an event's effect is committed with its position, once and in order, whatever comes (design §4)."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared import trace
from shared.errors import Unavailable
from shared.event_store import Transaction
from shared.events import Catalog, Event
from shared.requests import LogSpan, ReadLog
from tests.support.faults import LoseSessions, befalls
from tests.support.toys import (
    LEDGER,
    LEDGER_EVENTS,
    READER,
    Deposited,
    Opened,
    Place,
    Toys,
    close_account,
    deposit,
    eventually,
    open_account,
    published,
    stream_of,
    toys,
)

NEVER_SECONDS = 3600.0


async def seen(here: Place) -> dict[str, tuple[int, int]]:
    """The reader's copy: balance, and how many events made it."""
    rows = await here.fetch("select account, balance, applied from reader.seen_1")
    return {account: (balance, applied) for account, balance, applied in rows}


async def position(here: Place) -> int:
    return int(await here.value("select position from reader.subscriptions where source = 'ledger'"))


async def notes(here: Place) -> int:
    return int(await here.value("select count(*) from reader.events"))


async def test_what_a_service_hears_is_in_its_own_tables_with_its_position(toys: Toys) -> None:
    await toys.deposits(3)
    await eventually(lambda: _is_at(toys.place, 4))
    assert await seen(toys.place) == {"a": (3, 4)}
    assert await notes(toys.place) == 3


async def _is_at(here: Place, expected: int) -> bool:
    return await position(here) == expected


async def test_an_event_that_ends_a_thing_is_applied_too(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    await toys.ledger.run(close_account, "a")
    await eventually(lambda: _is_at(toys.place, 2))
    assert await seen(toys.place) == {}


async def test_an_event_delivered_twice_is_applied_once(toys: Toys) -> None:
    await toys.deposits(3)
    await toys.heard()
    for message in await published(toys.ledger):
        await _send(toys, message.envelope)
    await toys.ledger.run(deposit, "a", 10)
    await eventually(lambda: _is_at(toys.place, 5))
    await eventually(lambda: _all_acknowledged(toys))
    assert await seen(toys.place) == {"a": (13, 5)}
    assert await notes(toys.place) == 4


async def _send(toys: Toys, envelope: Any, payload: bytes | None = None) -> None:
    """A message in the ledger's stream that its relay did not send."""
    subject = f"{toys.place.namespace}ledger.Sent.by-hand"
    body = json.dumps(envelope).encode() if payload is None else payload
    await toys.ledger.wire.jetstream.publish(subject, body)


async def _all_acknowledged(toys: Toys) -> bool:
    wire = toys.reader.wire
    durable = f"{toys.place.namespace}reader-ledger".replace(".", "_")
    info = await wire.jetstream.consumer_info(wire.stream_of("ledger"), durable)
    return (info.num_pending, info.num_ack_pending) == (0, 0)


async def test_events_delivered_out_of_order_are_applied_in_order_from_the_log(place: Place) -> None:
    async with by_hand(place) as running:
        await running.deposits(3)
        envelopes = await _log(running)
        for number in (3, 0, 2, 1):
            await _send(running, envelopes[number])
        await eventually(lambda: _all_acknowledged(running))
        assert running.reader.own.handled == [2, 3, 4]
        assert await seen(place) == {"a": (3, 4)}


async def test_a_gap_is_filled_from_the_log(place: Place) -> None:
    async with by_hand(place) as running:
        await running.deposits(4)
        envelopes = await _log(running)
        await _send(running, envelopes[0])
        await _send(running, envelopes[2])
        await eventually(lambda: _all_acknowledged(running))
        assert await position(place) == 5, "to the log's end, once it is read"
        assert await seen(place) == {"a": (4, 5)}


def by_hand(place: Place) -> Any:
    """Toys that hear nothing but what a test sends: the relay sleeps, and nobody looks whether something is missing."""
    return toys(place, relay_delay_seconds=NEVER_SECONDS)


async def _log(running: Toys) -> list[dict[str, Any]]:
    span: LogSpan = await running.reader.wire.ask("ledger", ReadLog(after=0), LogSpan)
    return span.events


async def test_when_the_stream_is_deleted_the_reader_converges_and_then_hears_again(toys: Toys) -> None:
    await toys.deposits(2)
    await toys.heard()
    await toys.ledger.wire.jetstream.delete_stream(toys.ledger.wire.stream_of("ledger"))
    await toys.ledger.run(deposit, "a", 10)
    await eventually(lambda: _is_at(toys.place, 4))
    await eventually(lambda: _follows(toys))
    await toys.ledger.run(deposit, "a", 10)
    await eventually(lambda: _is_at(toys.place, 5))
    await eventually(lambda: _all_acknowledged(toys))
    assert await seen(toys.place) == {"a": (22, 5)}


async def _follows(toys: Toys) -> bool:
    try:
        return await _all_acknowledged(toys)
    except Exception:  # noqa: BLE001 - not there yet
        return False


async def test_when_the_consumer_is_deleted_the_reader_makes_it_anew(toys: Toys) -> None:
    await toys.deposits(1)
    await toys.heard()
    durable = f"{toys.place.namespace}reader-ledger".replace(".", "_")
    await toys.reader.wire.jetstream.delete_consumer(toys.reader.wire.stream_of("ledger"), durable)
    await toys.ledger.run(deposit, "a", 10)
    await eventually(lambda: _is_at(toys.place, 3))
    await eventually(lambda: _follows(toys))


async def test_a_handler_that_fails_leaves_effect_and_position_and_later_succeeds(toys: Toys) -> None:
    toys.reader.own.poison.add("b")
    await toys.deposits(1, "a")
    await toys.deposits(1, "b")
    await toys.deposits(1, "c")
    await eventually(lambda: toys.reader.own.handled.count(4) >= 3)
    assert await position(toys.place) == 3
    assert await seen(toys.place) == {"a": (1, 2), "b": (0, 1)}
    assert await notes(toys.place) == 1
    toys.reader.own.poison.clear()
    await eventually(lambda: _is_at(toys.place, 6))
    assert await seen(toys.place) == {"a": (1, 2), "b": (1, 2), "c": (1, 2)}
    assert await notes(toys.place) == 3


async def test_a_message_whose_handling_failed_is_delivered_again(place: Place) -> None:
    async with by_hand(place) as running:
        running.reader.own.poison.add("a")
        await running.deposits(1)
        for envelope in await _log(running):
            await _send(running, envelope)
        await eventually(lambda: running.reader.own.handled.count(2) >= 2)
        running.reader.own.poison.clear()
        await eventually(lambda: _is_at(place, 2))


async def test_a_fence_that_meets_an_event_that_cannot_be_handled_is_unavailable(toys: Toys) -> None:
    toys.reader.own.poison.add("b")
    await toys.deposits(1, "b")
    with pytest.raises(Unavailable):
        await toys.reader.fence({"ledger"})


async def test_a_fence_that_meets_a_dead_session_is_unavailable(place: Place) -> None:
    async with by_hand(place) as running:  # else looking for what is missing could meet it first
        await running.deposits(1)
        await running.heard()
        await befalls(place.owner_url, LoseSessions("reader"), running.reader)
        await running.ledger.run(deposit, "a", 1)
        with pytest.raises(Unavailable):
            await running.heard()
        await running.heard()


class Frozen(Event):
    account: str


class DepositedLater(Deposited):
    """The same type in a version that this reader does not know."""

    schema_version = 2
    currency: str

    @classmethod
    def type_name(cls) -> str:
        return "Deposited"


async def test_unknown_types_and_versions_are_passed_over_and_count(place: Place) -> None:
    newer = replace(LEDGER, catalog=Catalog("ledger", Opened, DepositedLater, Frozen))

    async def record(tx: Transaction, event: Event) -> None:
        await tx.record(stream_of("a"), event)

    async with place.running(newer).started() as ledger, place.running(READER).started() as reader:
        both = Toys(place, ledger, reader)
        await ledger.run(record, Opened(account="a"))
        await ledger.run(record, Frozen(account="a"))
        await ledger.run(record, DepositedLater(account="a", amount=5, deposited_at=place.clock(), currency="EUR"))
        await ledger.run(record, Opened(account="b"))
        await eventually(lambda: _is_at(place, 4))
        await eventually(lambda: _all_acknowledged(both))
        assert await seen(place) == {"a": (0, 1), "b": (0, 1)}


def forged(**changed: Any) -> bytes:
    """What would be the next event, but for ``changed``."""
    envelope = {
        "specversion": "1.0",
        "id": "00000000-0000-4000-8000-000000000000",
        "source": "ledger",
        "type": "Opened",
        "subject": "account-forged",
        "time": "2026-11-24T12:00:00+00:00",
        "datacontenttype": "application/json",
        "data": {"account": "forged", "name": None},
        "position": 2,
        "streamversion": 1,
        "schemaversion": 1,
        "actor": "mallory",
        "correlationid": "c",
        "causationid": None,
    }
    return json.dumps({name: value for name, value in (envelope | changed).items() if value != "absent"}).encode()


FORGED = {
    "nothing": b"",
    "not JSON": b"\x00\xff{",
    "not UTF-8": forged().replace(b"mallory", b"mall\xffory"),
    "truncated": forged()[:-20],
    "a list": b"[]",
    "a number": b"1e400",
    "deep": b"[" * 100_000,
    "deep data": forged().replace(b'{"account": "forged", "name": null}', b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "an empty object": b"{}",
    "another service's": forged(source="reader"),
    "no source": forged(source="absent"),
    "no id": forged(id="absent"),
    "an id that is none": forged(id=7),
    "no type": forged(type="absent"),
    "a type that is a list": forged(type=[]),
    "no position": forged(position="absent"),
    "an infinite position": forged(position=float("inf")),
    "a fraction of a position": forged(position=2.5),
    "a position in words": forged(position="2"),
    "no stream": forged(subject=None),
    "no such time": forged(time="yesterday"),
    "a time without zone": forged(time="2026-11-24T12:00:00"),
    "an actor that is an object": forged(actor={}),
    "data that is a text": forged(data="forged"),
    "data of another shape": forged(data={"account": "forged", "balance": 1_000_000}),
    "no data": forged(data="absent"),
    "a version before the first": forged(schemaversion=0),
    "position 0": forged(position=0),
    "a negative position": forged(position=-1),
    "a position from the past": forged(position=1),
    "a position from the future": forged(position=2**62),
    "a position past all numbers": forged(position=10**30),
    "a lone surrogate": forged(subject="account-\ud800"),
}


async def test_forged_and_truncated_envelopes_have_no_effect_and_stop_nothing(toys: Toys) -> None:
    await toys.deposits(0)
    await toys.heard()
    for payload in FORGED.values():
        await _send(toys, None, payload)
    await toys.ledger.run(deposit, "a", 5)
    await eventually(lambda: _is_at(toys.place, 2))
    await eventually(lambda: _all_acknowledged(toys))
    assert await seen(toys.place) == {"a": (5, 2)}
    assert await position(toys.place) == 2


async def test_an_envelope_that_is_none_is_logged_without_its_content(toys: Toys) -> None:
    with capture_logs() as logs:
        await _send(toys, None, forged(time="a secret"))
        await eventually(lambda: any(entry["event"] == "subscription.not_an_event" for entry in logs))
    assert "a secret" not in repr(logs)


async def test_two_replicas_apply_each_event_once(place: Place) -> None:
    async with toys(place) as running, place.running(READER).started() as second:
        await asyncio.gather(*(running.deposits(5, f"a{number}") for number in range(4)))
        await asyncio.gather(*(reader.fence({"ledger"}) for reader in (running.reader, second) for _ in range(3)))
        await eventually(lambda: _is_at(place, 24))
        assert await seen(place) == {f"a{number}": (5, 6) for number in range(4)}
        assert await notes(place) == 20
        await running.deposits(5, "b")
        await eventually(lambda: _is_at(place, 30))
        assert await notes(place) == 25


async def test_one_replica_at_a_time_consumes(place: Place) -> None:
    async with toys(place) as running, place.running(READER).started() as second:
        await eventually(lambda: running.reader.on_duty.is_set() or second.on_duty.is_set())
        await running.deposits(20)
        await eventually(lambda: _is_at(place, 21))
        assert sorted([len(running.reader.own.handled), len(second.own.handled)]) == [0, 20]


async def test_a_new_subscriber_begins_at_the_logs_beginning_though_the_stream_has_forgotten_it(place: Place) -> None:
    async with place.running(LEDGER).started() as ledger:
        await ledger.run(open_account, "a")
        await ledger.run(deposit, "a", 5)
        await eventually(lambda: _count(place, "select published from ledger.relay", 2))
        await ledger.wire.jetstream.purge_stream(ledger.wire.stream_of("ledger"))
        async with place.running(READER).started():
            await eventually(lambda: _is_at(place, 2))
            assert await seen(place) == {"a": (5, 2)}


async def _count(here: Place, query: str, expected: int) -> bool:
    return bool(await here.value(query) == expected)


async def test_a_subscriber_that_is_far_behind_catches_up_in_order(place: Place) -> None:
    async def record(tx: Transaction) -> None:
        await tx.record(stream_of("a"), Opened(account="a"))
        for _ in range(1200):
            await tx.record(stream_of("a"), Deposited(account="a", amount=1, deposited_at=tx.now))

    async with place.running(LEDGER).started() as ledger:
        await ledger.run(record)
        async with place.running(READER).started() as reader:
            await eventually(lambda: _is_at(place, 1201))
            assert reader.own.handled == list(range(2, 1202))
    assert await seen(place) == {"a": (1200, 1201)}


async def test_a_reader_that_starts_before_its_source_hears_of_it_later(place: Place) -> None:
    async with place.running(READER).started() as reader:
        with pytest.raises(Unavailable):
            await reader.fence({"ledger"})
        async with place.running(LEDGER).started() as ledger:
            await ledger.run(open_account, "a")
            await eventually(lambda: _is_at(place, 1))
            assert await seen(place) == {"a": (0, 1)}


async def test_a_reaction_says_what_caused_it(toys: Toys) -> None:
    with trace.tracing(trace.Trace("request 7", actor="ada")):
        await toys.deposits(1)
    await toys.heard()
    (cause,) = await toys.place.fetch("select id::text from ledger.events where type = 'Deposited'")
    reactions = await toys.place.fetch("select actor, correlation_id, causation_id from reader.events")
    assert reactions == [("ada", "request 7", cause[0])]


async def test_what_a_reaction_asks_and_logs_belongs_to_the_same_story(place: Place) -> None:
    traces: list[trace.Trace] = []

    async def look(_: Transaction, __: object) -> None:
        traces.append(trace.current())

    subscription = replace(READER.subscriptions[0], handlers={Opened: look})
    async with (
        place.running(LEDGER).started() as ledger,
        place.running(replace(READER, subscriptions=[subscription])).started() as reader,
    ):
        with trace.tracing(trace.Trace("request 7", actor="ada")):
            await ledger.run(open_account, "a")
        await reader.fence({"ledger"})
    event_id = await place.value("select id::text from ledger.events")
    assert traces == [trace.Trace("request 7", causation_id=event_id, actor="ada")]


async def test_a_source_is_heard_by_its_own_catalog() -> None:
    assert READER.subscriptions[0].source == LEDGER_EVENTS.service == "ledger"
