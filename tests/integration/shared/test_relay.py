"""The relay: every committed event gets to JetStream, in order, whatever is cut, lost or done twice (design §4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from keystead.data_folder import DataFolder
from keystead.servers import NatsServer
from shared import relay
from shared.errors import Unavailable
from shared.event_store import Transaction
from shared.relay import BATCH, publish_next
from tests.support.faults import LoseSessions, befalls
from tests.support.toys import (
    LEDGER,
    Opened,
    Place,
    Toys,
    balance_of,
    deposit,
    eventually,
    open_account,
    place,
    published,
    toys,
)


async def record_many(tx: Transaction, count: int) -> None:
    for number in range(count):
        await tx.record("many", Opened(account=f"a{number}"))


@asynccontextmanager
async def on_hand(here: Place) -> AsyncIterator[tuple[Toys, "asyncpg.Connection[asyncpg.Record]"]]:
    """Toys whose relay never publishes by itself, for the duty is ours, and a connection to do it by hand."""
    async with asyncpg_connection(here) as connection:
        await connection.execute("select pg_advisory_lock(hashtextextended('ledger.duty', 0))")
        async with toys(here) as running:
            yield running, connection


async def test_committed_events_are_published_in_position_order(toys: Toys) -> None:
    await toys.ledger.run(record_many, BATCH + 30)
    await toys.ledger.run(record_many, BATCH)
    count = 2 * BATCH + 30
    await eventually(lambda: _published_up_to(toys.place, count))
    assert [message.position for message in await published(toys.ledger)] == list(range(1, count + 1))


async def _published_up_to(here: Place, position: int) -> bool:
    return bool(await here.value("select published = $1 from ledger.relay", position))


async def test_a_commit_wakes_the_relay(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "IDLE_SECONDS", 3600)
    async with toys(place) as running:
        await running.ledger.run(open_account, "a")
        await eventually(lambda: _published_up_to(running.place, 1))
        await running.ledger.run(open_account, "b")
        await eventually(lambda: _published_up_to(running.place, 2))


async def test_an_event_travels_as_a_cloudevent_under_its_own_subject(toys: Toys) -> None:
    await toys.ledger.run(open_account, "ada lovelace@example.test.*>")
    await eventually(lambda: _published_up_to(toys.place, 1))
    (message,) = await published(toys.ledger)
    (row,) = await toys.place.fetch("select id::text, recorded_at, actor, correlation_id from ledger.events")
    subject = "account-ada=20=lovelace=40=example=2e=test=2e==2a==3e="
    assert message.subject == f"{toys.place.namespace}ledger.Opened.{subject}"
    assert message.headers["Nats-Msg-Id"] == row[0]
    assert message.envelope == {
        "specversion": "1.0",
        "id": row[0],
        "source": "ledger",
        "type": "Opened",
        "subject": "account-ada lovelace@example.test.*>",
        "time": row[1].isoformat(),
        "datacontenttype": "application/json",
        "data": {"account": "ada lovelace@example.test.*>", "name": None},
        "position": 1,
        "streamversion": 1,
        "schemaversion": 1,
        "actor": row[2],
        "correlationid": row[3],
        "causationid": None,
    }


async def test_a_relay_that_is_cut_in_mid_batch_goes_on_and_publishes_each_event_once(place: Place) -> None:
    async with on_hand(place) as (running, connection):
        await running.ledger.run(record_many, BATCH)
        cut = asyncio.create_task(publish_next(running.ledger, connection))
        await eventually(lambda: _anything_published(running))
        cut.cancel()
        await asyncio.wait([cut])
        async with asyncpg_connection(place) as another:
            while await publish_next(running.ledger, another):
                pass
        positions = [message.position for message in await published(running.ledger)]
        assert sorted(positions) == list(range(1, BATCH + 1))


@asynccontextmanager
async def asyncpg_connection(here: Place) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(here.dsn("ledger"), server_settings={"search_path": "ledger"})
    try:
        yield connection
    finally:
        await connection.close()


async def _anything_published(toys: Toys) -> bool:
    jetstream, stream = toys.ledger.wire.jetstream, toys.ledger.wire.stream_of("ledger")
    return (await jetstream.stream_info(stream)).state.messages > 0


async def test_a_position_lost_between_publishing_and_its_commit_publishes_nothing_twice(place: Place) -> None:
    async with on_hand(place) as (running, connection):
        await running.ledger.run(record_many, 20)
        assert await publish_next(running.ledger, connection) == 20
        async with place.owner() as owner:
            await owner.execute("update ledger.relay set published = 5")
        assert await publish_next(running.ledger, connection) == 15
        assert [message.position for message in await published(running.ledger)] == list(range(1, 21))


async def test_two_relays_at_once_publish_each_event_once(place: Place) -> None:
    """One that was frozen and wakes, while another has its duty."""
    async with on_hand(place) as (running, connection), asyncpg_connection(place) as other:
        await running.ledger.run(record_many, 50)
        await asyncio.gather(publish_next(running.ledger, connection), publish_next(running.ledger, other))
        assert await _published_up_to(running.place, 50)
        assert len(await published(running.ledger)) == 50


async def test_a_relay_behind_the_other_does_not_take_the_position_back(place: Place) -> None:
    async with on_hand(place) as (running, connection), asyncpg_connection(place) as other:
        await running.ledger.run(record_many, 10)
        running.ledger.relay_delay_seconds = 0.2
        late = asyncio.create_task(publish_next(running.ledger, connection))
        await eventually(lambda: _reads_the_log(place))
        running.ledger.relay_delay_seconds = 0
        await publish_next(running.ledger, other)
        await running.ledger.run(record_many, 10)
        await publish_next(running.ledger, other)
        await late
        assert await _published_up_to(running.place, 20)


async def _reads_the_log(here: Place) -> bool:
    query = "select count(*) from pg_stat_activity where datname = current_database() and query like '%from events%'"
    return bool(await here.value(query))


async def test_a_relay_whose_connections_are_killed_goes_on(place: Place) -> None:
    async with place.running(LEDGER).started() as ledger:  # alone: a reader's question could meet the dead one first
        await ledger.run(open_account, "a")
        await eventually(lambda: _published_up_to(place, 1))
        await befalls(place.owner_url, LoseSessions("ledger"), ledger)
        with pytest.raises(Unavailable):  # the one command that meets the dead connection
            await ledger.run(open_account, "b")
        await ledger.run(open_account, "b")
        await eventually(lambda: _published_up_to(place, 2))


async def test_a_stream_that_was_deleted_is_declared_again_though_nothing_happens(toys: Toys) -> None:
    jetstream, stream = toys.ledger.wire.jetstream, toys.ledger.wire.stream_of("ledger")
    await jetstream.delete_stream(stream)

    async def there_again() -> bool:
        return stream in [info.config.name for info in await jetstream.streams_info()]

    await eventually(there_again)
    config = (await jetstream.stream_info(stream)).config
    assert config.subjects == [f"{toys.place.namespace}ledger.>"]
    assert config.max_age == 7 * 24 * 3600


async def test_while_nats_is_down_commands_go_on_and_afterwards_everyone_hears_of_them(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as data:
        server = NatsServer(data, sync_always=False)
        await server.start()
        try:
            async with place(server.url) as here, toys(here) as running:
                await running.ledger.run(open_account, "a")
                await running.heard()
                await server.stop()
                await running.ledger.run(deposit, "a", 5)
                assert await running.ledger.run(balance_of, "a") == 5
                await server.start()
                await running.ledger.run(deposit, "a", 6)
                await eventually(lambda: _seen(running, "a", 11))
                await eventually(lambda: _published_up_to(running.place, 3))
        finally:
            await server.stop()


async def _seen(toys: Toys, account: str, balance: int) -> bool:
    return await toys.place.fetch("select balance from reader.seen_1 where account = $1", account) == [(balance,)]


async def test_an_event_that_this_program_does_not_know_is_published_as_it_stands(toys: Toys) -> None:
    """A newer program wrote it, and is gone again: its subscribers may know it."""
    async with toys.place.owner() as owner:
        await owner.execute(
            "insert into ledger.events select 1, gen_random_uuid(), 'a', 1, 'Frozen', 3,"
            " '{\"by\": \"ada\"}', 'ada', 'c', null, now()"
        )
    await toys.ledger.run(open_account, "a")
    await eventually(lambda: _published_up_to(toys.place, 2))
    message = (await published(toys.ledger))[0]
    assert message.subject == f"{toys.place.namespace}ledger.Frozen.a"
    assert message.envelope["type"] == "Frozen"
    assert message.envelope["schemaversion"] == 3
    assert message.envelope["data"] == {"by": "ada"}
