"""A service's log: read in spans, told by whom and why; its own role may add to it, and no more (design §2, §3)."""

import asyncpg
import pytest

from shared import trace
from shared.event_store import SPAN_BYTES, Transaction, read_log
from tests.support.toys import Opened, Toys, deposit, open_account


async def test_the_log_is_read_in_spans_that_say_how_far_they_got(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    for _ in range(4):
        await toys.ledger.run(deposit, "a", 1)

    async def read(after: int, limit: int, types: tuple[str, ...] = ()) -> tuple[list[int], int]:
        events, read_up_to = await toys.ledger.run(lambda tx: read_log(tx.connection, tx.catalog, after, limit, types))
        return [event["position"] for event in events], read_up_to

    assert await read(0, 3) == ([1, 2, 3], 3)
    assert await read(3, 3) == ([4, 5], 5)
    assert await read(5, 3) == ([], 5)
    assert await read(0, 3, ("Opened",)) == ([1], 3), "the position counts, also of what was left out"
    assert await read(1, 9, ("Opened",)) == ([], 5)


async def test_a_span_of_the_log_fits_a_message(toys: Toys) -> None:
    async def record_long(tx: Transaction) -> None:
        for _ in range(4):
            await tx.record("long", Opened(account="a", name="x" * (SPAN_BYTES // 2)))

    await toys.ledger.run(record_long)
    events, read_up_to = await toys.ledger.run(lambda tx: read_log(tx.connection, tx.catalog, 0, 100))
    assert ([event["position"] for event in events], read_up_to) == ([1], 1)
    await toys.heard()
    assert await toys.reader.readers["ledger"].position() == 4


async def test_an_event_says_who_did_it_and_what_it_belongs_to(toys: Toys) -> None:
    with trace.tracing(trace.Trace("request 7", causation_id="an event", actor="ada")):
        await toys.ledger.run(open_account, "a")
    rows = await toys.place.fetch("select actor, correlation_id, causation_id from ledger.events")
    assert rows == [("ada", "request 7", "an event")]


async def test_what_nobody_asked_for_is_the_systems_and_each_a_story_of_its_own(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    await toys.ledger.run(open_account, "b")
    (first, second) = await toys.place.fetch("select actor, correlation_id from ledger.events order by position")
    assert first[0] == second[0] == "system"
    assert first[1] != second[1]


# Append-only is a permission


FORBIDDEN = [
    "update ledger.events set actor = 'nobody'",
    "delete from ledger.events",
    "truncate ledger.events",
    "alter table ledger.events add column extra text",
    "drop table ledger.events",
    "create trigger spoil before insert on ledger.events for each row execute function pg_catalog.lo_manage()",
    "insert into ledger.relay (only_row, published) values (false, 0)",
    "delete from ledger.relay",
    "update ledger.claims set stream = 'mine'",
    "delete from ledger.subscriptions",
    "drop function ledger.append_events(jsonb)",
    "select 1 from reader.events",
    "select 1 from reader.seen_1",
    "insert into reader.claims (claim, stream) values ('a', 'b')",
    "select reader.append_events('[]')",
    "create table reader.mine (a int)",
    "create table public.mine (a int)",
    "create schema mine",
    "create role mine",
    "alter role keystead_ledger superuser",
    "set role keystead_reader",
    "set session authorization keystead_reader",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_a_services_own_login_may_add_events_and_nothing_more(shared_toys: Toys, statement: str) -> None:
    connection = await asyncpg.connect(shared_toys.place.dsn("ledger"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_service_may_write_no_event_past_the_log_s_order(shared_toys: Toys) -> None:
    """It may insert, for it appends; the log's own keys keep a second event out of a place that is taken."""
    connection = await asyncpg.connect(shared_toys.place.dsn("ledger"))
    try:
        await shared_toys.ledger.run(open_account, "forged")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("insert into ledger.events select * from ledger.events")
    finally:
        await connection.close()
