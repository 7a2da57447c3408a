"""Questions between services: the answer, or the refusal as it was given, or 503 (design §2, §4)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError
from structlog.testing import capture_logs

from shared import trace
from shared.errors import Refused, Unavailable
from shared.event_store import Transaction
from shared.requests import CatchUp, LastPosition, LogSpan, Position, Question, ReadLog
from tests.support.toys import (
    LEDGER,
    READER,
    Echo,
    FindAccount,
    FoundAccount,
    Misbehave,
    Opened,
    Place,
    Toys,
    open_account,
)


@asynccontextmanager
async def raw_client(place: Place) -> AsyncIterator[Client]:
    client = await nats.connect(place.nats_url)
    try:
        yield client
    finally:
        await client.close()


async def test_a_service_answers_what_it_can_be_asked(toys: Toys) -> None:
    await toys.deposits(3)
    found = await toys.reader.wire.ask("ledger", FindAccount(account="a"), FoundAccount)
    assert found == FoundAccount(position=4, exists=True, balance=3)
    assert (await toys.reader.wire.ask("ledger", FindAccount(account="b"), FoundAccount)).exists is False


async def test_a_service_may_ask_itself(toys: Toys) -> None:
    await toys.deposits(1)
    assert (await toys.ledger.wire.ask("ledger", LastPosition(), Position)).position == 2


async def test_every_service_says_where_its_log_ends_and_reads_it_out(toys: Toys) -> None:
    assert (await toys.reader.wire.ask("ledger", LastPosition(), Position)).position == 0
    await toys.deposits(3)
    assert (await toys.reader.wire.ask("ledger", LastPosition(), Position)).position == 4
    span = await toys.reader.wire.ask("ledger", ReadLog(after=1, limit=2), LogSpan)
    assert ([event["position"] for event in span.events], span.read_up_to) == ([2, 3], 3)
    span = await toys.reader.wire.ask("ledger", ReadLog(after=0, types=("Opened",)), LogSpan)
    assert ([event["type"] for event in span.events], span.read_up_to) == (["Opened"], 4)


async def test_no_reading_is_longer_than_a_thousand_events(toys: Toys) -> None:
    async def record(tx: Transaction) -> None:
        for number in range(1001):
            await tx.record("many", Opened(account=f"a{number}"))

    await toys.ledger.run(record)
    span = await toys.reader.wire.ask("ledger", ReadLog(after=0, limit=10**9), LogSpan)
    assert (len(span.events), span.read_up_to) == (1000, 1000)


async def test_a_service_that_is_asked_to_catch_up_has_when_it_answers(toys: Toys) -> None:
    await toys.deposits(3)
    own_position = await toys.ledger.wire.ask("reader", CatchUp(source="ledger", position=4), Position)
    assert own_position.position == 3
    assert await toys.place.value("select count(*) from reader.events") == 3


async def test_a_refusal_comes_through_with_all_it_says(toys: Toys) -> None:
    with pytest.raises(Refused) as refused:
        await toys.reader.wire.ask("ledger", Misbehave(how="refuse"), Echo)
    refusal = refused.value
    assert (refusal.code, refusal.status, refusal.message) == ("over_own_limit", 400, "it is over the limit")
    assert (refusal.param, refusal.type, refusal.headers) == ("a.b", "odd_error", {"Retry-After": "7"})


async def test_what_is_unavailable_there_is_unavailable_here_and_says_when_to_try_again(toys: Toys) -> None:
    with pytest.raises(Unavailable) as unavailable:
        await toys.ledger.wire.ask("reader", CatchUp(source="ledger", position=99), Position)
    assert (unavailable.value.status, unavailable.value.headers) == (503, {"Retry-After": "1"})


async def test_with_nobody_there_to_answer_it_is_unavailable_at_once(place: Place) -> None:
    async with place.running(READER).started() as reader:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="the ledger service does not answer"):
            await reader.wire.ask("ledger", FindAccount(account="a"), FoundAccount)
        assert time.monotonic() - began < 2


async def test_an_answer_that_does_not_come_is_waited_for_as_long_as_the_asker_says(place: Place) -> None:
    async with place.running(READER).started() as reader, raw_client(place) as client:
        await client.subscribe(reader.wire.ask_subject("ledger", FindAccount))
        with pytest.raises(Unavailable):
            await reader.wire.ask("ledger", FindAccount(account="a"), FoundAccount, timeout_seconds=0.2)


async def test_a_crash_while_answering_is_unavailable_at_once_and_its_fault_stays_there(toys: Toys) -> None:
    with capture_logs() as logs, pytest.raises(Unavailable) as unavailable:
        await toys.reader.wire.ask("ledger", Misbehave(how="crash"), Echo, timeout_seconds=60)
    assert "a bug" not in unavailable.value.message
    assert unavailable.value.headers == {"Retry-After": "1"}
    assert [entry["question"] for entry in logs if entry["event"] == "wire.answer_failed"] == ["Misbehave"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"account": 7}', b'{"account": "a"', b"[" * 100_000], ids=range(7)
)
async def test_a_question_that_is_not_understood_is_answered_and_logged_without_its_content(
    shared_toys: Toys, body: bytes
) -> None:
    async with raw_client(shared_toys.place) as client:
        with capture_logs() as logs:
            reply = await client.request(shared_toys.ledger.wire.ask_subject("ledger", FindAccount), body, timeout=10)
    assert b'"code": "unavailable"' in reply.data
    assert [entry["event"] for entry in logs] == ["wire.question_malformed"]


async def test_an_answer_that_is_none_is_the_askers_fault_to_know(toys: Toys) -> None:
    """Two programs of different versions: it must not pass as an answer."""
    with pytest.raises(ValidationError):
        await toys.reader.wire.ask("ledger", LastPosition(), FoundAccount)


async def test_a_refusal_for_a_reason_that_this_program_does_not_know_is_unavailable(place: Place) -> None:
    async with place.running(READER).started() as reader, raw_client(place) as client:

        async def refuse(message: Msg) -> None:
            await message.respond(b'{"refused": {"code": "from_the_future", "message": "no"}}')

        await client.subscribe(reader.wire.ask_subject("ledger", FindAccount), cb=refuse)
        with pytest.raises(Unavailable):
            await reader.wire.ask("ledger", FindAccount(account="a"), FoundAccount)


async def test_actor_correlation_and_cause_go_along_with_a_question(toys: Toys) -> None:
    with trace.tracing(trace.Trace("request 7", causation_id="an event", actor="ada")):
        echo = await toys.reader.wire.ask("ledger", Misbehave(how="echo"), Echo)
    assert (echo.correlation_id, echo.causation_id, echo.actor) == ("request 7", "an event", "ada")


async def test_an_actor_that_is_not_ascii_goes_along_and_can_not_bring_a_header_of_its_own(toys: Toys) -> None:
    with trace.tracing(trace.Trace("request 7", actor="ädä ☃\r\nkeystead-causation: forged")):
        echo = await toys.reader.wire.ask("ledger", Misbehave(how="echo"), Echo)
    assert echo.actor.startswith("ädä ☃")
    assert echo.causation_id is None


async def test_replicas_share_the_questions_and_each_is_answered_once(place: Place) -> None:
    async with (
        place.running(LEDGER).started() as ledger,
        place.running(LEDGER).started(),
        place.running(READER).started() as reader,
        raw_client(place) as client,
    ):
        await ledger.run(open_account, "a")
        answers = await asyncio.gather(
            *(reader.wire.ask("ledger", FindAccount(account="a"), FoundAccount) for _ in range(20))
        )
        assert {answer.exists for answer in answers} == {True}
        inbox = client.new_inbox()
        replies = await client.subscribe(inbox)
        question = FindAccount(account="a").model_dump_json().encode()
        await client.publish(reader.wire.ask_subject("ledger", FindAccount), question, reply=inbox)
        await replies.next_msg(timeout=5)
        with pytest.raises(nats.errors.TimeoutError):
            await replies.next_msg(timeout=0.2)


async def test_installations_on_one_nats_do_not_hear_each_other(place: Place) -> None:
    elsewhere = Place(place.owner_url, "elsewhere.", place.nats_url)
    async with place.running(LEDGER).started():
        reader = elsewhere.running(READER)
        assert reader.wire.ask_subject("ledger", FindAccount) == "elsewhere.ask.ledger.FindAccount"
        async with raw_client(place) as client:
            with pytest.raises(nats.errors.NoRespondersError):
                await client.request(reader.wire.ask_subject("ledger", FindAccount), b"{}")
        await reader.engine.dispose()


async def test_a_question_is_named_by_its_class() -> None:
    class Peculiar(Question):
        pass

    place = Place("postgresql://nobody@nowhere/none", "here.", "nats://nowhere")
    assert place.running(LEDGER).wire.ask_subject("keys", Peculiar) == "here.ask.keys.Peculiar"


async def test_what_is_told_to_all_is_heard_by_all_who_listen(toys: Toys) -> None:
    heard: list[tuple[str, bytes]] = []
    all_heard = asyncio.Event()

    def listener(name: str) -> object:
        async def hear(payload: bytes) -> None:
            heard.append((name, payload))
            if len(heard) == 2:
                all_heard.set()

        return hear

    for running in (toys.ledger, toys.reader):
        await running.wire.listen("news", listener(running.service.name))  # type: ignore[arg-type]
        await running.wire._client.flush()
    await toys.ledger.wire.tell("news", Position(position=7))
    async with asyncio.timeout(10):
        await all_heard.wait()
    assert sorted(heard) == [("ledger", b'{"position":7}'), ("reader", b'{"position":7}')]
