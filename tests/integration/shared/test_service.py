"""A service at work: fences, who carries a command out, barriers, jobs, and how it begins and ends (design §3, §4)."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import nats
import pytest
from structlog.testing import capture_logs

from shared import service as kernel
from shared.errors import Unavailable
from shared.event_store import Transaction
from shared.requests import LastPosition, Question
from shared.service import Health, Job, Running
from tests.support.toys import (
    LEDGER,
    READER,
    SEEN,
    AccountUnknown,
    Clock,
    Overdrawn,
    Place,
    Toys,
    balance_of,
    close_account,
    deposit,
    eventually,
    note,
    open_account,
    stream_of,
    toys,
)

RELAY_DELAY_SECONDS = 1.0


@pytest.fixture
async def late_toys(place: Place) -> AsyncIterator[Toys]:
    """Toys whose relays are a second late."""
    async with toys(place, relay_delay_seconds=RELAY_DELAY_SECONDS) as running:
        yield running


# Fences


async def test_no_service_refuses_on_what_it_has_not_heard_yet(late_toys: Toys) -> None:
    """The reader's copy is a second behind; the answer is right at once, and not a late refusal."""
    for number in range(3):
        await late_toys.ledger.run(open_account, f"a{number}")
        await late_toys.reader.run(note, f"a{number}")
    assert await late_toys.place.value("select count(*) from reader.events") == 3


async def test_a_refusal_that_stands_after_the_fence_is_given_after_one_more_run(toys: Toys) -> None:
    runs = Counter[str]()

    async def counted(tx: Transaction, account: str) -> None:
        runs[account] += 1
        await note(tx, account)

    with pytest.raises(AccountUnknown):
        await toys.reader.run(counted, "nobody")
    assert runs["nobody"] == 2


async def test_a_refusal_that_rests_on_nothing_of_others_is_given_at_once(toys: Toys) -> None:
    runs = Counter[str]()

    async def counted(tx: Transaction) -> None:
        runs["all"] += 1
        raise Overdrawn("it is too much")

    with pytest.raises(Overdrawn):
        await toys.reader.run(counted)
    assert runs["all"] == 1


async def test_a_refused_transaction_holds_nothing_while_it_is_fenced(place: Place) -> None:
    """The row that it locked is free for whoever must be heard first."""
    async with place.running(LEDGER).started() as ledger, place.running(READER).started() as reader:
        both = Toys(place, ledger, reader)
        await both.deposits(1)
        await both.heard()

        async def lock_and_refuse(tx: Transaction) -> None:
            tx.rests_on.add("ledger")
            held = await tx.connection.execute(SEEN.select().where(SEEN.c.account == "a").with_for_update())
            if held.one().balance < 6:
                await ledger.run(deposit, "a", 5)
                raise Overdrawn("it is too much")

        await reader.run(lock_and_refuse)
        assert await reader.run(lambda tx: balance_of(tx, "a", SEEN)) == 6


async def test_a_read_may_fence_before_it_looks(late_toys: Toys) -> None:
    await late_toys.ledger.run(open_account, "a")
    await late_toys.reader.fence({"ledger"})
    assert await late_toys.reader.run(lambda tx: balance_of(tx, "a", SEEN)) == 0


async def test_many_fences_at_once_all_see_what_was_committed_before_them(late_toys: Toys) -> None:
    async def open_and_note(account: str) -> None:
        await late_toys.ledger.run(open_account, account)
        await late_toys.reader.run(note, account)

    await asyncio.gather(*(open_and_note(f"a{number}") for number in range(20)))
    assert await late_toys.place.value("select count(*) from reader.events") == 20


async def test_while_the_source_is_down_a_refusal_that_rests_on_it_is_unavailable_at_once(place: Place) -> None:
    async with place.running(READER).started() as reader:
        async with place.running(LEDGER).started() as ledger:
            await ledger.run(open_account, "a")
            await reader.run(note, "a")
        began = time.monotonic()
        with pytest.raises(Unavailable) as unavailable:
            await reader.run(note, "nobody")
        assert time.monotonic() - began < 5
        assert (unavailable.value.status, unavailable.value.headers) == (503, {"Retry-After": "1"})
        await reader.run(note, "a")  # what it knows, it goes on by


