"""Two small services to try the kernel with: a ledger that keeps accounts, and a reader that hears of them."""

import base64
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import nats
import nats.js.errors
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text, select, update

from shared import trace
from shared.aggregate import Aggregate
from shared.errors import Refused
from shared.event_store import Transaction
from shared.events import Catalog, Event, Recorded
from shared.keyring import Keyring
from shared.projections import Projection, upsert
from shared.requests import Found, Question
from shared.schema import migrate, role_of
from shared.service import Running, Service
from shared.settings import Settings
from shared.subscriptions import Subscription
from tests.support import eventually as bounded
from tests.support.databases import copy_of
from tests.support.servers import nats_url
from tests.support.streams import forget_streams

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEYRING = Keyring(base64.b64encode(b"the toys' key, as long as it must").decode())
PASSWORDS = {name: KEYRING.password(f"postgres:{name}") for name in ("ledger", "reader", "clerk")}
PATIENCE_SECONDS = 20.0


# The ledger: what happened, and what may.


class Opened(Event):
    account: str
    name: str | None = None


class Deposited(Event):
    account: str
    amount: int
    deposited_at: datetime


class Closed(Event):
    account: str


LEDGER_EVENTS = Catalog("ledger", Opened, Deposited, Closed)


class AccountExists(Refused):
    reason = "in_use"


class AccountUnknown(Refused):
    reason = "not_found"


class Overdrawn(Refused):
    reason = "over_own_limit"


class NameTaken(Refused):
    reason = "duplicate_key_alias"


@dataclass(frozen=True)
class Account:
    open: bool = False
    balance: int = 0


@dataclass(frozen=True)
class Open:
    account: str
    name: str | None


@dataclass(frozen=True)
class Deposit:
    account: str
    amount: int
    now: datetime


@dataclass(frozen=True)
class Close:
    account: str


def decide(account: Account, command: Open | Deposit | Close) -> list[Event]:
    match command:
        case Open() if account.open:
            raise AccountExists("the account is open")
        case Open(name_of_account, name):
            return [Opened(account=name_of_account, name=name)]
        case Close() if not account.open:
            return []
        case Close(name_of_account):
            return [Closed(account=name_of_account)]
        case Deposit() if not account.open:
            raise AccountUnknown("there is no such account")
        case Deposit(amount=amount) if account.balance + amount < 0:
            raise Overdrawn(f"the balance is {account.balance}", param="amount")
        case Deposit(name_of_account, amount, now):
            return [Deposited(account=name_of_account, amount=amount, deposited_at=now)]


def evolve(account: Account, event: Event) -> Account:
    match event:
        case Opened():
            return Account(open=True)
        case Deposited(amount=amount):
            return replace(account, balance=account.balance + amount)
        case _:
            return Account()


ACCOUNT: Aggregate[Account, Open | Deposit | Close, Event] = Aggregate(Account(), decide, evolve)


# Its read model, folded in the commit, and its handlers.

LEDGER_TABLES = MetaData()


def balances(name: str, tables: MetaData) -> Table:
    """A copy of the accounts; ``folding`` is what fills it."""
    return Table(
        name,
        tables,
        Column("account", Text, primary_key=True),
        Column("balance", BigInteger, nullable=False, server_default="0"),
        Column("applied", Integer, nullable=False, server_default="0"),
    )


ACCOUNTS = balances("accounts_1", LEDGER_TABLES)


def folding(table: Table) -> Callable[[Transaction, Event], Awaitable[None]]:
    """Fold the ledger's events into ``table``; ``applied`` counts, so that twice shows."""

    async def project(tx: Transaction, event: Event) -> None:
        match event:
            case Opened(account=account):
                values = {"balance": 0, "applied": 1}
                await tx.connection.execute(upsert(table, {"account": account}, values))
            case Deposited(account=account, amount=amount):
                changed = {"balance": table.c.balance + amount, "applied": table.c.applied + 1}
                await tx.connection.execute(update(table).where(table.c.account == account).values(changed))
            case Closed(account=account):
                await tx.connection.execute(table.delete().where(table.c.account == account))

    return project


