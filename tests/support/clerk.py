"""A third small service: it hears of the ledger and the reader, and counts on streams that its own commands change."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import insert

from shared.aggregate import Aggregate
from shared.errors import Refused
from shared.event_store import Transaction
from shared.events import Catalog, Event, Recorded
from shared.projections import Projection
from shared.service import Service
from shared.settings import Settings
from shared.subscriptions import Subscription
from tests.support.toys import LEDGER_EVENTS, READER_EVENTS, Closed, Noted, balances, folding


class Counted(Event):
    account: str
    amount: int


class Filed(Event):
    account: str


CLERK_EVENTS = Catalog("clerk", Counted, Filed)


class NothingToFile(Refused):
    reason = "not_found"


@dataclass(frozen=True)
class Tally:
    notes: int = 0


@dataclass(frozen=True)
class Count:
    account: str
    amount: int


@dataclass(frozen=True)
class File:
    """``asked`` by somebody, who is told if there is nothing."""

    account: str
    asked: bool = False


def decide(tally: Tally, command: Count | File) -> Sequence[Event]:
    match command:
        case Count(account, amount):
            return [Counted(account=account, amount=amount)]
        case File(asked=True) if not tally.notes:
            raise NothingToFile("nothing was noted since")
        case File() if not tally.notes:
            return []
        case File(account):
            return [Filed(account=account)]


def evolve(tally: Tally, event: Event) -> Tally:
    return replace(tally, notes=tally.notes + 1) if isinstance(event, Counted) else Tally()


TALLY: Aggregate[Tally, Count | File, Event] = Aggregate(Tally(), decide, evolve)

CLERK_TABLES = MetaData()


def sums(name: str) -> Table:
    return Table(
        name,
        CLERK_TABLES,
        Column("account", Text, primary_key=True),
        Column("amount", BigInteger, nullable=False),
        Column("applied", Integer, nullable=False),
    )


TALLIES, HEARD = sums("tallies_1"), sums("heard_1")
KNOWN = balances("known_1", CLERK_TABLES)


async def _add(tx: Transaction, table: Table, account: str, amount: int) -> None:
    added = {"amount": table.c.amount + amount, "applied": table.c.applied + 1}
    statement = insert(table).values(account=account, amount=amount, applied=1)
    await tx.connection.execute(statement.on_conflict_do_update(index_elements=["account"], set_=added))


async def project_tally(tx: Transaction, event: Event) -> None:
    match event:
        case Counted(account=account, amount=amount):
            await _add(tx, TALLIES, account, amount)
        case Filed(account=account):
            await tx.connection.execute(TALLIES.delete().where(TALLIES.c.account == account))


async def project_note(tx: Transaction, event: Event) -> None:
    if isinstance(event, Noted):
        await _add(tx, HEARD, event.account, event.amount)


def stream_of(account: str) -> str:
    return f"tally-{account}"


async def on_noted(tx: Transaction, recorded: Recorded) -> None:
    noted = recorded.event
    assert isinstance(noted, Noted)
    await tx.execute(stream_of(noted.account), TALLY, Count(noted.account, noted.amount))


async def on_closed(tx: Transaction, recorded: Recorded) -> None:
    closed = recorded.event
    assert isinstance(closed, Closed)
    await tx.execute(stream_of(closed.account), TALLY, File(closed.account))


async def file_tally(tx: Transaction, account: str) -> None:
    """Refused on what the reader's events say."""
    tx.rests_on.add("reader")
    await tx.execute(stream_of(account), TALLY, File(account, asked=True))


CLERK: Service[Settings] = Service(
    name="clerk",
    settings=Settings,
    catalog=CLERK_EVENTS,
    routes=(),
    metadata=CLERK_TABLES,
    projections=[
        Projection("tallies", "clerk", (TALLIES,), project_tally),
        Projection("known", "ledger", (KNOWN,), folding(KNOWN)),
        Projection("heard", "reader", (HEARD,), project_note),
    ],
    subscriptions=[
        Subscription(LEDGER_EVENTS, handlers={Closed: on_closed}),
        Subscription(READER_EVENTS, handlers={Noted: on_noted}),
    ],
)