async def test_a_source_that_does_not_answer_is_waited_for_no_longer_than_the_bound(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel.WAIT_SECONDS == 5.0, "design §4"
    monkeypatch.setattr(kernel, "WAIT_SECONDS", 0.3)
    async with place.running(READER).started() as reader, silent(place, LastPosition):
        with pytest.raises(Unavailable, match="reader is behind ledger"):
            await reader.run(note, "nobody")


@asynccontextmanager
async def silent(place: Place, *questions: type[Question]) -> AsyncIterator[None]:
    """A ledger that is asked and says nothing."""
    client = await nats.connect(place.nats_url)
    wire = place.running(LEDGER).wire
    for question in questions:
        await client.subscribe(wire.ask_subject("ledger", question))
    try:
        yield
    finally:
        await client.close()


# Who carries a command out


async def deposit_and_have_it_noted(tx: Transaction, account: str, amount: int) -> None:
    tx.carried_out_by.add("reader")
    await deposit(tx, account, amount)


async def test_a_command_that_others_carry_out_returns_when_they_have(late_toys: Toys) -> None:
    await late_toys.ledger.run(open_account, "a")
    await late_toys.ledger.run(deposit_and_have_it_noted, "a", 5)
    assert await late_toys.place.value("select count(*) from reader.events") == 1
    assert await late_toys.reader.run(lambda tx: balance_of(tx, "a", SEEN)) == 5


async def test_if_those_who_carry_it_out_are_down_the_command_stands_and_its_repetition_waits_for_them(
    place: Place,
) -> None:
    async with place.running(LEDGER).started() as ledger:
        await ledger.run(open_account, "a")
        with pytest.raises(Unavailable):
            await ledger.run(deposit_and_have_it_noted, "a", 5)
        assert await ledger.run(balance_of, "a") == 5

        async def again(tx: Transaction) -> None:
            tx.carried_out_by.add("reader")  # and it decides nothing: it is done

        with pytest.raises(Unavailable):
            await ledger.run(again)
        async with place.running(READER).started():
            await ledger.run(again)
            assert await place.value("select count(*) from reader.events") == 1


async def test_a_command_that_others_fail_to_carry_out_is_unavailable_and_stands(toys: Toys) -> None:
    """Whoever carries it out fails: the command stands, and is 503, with nothing of the other's fault in it."""
    await toys.ledger.run(open_account, "a")
    toys.reader.own.poison.add("a")
    with pytest.raises(Unavailable) as unavailable:
        await toys.ledger.run(deposit_and_have_it_noted, "a", 5)
    assert unavailable.value.headers == {"Retry-After": "1"}
    assert "poison" not in unavailable.value.message


# Barriers


async def test_a_command_that_named_a_barrier_waits_for_its_own_position(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    assert toys.place.barriers == []
    await toys.ledger.run(close_account, "a")
    assert toys.place.barriers == [("ledger", {"ledger": 2})]


async def test_its_repetition_that_decides_nothing_waits_for_the_streams_last_position(toys: Toys) -> None:
    """The first one may have been cut off before every worker had heard of it."""
    await toys.ledger.run(open_account, "a")
    await toys.ledger.run(close_account, "a")
    await toys.ledger.run(open_account, "b")
    await toys.ledger.run(close_account, "a")
    assert toys.place.barriers[1:] == [("ledger", {"ledger": 2})]


async def test_its_repetition_that_is_refused_waits_too(toys: Toys) -> None:
    async def close_strictly(tx: Transaction, account: str) -> None:
        if not await close_account(tx, account):
            raise AccountUnknown("there is no such account")

    await toys.ledger.run(open_account, "a")
    await toys.ledger.run(close_strictly, "a")
    await toys.ledger.run(open_account, "b")
    with pytest.raises(AccountUnknown):
        await toys.ledger.run(close_strictly, "a")
    assert toys.place.barriers[1:] == [("ledger", {"ledger": 2})]


async def test_a_barrier_on_a_stream_that_never_was_is_not_waited_for(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    await toys.ledger.run(close_account, "nobody")
    assert toys.place.barriers == []


async def test_a_barrier_names_the_position_of_the_last_of_several_streams(toys: Toys) -> None:
    async def close_both(tx: Transaction) -> None:
        await close_account(tx, "a")
        await close_account(tx, "b")

    await toys.ledger.run(open_account, "a")
    await toys.ledger.run(open_account, "b")
    await toys.ledger.run(close_both)
    await toys.ledger.run(open_account, "c")
    await toys.ledger.run(close_both)
    assert [positions["ledger"] for _, positions in toys.place.barriers] == [4, 4]


async def test_a_barrier_also_names_the_positions_of_those_who_carried_it_out(toys: Toys) -> None:
    async def deposit_barred(tx: Transaction) -> None:
        tx.barriers.add(stream_of("a"))
        await deposit_and_have_it_noted(tx, "a", 5)

    await toys.deposits(2)
    await toys.ledger.run(deposit_barred)
    assert toys.place.barriers == [("ledger", {"ledger": 4, "reader": 3})]


async def test_a_barred_command_returns_only_when_the_barrier_has_and_stands_if_it_fails(place: Place) -> None:
    passed, failing = asyncio.Event(), asyncio.Event()

    async def barrier(_: Running[Any], __: Mapping[str, int]) -> None:
        await passed.wait()
        if failing.is_set():
            raise Unavailable("budgets can't be asked")

    async with Running(
        LEDGER,
        LEDGER.settings(),
        dsn=place.dsn("ledger"),
        nats_url=place.nats_url,
        barrier=barrier,
        namespace=place.namespace,
    ).started() as ledger:
        await ledger.run(open_account, "a")
        closing = asyncio.create_task(ledger.run(close_account, "a"))
        await eventually(lambda: _is_closed(ledger, "a"))
        assert not closing.done()
        passed.set()
        await closing
        failing.set()
        await ledger.run(open_account, "b")
        with pytest.raises(Unavailable):
            await ledger.run(close_account, "b")
        assert await ledger.run(balance_of, "b") is None


async def _is_closed(ledger: Running[Any], account: str) -> bool:
    return await ledger.run(balance_of, account) is None


# Jobs


async def test_a_job_runs_again_and_again_also_after_it_failed(place: Place) -> None:
    runs: list[str] = []

    async def work(running: Running[Any]) -> None:
        runs.append(running.service.name)
        if len(runs) == 1:
            raise RuntimeError("a bug")

    busy = replace(LEDGER, jobs=[Job("work", every_seconds=0.01, run=work)])
    with capture_logs() as logs:
        async with place.running(busy).started():
            await eventually(lambda: len(runs) >= 3)
    assert set(runs) == {"ledger"}
    assert [entry["job"] for entry in logs if entry["event"] == "job.failed"] == ["work"]


async def test_one_replica_does_the_jobs(place: Place) -> None:
    workers: list[Running[Any]] = []

    async def work(running: Running[Any]) -> None:
        workers.append(running)

    busy = replace(LEDGER, jobs=[Job("work", every_seconds=0.01, run=work)])
    async with place.running(busy).started(), place.running(busy).started():
        await eventually(lambda: len(workers) >= 20)
        assert len(set(map(id, workers))) == 1


# Beginning and end


async def test_a_service_keeps_what_its_lifespan_gives_until_it_ends(place: Place) -> None:
    ended: list[str] = []

    @asynccontextmanager
    async def lifespan(running: Running[Any]) -> AsyncIterator[str]:
        yield f"the {running.service.name}'s own"
        ended.append(running.service.name)

    async with place.running(replace(LEDGER, lifespan=lifespan)).started() as ledger:
        assert ledger.own == "the ledger's own"
        assert await ledger.run(_own) == "the ledger's own"
        assert ended == []
    assert ended == ["ledger"]


async def _own(tx: Transaction) -> Any:
    return tx.own


async def test_a_service_that_ends_leaves_no_task_and_no_connection(place: Place) -> None:
    before = asyncio.all_tasks()
    async with toys(place) as running:
        await running.deposits(2)
        await running.heard()
        await eventually(running.reader.on_duty.is_set)
    await eventually(lambda: asyncio.all_tasks() <= before)
    await eventually(lambda: _no_service_is_connected(place))


async def _no_service_is_connected(place: Place) -> bool:
    query = "select count(*) from pg_stat_activity where datname = current_database() and usename like 'keystead%'"
    return bool(await place.value(query) == 0)


async def test_a_service_says_whether_what_it_needs_is_there(toys: Toys) -> None:
    assert await toys.ledger.health() == Health(database=True, nats=True, ready=True)
    await toys.ledger.wire.broker.stop()
    assert await toys.ledger.health() == Health(database=True, nats=False, ready=True)


async def test_a_transaction_goes_by_the_clock_it_was_given(place: Place) -> None:
    async with place.running(LEDGER).started() as ledger:
        assert await ledger.run(_now) == Clock().now


async def _now(tx: Transaction) -> Any:
    return tx.now


async def test_a_handler_gets_its_arguments_and_gives_its_answer(toys: Toys) -> None:
    async def add(_: Transaction, left: int, *, right: int) -> int:
        return left + right

    assert await toys.ledger.run(add, 1, right=2) == 3


async def test_a_handlers_own_fault_is_raised_as_it_is_and_nothing_is_committed(toys: Toys) -> None:
    async def fail(tx: Transaction) -> None:
        await open_account(tx, "a")
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await toys.ledger.run(fail)
    assert await toys.place.value("select count(*) from ledger.events") == 0
