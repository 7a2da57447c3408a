"""A transaction: what is decided, claimed and projected is committed as a whole, in one order for all (design §3)."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from shared.aggregate import Aggregate
from shared.errors import Refused, Unavailable
from shared.event_store import Transaction
from shared.events import Event
from shared.service import Running
from tests.support.toys import (
    ACCOUNT,
    NOON,
    AccountExists,
    Deposit,
    Deposited,
    NameTaken,
    Open,
    Opened,
    Overdrawn,
    Place,
    Toys,
    balance_of,
    close_account,
    deposit,
    eventually,
    open_account,
    stream_of,
)

LOG = "select position, stream, version, recorded_at from ledger.events order by position"


async def test_a_caller_reads_its_own_write_at_once(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    await toys.ledger.run(deposit, "a", 5)
    assert await toys.ledger.run(balance_of, "a") == 5


async def test_a_transaction_reads_its_own_projection_before_it_commits(toys: Toys) -> None:
    async def open_and_look(tx: Transaction) -> int | None:
        await open_account(tx, "a")
        return await balance_of(tx, "a")

    assert await toys.ledger.run(open_and_look) == 0


# Positions


async def test_times_do_not_go_back_within_a_commit_of_many_streams(toys: Toys) -> None:
    """They are inserted in the order of their streams, and numbered in the order in which they happened."""
    streams = [f"s{number % 7}-{number}" for number in range(50)]

    async def record(tx: Transaction) -> None:
        for stream in streams:
            await tx.record(stream, Opened(account=stream))

    await toys.ledger.run(record)
    rows = await toys.place.fetch(LOG)
    assert [stream for _, stream, _, _ in rows] == streams
    assert [at for *_, at in rows] == sorted(at for *_, at in rows)


async def test_positions_have_no_gap_and_times_never_go_back_under_eight_writers(toys: Toys) -> None:
    async def write(writer: int) -> None:
        account = f"a{writer}"
        await toys.ledger.run(open_account, account)
        for _ in range(12):
            await toys.ledger.run(deposit, account, 1)
            with pytest.raises(Overdrawn):
                await toys.ledger.run(deposit_too_little, account)

    await asyncio.gather(*(write(writer) for writer in range(8)))
    rows = await toys.place.fetch(LOG)
    assert [position for position, *_ in rows] == list(range(1, 8 * 13 + 1))
    times = [recorded_at for *_, recorded_at in rows]
    assert times == sorted(times)
    versions: dict[str, list[int]] = {}
    for _, stream, version, _ in rows:
        versions.setdefault(stream, []).append(version)
    assert all(of_stream == list(range(1, 14)) for of_stream in versions.values())


async def deposit_too_little(tx: Transaction, account: str) -> None:
    await deposit(tx, account, 1)
    await deposit(tx, account, -1_000_000)


async def test_positions_are_in_commit_order(toys: Toys) -> None:
    """Whoever sees a position sees all before it, so a reader that stops there misses nothing."""
    done = asyncio.Event()

    async def write(writer: int) -> None:
        await toys.ledger.run(open_account, f"a{writer}")
        for _ in range(15):
            await toys.ledger.run(deposit, f"a{writer}", 1)

    async def watch() -> int:
        looks = 0
        async with toys.place.owner() as owner:
            while not done.is_set():
                seen = [row["position"] for row in await owner.fetch("select position from ledger.events")]
                assert sorted(seen) == list(range(1, len(seen) + 1))
                looks += 1
        return looks

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(write(writer) for writer in range(8)))
    done.set()
    assert await watching > 5


async def test_a_recorded_time_is_not_before_the_last_one_even_if_the_clock_went_back(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    async with toys.place.owner() as owner:
        await owner.execute("update ledger.events set recorded_at = recorded_at + interval '1 hour'")
    await toys.ledger.run(deposit, "a", 1)
    (_, _, _, first), (_, _, _, second) = await toys.place.fetch(LOG)
    assert second == first


async def test_events_carry_the_instant_that_their_transaction_goes_by(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    toys.place.clock.now = NOON + timedelta(days=400)
    await toys.ledger.run(deposit, "a", 1)
    data = json.loads(await toys.place.value("select data::text from ledger.events where position = 2"))
    assert data["deposited_at"] == "2027-12-29T12:00:00Z"


# Conflicts


# A stream whose events touch no row: nothing but the versions keeps two writers apart.
SUM: Aggregate[int, int, Event] = Aggregate(
    0,
    lambda _, amount: [Deposited(account="nobody", amount=amount, deposited_at=NOON)],
    lambda total, event: total + (event.amount if isinstance(event, Deposited) else 0),
)


async def test_after_a_conflict_of_versions_the_handler_runs_again_and_both_land(toys: Toys) -> None:
    both_decided = asyncio.Barrier(2)
    totals_seen: dict[int, list[int]] = {5: [], 7: []}

    async def add(tx: Transaction, amount: int) -> None:
        total, _ = await tx.load("sum", SUM)
        totals_seen[amount].append(total)
        await tx.execute("sum", SUM, amount)
        if len(totals_seen[amount]) == 1:
            await both_decided.wait()

    await asyncio.gather(toys.ledger.run(add, 5), toys.ledger.run(add, 7))
    assert await toys.ledger.run(lambda tx: tx.load("sum", SUM)) == (12, 2)
    assert totals_seen in ({5: [0], 7: [0, 5]}, {5: [0, 7], 7: [0]}), "one ran again, from its look-ups"


async def test_a_handler_that_conflicts_five_times_is_refused_with_409(toys: Toys) -> None:
    async def overtaken(tx: Transaction) -> None:
        await tx.execute("sum", SUM, 1000)
        await toys.ledger.run(lambda other: other.execute("sum", SUM, 1))

    with pytest.raises(Refused) as refused:
        await toys.ledger.run(overtaken)
    assert (refused.value.status, refused.value.code) == (409, "version_conflict")
    assert await toys.ledger.run(lambda tx: tx.load("sum", SUM)) == (5, 5), "only the others', once a try"


# Claims


async def test_of_twenty_claims_at_once_one_wins(toys: Toys) -> None:
    async def claim(number: int) -> bool:
        try:
            await toys.ledger.run(open_account, f"a{number}", "savings")
        except NameTaken:
            return False
        return True

    won = await asyncio.gather(*(claim(number) for number in range(20)))
    assert won.count(True) == 1
    winner = stream_of(f"a{won.index(True)}")
    assert await toys.place.fetch("select claim, stream from ledger.claims") == [("name:savings", winner)]
    assert await toys.place.fetch("select stream from ledger.events") == [(winner,)]


async def test_crossed_claims_are_taken_in_one_order_and_never_deadlock(toys: Toys) -> None:
    runs = Counter[str]()

    async def claim_both(tx: Transaction, account: str, names: tuple[str, str]) -> None:
        runs[account] += 1
        claims: dict[str, Refused] = {f"name:{name}": NameTaken("it is taken") for name in names}
        await tx.execute(stream_of(account), ACCOUNT, Open(account, None), claims=claims)

    async def one_round(number: int) -> None:
        names = (f"x{number}", f"y{number}")
        both = [
            toys.ledger.run(claim_both, f"a{number}", names),
            toys.ledger.run(claim_both, f"b{number}", names[::-1]),
        ]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if outcome] == [NameTaken]

    for number in range(20):
        await one_round(number)
    assert set(runs.values()) == {1}, "a deadlock would have run one of them again"


async def test_a_name_that_one_releases_and_another_takes_goes_over_in_one_commit(toys: Toys) -> None:
    async def hand_over(tx: Transaction) -> None:
        await close_account(tx, "a", "savings")
        await open_account(tx, "b", "savings")

    await toys.ledger.run(open_account, "a", "savings")
    await toys.ledger.run(hand_over)
    assert await toys.place.fetch("select stream from ledger.claims") == [(stream_of("b"),)]


async def test_crossed_releases_and_claims_do_not_deadlock(toys: Toys) -> None:
    runs = Counter[str]()

    async def move(tx: Transaction, old: str, new: str) -> None:
        runs[old] += 1
        await tx.execute(
            stream_of(old),
            ACCOUNT,
            Deposit(old, 1, tx.now),
            claims={f"name:{new}": NameTaken("it is taken")},
            releases=[f"name:{old}"],
        )

    for name in ("x", "y"):
        await toys.ledger.run(open_account, name, name)
    for _ in range(10):
        outcomes = await asyncio.gather(
            toys.ledger.run(move, "x", "y"), toys.ledger.run(move, "y", "x"), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {NameTaken}
    assert set(runs.values()) == {10}


async def test_a_released_name_is_anybodys(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a", "savings")
    with pytest.raises(NameTaken):
        await toys.ledger.run(open_account, "b", "savings")
    await toys.ledger.run(close_account, "a", "savings")
    await toys.ledger.run(open_account, "b", "savings")


async def test_a_name_is_released_only_by_the_stream_that_has_it(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a", "savings")
    await toys.ledger.run(open_account, "b")
    await toys.ledger.run(close_account, "b", "savings")
    with pytest.raises(NameTaken):
        await toys.ledger.run(open_account, "c", "savings")


async def test_a_stream_may_claim_again_what_it_has(toys: Toys) -> None:
    async def rename(tx: Transaction) -> None:
        claims: dict[str, Refused] = {"name:savings": NameTaken("it is taken")}
        await tx.execute(stream_of("a"), ACCOUNT, Deposit("a", 1, tx.now), claims=claims)

    await toys.ledger.run(open_account, "a", "savings")
    await toys.ledger.run(rename)
    assert await toys.ledger.run(balance_of, "a") == 1


async def test_a_command_that_decides_nothing_claims_and_releases_nothing(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a", "savings")
    await toys.ledger.run(open_account, "b")
    await toys.ledger.run(close_account, "b")
    async with toys.place.owner() as owner:
        await owner.execute("insert into ledger.claims (claim, stream) values ('name:left', $1)", stream_of("b"))
    await toys.ledger.run(close_account, "b", "left")
    assert await toys.place.value("select count(*) from ledger.claims") == 2


# All or nothing


async def test_a_refusal_rolls_back_events_claims_and_projections(toys: Toys) -> None:
    async def open_two(tx: Transaction) -> None:
        await open_account(tx, "a", "savings")
        await open_account(tx, "b", "rent")
        await deposit(tx, "b", -1)

    with pytest.raises(Overdrawn):
        await toys.ledger.run(open_two)
    for table in ("events", "claims", "accounts_1"):
        assert await toys.place.value(f"select count(*) from ledger.{table}") == 0


async def test_a_claim_refused_at_the_end_rolls_back_what_was_projected(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a", "savings")
    with pytest.raises(NameTaken):
        await toys.ledger.run(open_account, "b", "savings")
    assert await toys.place.fetch("select account from ledger.accounts_1") == [("a",)]


async def test_two_commands_on_one_stream_in_one_transaction_see_each_other(toys: Toys) -> None:
    async def open_pay_in_and_out(tx: Transaction) -> None:
        await open_account(tx, "a")
        await deposit(tx, "a", 5)
        with pytest.raises(AccountExists):
            await open_account(tx, "a")
        await deposit(tx, "a", -5)
        with pytest.raises(Overdrawn):
            await deposit(tx, "a", -1)

    await toys.ledger.run(open_pay_in_and_out)
    rows = await toys.place.fetch("select version, type from ledger.events order by position")
    assert rows == [(1, "Opened"), (2, "Deposited"), (3, "Deposited")]


async def test_a_fact_and_a_command_on_one_stream_in_one_transaction_follow_each_other(toys: Toys) -> None:
    async def record_and_decide(tx: Transaction) -> None:
        await tx.record(stream_of("a"), Opened(account="a"))
        await deposit(tx, "a", 5)
        await tx.record(stream_of("a"), Opened(account="a"))
        await deposit(tx, "a", 6)

    await toys.ledger.run(record_and_decide)
    rows = await toys.place.fetch("select version, type from ledger.events order by position")
    assert rows == [(1, "Opened"), (2, "Deposited"), (3, "Opened"), (4, "Deposited")]


async def test_facts_that_nothing_was_decided_for_go_to_the_end_of_their_stream(toys: Toys) -> None:
    async def record(tx: Transaction, account: str) -> None:
        await tx.record("facts", Opened(account=account))
        await tx.record("facts", Opened(account=account))

    await asyncio.gather(*(toys.ledger.run(record, f"a{number}") for number in range(10)))
    rows = await toys.place.fetch("select version from ledger.events where stream = 'facts' order by position")
    assert rows == [(version,) for version in range(1, 21)]


async def test_no_event_without_its_commit(toys: Toys) -> None:
    """A connection that is lost after the append, before the commit, leaves nothing; and the service goes on."""

    async def lose_the_connection(tx: Transaction) -> None:
        await open_account(tx, "a", "savings")
        await tx.flush()
        await _kill(toys.place, (await tx.connection.exec_driver_sql("select pg_backend_pid()")).scalar_one())

    with pytest.raises(Unavailable):
        await toys.ledger.run(lose_the_connection)
    for table in ("events", "claims", "accounts_1"):
        assert await toys.place.value(f"select count(*) from ledger.{table}") == 0
    await toys.ledger.run(open_account, "b", "savings")
    assert await toys.place.fetch("select position, stream from ledger.events") == [(1, stream_of("b"))]


async def _kill(place: Place, pid: int) -> None:
    async with place.owner() as owner:
        await owner.execute("select pg_terminate_backend($1, 5000)", pid)


async def test_while_the_database_is_away_commands_are_unavailable_and_afterwards_not(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    async with away(toys.place):
        for _ in range(3):
            with pytest.raises(Unavailable):
                await toys.ledger.run(deposit, "a", 1)
        assert not (await toys.ledger.health()).database
    await toys.ledger.run(deposit, "a", 1)
    assert await toys.ledger.run(balance_of, "a") == 1


@asynccontextmanager
async def away(place: Place) -> AsyncIterator[None]:
    """No connection to this database, old or new, for the length of the block."""
    server_url, _, database = place.owner_url.rpartition("/")
    server = await asyncpg.connect(f"{server_url}/postgres")
    try:
        await server.execute(f"alter database {database} with allow_connections false")
        await server.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1", database
        )
        yield
        await server.execute(f"alter database {database} with allow_connections true")
    finally:
        await server.close()


async def test_a_fault_of_the_programs_own_is_not_taken_for_the_database_being_away(toys: Toys) -> None:
    async def misspelled(tx: Transaction) -> None:
        await tx.connection.exec_driver_sql("select nothing from nowhere")

    with pytest.raises(Exception, match="nowhere") as fault:
        await toys.ledger.run(misspelled)
    assert not isinstance(fault.value, Refused)


async def test_when_all_connections_are_in_use_a_command_waits_and_then_is_unavailable(toys: Toys) -> None:
    enough = asyncio.Event()

    async def hold(tx: Transaction) -> None:
        await tx.connection.exec_driver_sql("select 1")
        await enough.wait()

    def held(running: Running[Any]) -> int:
        pool: Any = running.engine.pool
        return int(pool.checkedout())

    async with asyncio.TaskGroup() as group:
        for _ in range(20 - held(toys.ledger)):
            group.create_task(toys.ledger.run(hold))
        await eventually(lambda: held(toys.ledger) == 20)
        with pytest.raises(Unavailable):
            await toys.ledger.run(open_account, "a")
        enough.set()
    await toys.ledger.run(open_account, "a")