def stream_of(account: str) -> str:
    return f"account-{account}"


async def open_account(tx: Transaction, account: str, name: str | None = None) -> None:
    claims: dict[str, Refused] = {f"name:{name}": NameTaken(f"the name {name} is taken")} if name else {}
    await tx.execute(stream_of(account), ACCOUNT, Open(account, name), claims=claims)


async def deposit(tx: Transaction, account: str, amount: int) -> None:
    await tx.execute(stream_of(account), ACCOUNT, Deposit(account, amount, tx.now))


async def close_account(tx: Transaction, account: str, name: str | None = None) -> Sequence[Event]:
    """Barred: nobody goes by an account that is closed; and the reader has heard of it."""
    tx.barriers.add(stream_of(account))
    releases = [f"name:{name}"] if name else []
    return await tx.execute(stream_of(account), ACCOUNT, Close(account), releases=releases)


async def balance_of(tx: Transaction, account: str, table: Table = ACCOUNTS) -> int | None:
    return (await tx.connection.execute(select(table.c.balance).where(table.c.account == account))).scalar()


class FindAccount(Question):
    account: str


class FoundAccount(Found):
    balance: int = 0


class Misbehave(Question):
    """Answer as told."""

    how: str


class Echo(Found):
    correlation_id: str
    causation_id: str | None
    actor: str


async def find_account(running: Running[Any], question: FindAccount) -> FoundAccount:
    async def find(tx: Transaction) -> FoundAccount:
        balance = await balance_of(tx, question.account)
        return FoundAccount(
            position=await tx.last_position(), exists=balance is not None, balance=balance if balance is not None else 0
        )

    return await running.run(find)


async def misbehave(_: Running[Any], question: Misbehave) -> Echo:
    match question.how:
        case "refuse":
            raise Refused(
                "it is over the limit",
                reason="over_own_limit",
                param="a.b",
                type="odd_error",
                headers={"Retry-After": "7"},
            )
        case "crash":
            raise RuntimeError("a bug")
    now = trace.current()
    return Echo(
        position=0, exists=True, correlation_id=now.correlation_id, causation_id=now.causation_id, actor=now.actor
    )


LEDGER: Service[Settings] = Service(
    name="ledger",
    settings=Settings,
    catalog=LEDGER_EVENTS,
    routes=(),
    metadata=LEDGER_TABLES,
    projections=[Projection("accounts", "ledger", (ACCOUNTS,), folding(ACCOUNTS))],
    answers={FindAccount: find_account, Misbehave: misbehave},
)


# The reader: its copy of the accounts, and a note of its own on every deposit.


class Noted(Event):
    account: str
    amount: int


READER_EVENTS = Catalog("reader", Noted)
READER_TABLES = MetaData()
SEEN = balances("seen_1", READER_TABLES)


@dataclass
class Habits:
    """What a test makes of a reader: ``poison`` are the accounts whose deposits it fails on.

    ``stumbles`` is how often it fails yet, whatever the account.
    """

    poison: set[str] = field(default_factory=set)
    stumbles: int = 0
    handled: list[int] = field(default_factory=list)


@asynccontextmanager
async def habits(_: Running[Any]) -> AsyncIterator[Habits]:
    yield Habits()


async def on_deposited(tx: Transaction, recorded: Recorded) -> None:
    event = recorded.event
    assert isinstance(event, Deposited)
    tx.own.handled.append(recorded.position)
    await tx.record(f"notes-{event.account}", Noted(account=event.account, amount=event.amount))
    if event.account in tx.own.poison:
        raise RuntimeError(f"{event.account} is poison")
    if tx.own.stumbles:
        tx.own.stumbles -= 1
        raise RuntimeError("stumbled")


async def note(tx: Transaction, account: str) -> None:
    """Note an account that the ledger has; refused on what the ledger's events say."""
    tx.rests_on.add("ledger")
    if await balance_of(tx, account, SEEN) is None:
        raise AccountUnknown("there is no such account")
    await tx.record(f"notes-{account}", Noted(account=account, amount=0))


