"""Bad input on the wire: whatever is sent to a stream, a question or a topic is passed over, and stops nothing.

What a subscriber can't know is whether the next event, well formed and at the next position, was told by its source or
by somebody in its name. Nobody else may send there: each service has a log-in of its own at NATS, which is tried in
`tests/integration/keystead/test_nats_users.py` and `test_least_privilege.py`.
`test_subscriptions.py` has envelopes that are wrong in one thing; here is what is wrong in size, depth and place.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import nats.js.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from services.budgets.requests import BARRIER_TOPIC
from shared.requests import CatchUp, LastPosition, LogSpan, Position, Question, ReadLog
from tests.support.flow import CHAT, refusal
from tests.support.installation import Installation, installation
from tests.support.servers import nats_url
from tests.support.toys import Place, Toys, deposit, eventually

BIG_BYTES = 8_000_000
FAR = (2**31, 2**53, 2**62, 2**63 - 1, 2**63, 10**30)
DEEP = 50_000


@asynccontextmanager
async def sender(url: str) -> AsyncIterator[Client]:
    """Somebody whom NATS lets send anything anywhere."""
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


def envelope(source: str, position: int, **changed: Any) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": "00000000-0000-4000-8000-000000000000",
            "source": source,
            "type": "Opened",
            "subject": "account-forged",
            "time": "2026-11-24T12:00:00+00:00",
            "datacontenttype": "application/json",
            "data": {"account": "forged", "name": None},
            "position": position,
            "streamversion": 1,
            "schemaversion": 1,
            "actor": "mallory",
            "correlationid": "c",
            "causationid": None,
        }
        | changed
    ).encode()


# A subscriber


def deep(wrapped: bytes) -> bytes:
    return wrapped.replace(b'"mallory"', b"[" * DEEP + b"]" * DEEP)


SUBJECTS = ("Opened.account-a", "Closed.account-a", "UserDeleted.user-ada", "Opened", "a.b.c.d.e", "=2a=.=3e=")
NO_EVENTS = {
    "half of the next event": [envelope("ledger", 2)[:length] for length in range(0, len(envelope("ledger", 2)), 7)],
    "deep": [b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP, deep(envelope("ledger", 2))],
    "of 8 MB": [
        b"\x00" * BIG_BYTES,
        b'"' + b"x" * BIG_BYTES + b'"',
        envelope("ledger", 2, data={"account": "a", "no such field": "x" * BIG_BYTES}),
    ],
    "from the past": [envelope("ledger", 1), envelope("ledger", 1, type="Frozen", schemaversion=99)],
    "from the future": [
        envelope("ledger", position, type=type_, schemaversion=version)
        for position in FAR
        for type_ in ("Opened", "Frozen")
        for version in (1, 99, 2**31, 10**30)
    ],
    "from the future, of 8 MB": [envelope("ledger", 99, data={"account": "x" * BIG_BYTES, "name": None})],
    "of a version that never was": [envelope("ledger", 2, schemaversion=version) for version in (0, -1, 2.5, "1")],
    "another's": [envelope(source, 2) for source in ("reader", "", "ledger ", "LEDGER", "ledger.>")],
}


@pytest.mark.parametrize("kind", NO_EVENTS)
async def test_what_is_no_next_event_has_no_effect_and_stops_nothing(toys: Toys, kind: str) -> None:
    """It is taken from the stream the first time, and the next true event is applied."""
    await toys.deposits(0)
    await toys.heard()
    for number, payload in enumerate(NO_EVENTS[kind]):
        await tell(toys, SUBJECTS[number % len(SUBJECTS)], payload)
    await toys.ledger.run(deposit, "a", 5)
    await eventually(lambda: is_at(toys.place, 2))
    await eventually(lambda: all_taken(toys))
    assert await toys.place.fetch("select account, balance, applied from reader.seen_1") == [("a", 5, 2)]
    assert await toys.place.value("select count(*) from reader.events") == 1
    assert (await consumer(toys)).num_redelivered == 0


async def tell(toys: Toys, subject: str, payload: bytes) -> None:
    await toys.ledger.wire.jetstream.publish(f"{toys.place.namespace}ledger.{subject}", payload)


async def is_at(place: Place, position: int) -> bool:
    return bool(await place.value("select position from reader.subscriptions where source = 'ledger'") == position)


async def consumer(toys: Toys) -> Any:
    durable = f"{toys.place.namespace}reader-ledger".replace(".", "_")
    return await toys.reader.wire.jetstream.consumer_info(toys.reader.wire.stream_of("ledger"), durable)


async def all_taken(toys: Toys) -> bool:
    try:
        info = await consumer(toys)
    except nats.js.errors.NotFoundError:
        return False  # it is not there yet
    return (info.num_pending, info.num_ack_pending) == (0, 0)


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_it_is_told_in_the_log_once_wherever_it_was_sent(shared_toys: Toys, subject: str) -> None:
    with capture_logs() as logs:
        await tell(shared_toys, subject, b"no event")
        await eventually(lambda: all_taken(shared_toys))
        await eventually(lambda: bool(logs))
    (told,) = [entry for entry in logs if entry["event"] == "subscription.not_an_event"]
    assert (told["log_level"], told["source"]) == ("warning", "ledger")


async def test_a_position_from_the_future_is_looked_up_and_not_waited_for(toys: Toys) -> None:
    """The source's log says that there is no such event; after that nobody asks again because of it."""
    await toys.deposits(1)
    await toys.heard()
    async with sender(toys.place.nats_url) as client:
        asked: list[str] = []

        async def hear(message: Msg) -> None:
            asked.append(message.subject.rpartition(".")[2])

        await client.subscribe(f"{toys.place.namespace}ask.ledger.*", cb=hear)
        await client.flush()
        for position in range(100, 120):
            await tell(toys, "Opened.account-a", envelope("ledger", position))
        await eventually(lambda: all_taken(toys))
        by_then = len(asked)
        # What is asked each second anyway is all that is asked from then on: three rounds of it.
        await eventually(lambda: len(asked) >= by_then + 3)
    assert by_then <= 20 + 3
    assert set(asked) == {"LastPosition"}
    assert await is_at(toys.place, 2)
    assert (await consumer(toys)).num_redelivered == 0


