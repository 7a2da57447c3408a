"""Projections: an inline one is folded in the commit, one of another's events with the position (design §3, §4)."""

import asyncio
from dataclasses import replace

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, select

from shared.event_store import Transaction
from shared.events import Event
from shared.projections import Projection, upsert
from tests.support.toys import (
    ACCOUNTS,
    LEDGER,
    READER,
    SEEN,
    Deposited,
    Place,
    Toys,
    balance_of,
    deposit,
    eventually,
    folding,
    open_account,
)

TABLES = MetaData()
THINGS = Table(
    "things_7",
    TABLES,
    Column("left", Text, primary_key=True),
    Column("right", Text, primary_key=True),
    Column("amount", BigInteger),
)


async def test_replicas_that_start_at_once_make_the_tables_once(place: Place) -> None:
    replicas = [place.running(LEDGER) for _ in range(5)]

    async def start_and_end(number: int) -> None:
        async with replicas[number].started():
            pass

    await asyncio.gather(*(start_and_end(number) for number in range(len(replicas))))
    assert await place.value("select count(*) from pg_tables where tablename = 'accounts_1'") == 1


async def test_a_read_model_belongs_to_the_service_and_lies_in_its_schema(toys: Toys) -> None:
    query = "select schemaname, tableowner from pg_tables where tablename = $1"
    assert await toys.place.fetch(query, "accounts_1") == [("ledger", "keystead_ledger")]
    assert await toys.place.fetch(query, "seen_1") == [("reader", "keystead_reader")]


async def test_a_read_model_is_kept_from_start_to_start(place: Place) -> None:
    async with place.running(LEDGER).started() as ledger:
        await ledger.run(open_account, "a")
    async with place.running(LEDGER).started() as ledger:
        assert await ledger.run(balance_of, "a") == 0


async def test_an_inline_projection_is_committed_with_its_event_or_not_at_all(toys: Toys) -> None:
    """A reader on another connection sees both or neither, never one."""
    done = asyncio.Event()
    torn: list[tuple[int, int]] = []

    async def watch() -> None:
        query = (
            "select (select count(*) from ledger.events where type = 'Deposited'),"
            " (select coalesce(sum(balance), 0) from ledger.accounts_1)"
        )
        async with toys.place.owner() as owner:
            while not done.is_set():
                torn.extend((events, total) for events, total in await owner.fetch(query) if events != total)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(toys.deposits(8, f"a{number}") for number in range(4)))
    done.set()
    await watching
    assert torn == []
    assert await toys.place.value("select sum(balance)::bigint from ledger.accounts_1") == 32


async def test_projections_of_one_source_are_folded_in_the_order_they_are_listed(place: Place) -> None:
    order: list[str] = []

    def noting(name: str) -> Projection:
        async def project(_: Transaction, __: Event) -> None:
            order.append(name)

        return Projection(name, "ledger", (), project)

    async with place.running(replace(LEDGER, projections=[noting("first"), noting("second")])).started() as ledger:
        await ledger.run(open_account, "a")
    assert order == ["first", "second"]


async def test_a_services_own_events_are_not_folded_by_projections_of_another_source(place: Place) -> None:
    others = Projection("accounts", "elsewhere", (ACCOUNTS,), folding(ACCOUNTS))
    async with place.running(replace(LEDGER, projections=[others])).started() as ledger:
        await ledger.run(open_account, "a")
        assert await ledger.run(balance_of, "a") is None


async def test_a_read_model_is_folded_before_the_handlers_look_at_it(place: Place) -> None:
    balances: list[int | None] = []

    async def look(tx: Transaction, recorded: object) -> None:
        balances.append(await balance_of(tx, "a", SEEN))

    subscription = replace(READER.subscriptions[0], handlers={Deposited: look})
    async with (
        place.running(LEDGER).started() as ledger,
        place.running(replace(READER, subscriptions=[subscription])).started() as reader,
    ):
        await ledger.run(open_account, "a")
        await ledger.run(deposit, "a", 5)
        await reader.fence({"ledger"})
    assert balances == [5]


async def test_read_models_are_equal_to_the_fold_of_the_log(toys: Toys) -> None:
    await asyncio.gather(*(toys.deposits(6, f"a{number}") for number in range(5)))
    await eventually(toys.reader.on_duty.is_set)
    await toys.heard()
    query = "select account, balance, applied from {}.{} order by account"
    of_ledger = await toys.place.fetch(query.format("ledger", "accounts_1"))
    assert await toys.place.fetch(query.format("reader", "seen_1")) == of_ledger
    assert of_ledger == [(f"a{number}", 6, 7) for number in range(5)]


async def test_a_row_is_made_or_changed_whether_it_is_there_or_not(place: Place) -> None:
    async def put(tx: Transaction, left: str, right: str, amount: int | None) -> None:
        await tx.connection.execute(upsert(THINGS, {"left": left, "right": right}, {"amount": amount}))

    async def only_there(tx: Transaction) -> None:
        await tx.connection.execute(upsert(THINGS, {"left": "a", "right": "c"}, {}))

    async def rows(tx: Transaction) -> list[tuple[str, str, int | None]]:
        found = await tx.connection.execute(select(THINGS).order_by(THINGS.c.right))
        return [(row.left, row.right, row.amount) for row in found]

    async with place.running(replace(LEDGER, metadata=TABLES, projections=[])).started() as ledger:
        await ledger.run(put, "a", "b", 1)
        await ledger.run(put, "a", "b", None)
        await ledger.run(put, "a", "c", 3)
        await ledger.run(only_there)
        assert await ledger.run(rows) == [("a", "b", None), ("a", "c", 3)]