READER: Service[Settings] = Service(
    name="reader",
    settings=Settings,
    catalog=READER_EVENTS,
    routes=(),
    metadata=READER_TABLES,
    projections=[Projection("seen", "ledger", (SEEN,), folding(SEEN))],
    subscriptions=[Subscription(LEDGER_EVENTS, handlers={Deposited: on_deposited})],
    lifespan=habits,
)


# At work.


@dataclass
class Clock:
    """The instant that everything goes by, until a test sets it."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Place:
    """A database and names at NATS that are a test's own, and what its services do there."""

    owner_url: str
    namespace: str
    nats_url: str
    clock: Clock = field(default_factory=Clock)
    barriers: list[tuple[str, dict[str, int]]] = field(default_factory=list)

    def running(self, service: Service[Any], **options: Any) -> Running[Any]:
        """A replica of ``service`` that is not started yet."""
        return Running(
            service,
            service.settings(),
            dsn=self.dsn(service.name),
            nats_url=self.nats_url,
            barrier=self._barrier,
            namespace=self.namespace,
            clock=self.clock,
            **options,
        )

    def dsn(self, service: str) -> str:
        """The service's own log-in."""
        return f"postgresql://{role_of(service)}:{PASSWORDS[service]}@{self.owner_url.partition('@')[2]}"

    async def _barrier(self, running: Running[Any], positions: Mapping[str, int]) -> None:
        self.barriers.append((running.service.name, dict(positions)))

    @asynccontextmanager
    async def owner(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """The superuser in this database, who sees and does what no service may."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def fetch(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """Rows, by the owner."""
        async with self.owner() as owner:
            return [tuple(row.values()) for row in await owner.fetch(query, *args)]

    async def value(self, query: str, *args: Any) -> Any:
        return (await self.fetch(query, *args))[0][0]


@asynccontextmanager
async def place(at: str | None = None) -> AsyncIterator[Place]:
    """A place of a test's own; its streams are gone afterwards."""
    async with copy_of("keystead_toys", _migrate) as owner_url:
        here = Place(owner_url, f"t{uuid.uuid4().hex[:10]}.", at or nats_url())
        yield here
        await forget_streams(here.nats_url, here.namespace)


@dataclass
class Toys:
    """Both services at work."""

    place: Place
    ledger: Running[Any]
    reader: Running[Any]

    async def deposits(self, count: int, account: str = "a") -> None:
        """An account, and that many deposits of 1 to it."""
        await self.ledger.run(open_account, account)
        for _ in range(count):
            await self.ledger.run(deposit, account, 1)

    async def heard(self) -> None:
        """Back when the reader has applied all that the ledger has committed."""
        await self.reader.fence({"ledger"})


@asynccontextmanager
async def toys(here: Place, **options: Any) -> AsyncIterator[Toys]:
    async with (
        here.running(LEDGER, **options).started() as ledger,
        here.running(READER, **options).started() as reader,
    ):
        yield Toys(here, ledger, reader)


@dataclass(frozen=True)
class Published:
    """A message in a service's stream."""

    subject: str
    headers: dict[str, str]
    envelope: dict[str, Any]

    @property
    def position(self) -> int:
        return int(self.envelope["position"])


async def published(running: Running[Any]) -> list[Published]:
    """All that JetStream holds of a service's events, in its order."""
    jetstream, stream = running.wire.jetstream, running.wire.stream_of(running.service.name)
    state = (await jetstream.stream_info(stream)).state
    messages = []
    for number in range(max(1, state.first_seq), state.last_seq + 1):
        with suppress(nats.js.errors.NotFoundError):  # deleted
            messages.append(await jetstream.get_msg(stream, number))
    return [Published(m.subject or "", m.headers or {}, json.loads(m.data or b"")) for m in messages]


async def eventually(is_so: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE_SECONDS) -> None:
    """As everywhere, with more patience: what the kernel's tests wait for has no bound but the machine's speed."""
    await bounded.eventually(is_so, seconds)


async def _migrate(owner_url: str) -> None:
    await migrate(owner_url, dict.fromkeys(PASSWORDS, ()), PASSWORDS)