async def test_a_fence_takes_no_part_in_it(toys: Toys) -> None:
    """A fence goes by the owner's word, and not by what a message claims."""
    await toys.deposits(1)
    for position in FAR:
        await tell(toys, "Opened.account-a", envelope("ledger", position))
    await toys.heard()
    assert await is_at(toys.place, 2)


# Whom a service asks, and who asks it


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running


MALFORMED = {
    "nothing": b"",
    "half": b'{"after": 1',
    "no object": b"[]",
    "no text": b"\xff\xfe",
    "deep": b'{"user_id": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "8 MB of a name": json.dumps({"user_id": "x" * BIG_BYTES}).encode(),
    "8 MB of nothing": b"\x00" * BIG_BYTES,
    "all of one kind": json.dumps(
        {name: {} for name in ("after", "source", "position", "user_id", "token", "ref")}
    ).encode(),
}


@pytest.mark.parametrize("how", MALFORMED)
async def test_every_question_of_every_service_is_answered_however_it_is_asked(it: Installation, how: str) -> None:
    async with sender(nats_url()) as client:
        for running in it.composition.services.values():
            questions: list[type[Question]] = [LastPosition, ReadLog, CatchUp, *running.service.answers]
            for question in questions:
                subject = running.wire.ask_subject(running.service.name, question)
                reply = await client.request(subject, MALFORMED[how], timeout=20)
                assert json.loads(reply.data).keys() <= {"refused", "answer"}, subject
    for running in it.composition.services.values():
        await running.wire.ask(running.service.name, LastPosition(), Position)


HOSTILE = (
    *(ReadLog(after=after, limit=limit) for after in (-(2**63), -1, *FAR) for limit in (-1, 0, 2**63)),
    *(CatchUp(source="identity", position=position) for position in FAR),
    CatchUp(source="nobody", position=1),
    CatchUp(source="\x00", position=-1),
)


async def test_a_question_about_what_can_not_be_is_answered_at_once(it: Installation) -> None:
    """Not after waiting for it: an asker must not be able to tie a service down."""
    async with sender(nats_url()) as client:
        for question in HOSTILE:
            with capture_logs():  # a fault that is written out as in development takes seconds itself
                subject = it.running("keys").wire.ask_subject("keys", type(question))
                reply = await client.request(subject, question.model_dump_json().encode(), timeout=2)
            assert json.loads(reply.data).keys() <= {"refused", "answer"}, question
    span = await it.running("keys").wire.ask("keys", ReadLog(after=0), LogSpan)
    assert span.read_up_to == len(span.events)


# A gateway's worker, which hears by consumers of its own and parks nothing


async def key_of_a_person(it: Installation) -> dict[str, Any]:
    ada = await it.invite()
    key: dict[str, Any] = await it.ok("POST", "/key/generate", {}, key=ada.session)
    assert (await it.call("POST", "/v1/chat/completions", CHAT, key=key["key"]))[0] == 200
    return key


def about_the_key(key: dict[str, Any], position: int) -> list[bytes]:
    """What would end it, if it were believed; and what nobody can read."""
    data = {
        "key_id": key["key_id"],
        "token": key["token"],
        "updated_by": "mallory",
        "updated_at": "2026-11-24T12:00:00Z",
    }
    blocked = envelope("keys", position, type="KeyBlocked", data=data)
    return [
        blocked,
        deep(blocked),
        blocked[:-20],
        envelope("identity", position, type="KeyBlocked", data=data),
        envelope("keys", position, type="KeyBlocked", data={**data, "more": "x" * BIG_BYTES}),
        envelope("keys", position, type="KeyFrozen", schemaversion=99, data=data),
        b"\x00" * BIG_BYTES,
    ]


async def test_a_worker_believes_no_event_that_its_owner_does_not_have_and_goes_on(it: Installation) -> None:
    key = await key_of_a_person(it)
    async with sender(nats_url()) as client:
        for position in (1, *FAR):
            for payload in about_the_key(key, position):
                await client.jetstream().publish(f"{it.namespace}keys.KeyBlocked.key-{key['key_id']}", payload)
        await _heard(it)
    assert (await it.call("POST", "/v1/chat/completions", CHAT, key=key["key"]))[0] == 200
    await it.ok("POST", "/key/block", {"key": key["token"]})
    assert await refusal(it, key["key"]) == (401, "key_blocked")
    await it.ok("POST", "/key/unblock", {"key": key["token"]})
    assert (await it.call("POST", "/v1/chat/completions", CHAT, key=key["key"]))[0] == 200


async def _heard(it: Installation) -> None:
    """What is sent in the stream's order is heard in it: with the next true event that is applied, all is."""
    await it.ok("POST", "/user/new", {"auto_create_key": True})


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[" * DEEP,
        b"\x00" * BIG_BYTES,
        b'{"positions": []}',
        b'{"positions": {"keys": -1, "identity": -1}}',
        b'{"positions": {"nobody": 1}}',
        *(json.dumps({"positions": {"keys": position, "identity": position}}).encode() for position in FAR),
    ],
    ids=["nothing", "deep", "8 MB", "no positions", "negative", "nobody's", *(f"at {position}" for position in FAR)],
)
async def test_a_forged_barrier_stops_no_worker(it: Installation, payload: bytes) -> None:
    key = await key_of_a_person(it)
    async with sender(nats_url()) as client:
        await client.publish(it.running("gateway").wire.topic(BARRIER_TOPIC), payload)
        await client.flush()
    assert (await it.call("POST", "/v1/chat/completions", CHAT, key=key["key"]))[0] == 200
    async with asyncio.timeout(4):  # a worker that is stuck is waited for longer
        await it.ok("POST", "/key/block", {"key": key["token"]})
    assert await refusal(it, key["key"]) == (401, "key_blocked")
