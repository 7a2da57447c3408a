"""A service is a value; running, it is that value with its settings, its database and its wire."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import nats.js.errors
import structlog
from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.duty import end, keep_duty
from shared.errors import Refused, Unavailable
from shared.event_store import Transaction, read_log
from shared.events import Catalog, Event
from shared.kept_answers import KeptAnswers, forget_answers
from shared.projections import Projection, create_tables
from shared.relay import relay
from shared.requests import CatchUp, LastPosition, LogSpan, Position, ReadLog
from shared.schema import async_url
from shared.subscriptions import Reader, Subscription
from shared.wire import Wire

log = structlog.get_logger()

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")

ATTEMPTS = 5
WAIT_SECONDS = 5.0  # for a fence, for those who carry a command out: design §4
LAG_CHECK_SECONDS = 1.0
FOLLOW_AGAIN_SECONDS = 0.2
HEALTH_SECONDS = 0.8
FORGET_SECONDS = 600.0
UNIQUE_VIOLATION, DEADLOCK, SERIALIZATION = "23505", "40P01", "40001"
SERVER_IN_TROUBLE = ("08", "53", "57", "58")  # connection, resources, operator's intervention, system

Handler = Callable[..., Awaitable[T]]
Barrier = Callable[["Running[Any]", Mapping[str, int]], Awaitable[None]]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Job:
    """What time causes: run every ``every_seconds`` by one replica, in a transaction of its own."""

    name: str
    every_seconds: float
    run: Callable[["Running[Any]"], Awaitable[None]]


@dataclass(frozen=True)
class Service(Generic[S]):
    """The sum of a service's rooms.

    ``lifespan`` gives what the service keeps while it runs (``Running.own``); ``ready`` says of that whether it can
    do its work.
    """

    name: str
    settings: type[S]
    catalog: Catalog
    routes: Sequence[APIRouter]
    metadata: MetaData = field(default_factory=MetaData)
    projections: Sequence[Projection] = ()
    subscriptions: Sequence[Subscription] = ()
    answers: Mapping[type[Any], Callable[["Running[Any]", Any], Awaitable[BaseModel]]] = field(default_factory=dict)
    jobs: Sequence[Job] = ()
    migrations: Sequence[Path] = ()
    lifespan: Callable[["Running[Any]"], AbstractAsyncContextManager[Any]] | None = None
    ready: Callable[["Running[Any]"], bool] = lambda running: True


class Health(NamedTuple):
    """What a service depends on, and whether it can do its work."""

    database: bool
    nats: bool
    ready: bool

    @property
    def good(self) -> bool:
        return self.database and self.nats and self.ready


class Running(Generic[S]):
    """A service at work in this process."""

    def __init__(
        self,
        service: Service[S],
        settings: S,
        *,
        dsn: str,
        nats_url: str,
        barrier: Barrier,
        namespace: str = "",
        relay_delay_seconds: float = 0.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.service = service
        self.settings = settings
        self.dsn = dsn
        self.clock = clock
        self.relay_delay_seconds = relay_delay_seconds
        self.own: Any = None
        self.on_duty = asyncio.Event()
        self.wire = Wire(service.name, nats_url, namespace=namespace)
        self.engine: AsyncEngine = create_async_engine(
            async_url(dsn),
            pool_size=10,
            max_overflow=10,
            pool_timeout=WAIT_SECONDS,
            pool_pre_ping=False,
            hide_parameters=True,  # a fault's text goes to the log, where no secret and no person belongs
            connect_args={
                "server_settings": {
                    "search_path": service.name,
                    "application_name": f"keystead {service.name}",
                    "idle_in_transaction_session_timeout": "10000",
                },
                "timeout": 5,
            },
        )
        self.kept_answers = KeptAnswers(service.name, dsn)
        self.readers = {s.source: Reader(self, s) for s in service.subscriptions}
        self._barrier = barrier

    @asynccontextmanager
    async def started(self) -> AsyncIterator["Running[S]"]:
        """Run for the length of the block: tables made, questions answered, background work done, then all ended."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.dispose)
            stack.push_async_callback(self.kept_answers.close)
            await create_tables(self.engine, self.service.metadata)
            for reader in self.readers.values():
                await reader.prepare()
            self._answer_questions()
            stack.push_async_callback(self.wire.stop)
            await self.wire.broker.start()
            await self.wire.declare_stream()
            if self.service.lifespan is not None:
                self.own = await stack.enter_async_context(self.service.lifespan(self))
            duty = asyncio.create_task(keep_duty(self, self._works()))
            stack.push_async_callback(_ended, duty)
            yield self

    def _works(self) -> list[Callable[[], Awaitable[None]]]:
        works: list[Callable[[], Awaitable[None]]] = [lambda: relay(self)]
        works += [lambda r=reader: self._consume(r) for reader in self.readers.values()]  # type: ignore[misc]
        jobs = [*self.service.jobs, Job("forget_answers", FORGET_SECONDS, forget_answers)]
        works += [lambda j=job: self._repeat(j) for job in jobs]  # type: ignore[misc]
        return works

    async def run(self, handler: Handler[T], *args: Any, fenced: bool = False, **kwargs: Any) -> T:
        """Run ``handler(tx, …)`` in a transaction, commit, and only then return what it returned.

        A conflict runs it again from its look-ups. A refusal that rests on another service's events is given only
        after catching up with that service. A handler that named barriers returns when no worker goes by the old state.
        Raises ``Refused``, and ``Unavailable`` if PostgreSQL, NATS or a service is away.
        """
        conflicts = 0
        while True:
            tx: Transaction | None = None
            try:
                async with self.engine.connect() as connection, connection.begin():
                    tx = self._transaction(connection)
                    result = await handler(tx, *args, **kwargs)
                    position = await tx.flush()
            except Refused:
                if tx is not None and tx.barriers:
                    await self._settled(tx, None)
                if fenced or tx is None or not tx.rests_on:
                    raise
                await self.fence(tx.rests_on)
                fenced = True
            except DBAPIError as fault:
                conflicts += 1
                if not _can_be_repeated(fault):
                    if tx is None or _is_away(fault):
                        raise Unavailable("the database can't be reached") from fault
                    raise
                if conflicts == ATTEMPTS:
                    raise Refused(
                        "it was changed by others at the same time: try again", reason="version_conflict"
                    ) from fault
            except (OSError, PoolTimeoutError) as fault:
                raise Unavailable("the database can't be reached") from fault
            else:
                if tx.barriers or tx.carried_out_by:
                    await self._settled(tx, position)
                return result

    def _transaction(self, connection: Any) -> Transaction:
        return Transaction(
            connection, self.service.catalog, self._project, self.clock(), settings=self.settings, own=self.own
        )

    async def _project(self, tx: Transaction, event: Event) -> None:
        for projection in self.service.projections:
            if projection.source == self.service.name:
                await projection.project(tx, event)

    async def _settled(self, tx: Transaction, position: int | None) -> None:
        """Wait until others have carried out what was committed, and until every worker goes by it."""
        # Nothing new: but what was committed before may not have reached every worker yet.
        reached = await self._last_of(sorted(tx.barriers | tx.repeated)) if position is None else position
        if reached == 0:
            return
        positions = {self.service.name: reached}
        for service in sorted(tx.carried_out_by):
            question = CatchUp(source=self.service.name, position=reached)
            positions[service] = (await self.wire.ask(service, question, Position)).position
        if tx.barriers:
            await self._barrier(self, positions)

    async def _last_of(self, streams: Sequence[str]) -> int:
        return await self.run(lambda tx: tx.last_position(streams), fenced=True)

    async def fence(self, sources: set[str] | Sequence[str]) -> None:
        """Catch up with the last committed position of each of ``sources``."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                for source in sources:
                    await self.readers[source].catch_up()
        except TimeoutError as fault:
            raise Unavailable(f"{self.service.name} is behind {', '.join(sorted(sources))}") from fault

    async def health(self) -> "Health":
        """Whether the database answers, NATS is connected, and the service can do its work."""
        ready = self.service.ready(self)
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self.engine.connect() as connection:
                await connection.exec_driver_sql("select 1")
        except (DBAPIError, OSError, TimeoutError):
            return Health(database=False, nats=self.wire.connected, ready=ready)
        return Health(database=True, nats=self.wire.connected, ready=ready)

    def _answer_questions(self) -> None:
        self.wire.answer(LastPosition, self._last_position)
        self.wire.answer(ReadLog, self._read_log)
        self.wire.answer(CatchUp, self._catch_up)
        for question, respond in self.service.answers.items():
            self.wire.answer(question, lambda asked, r=respond: r(self, asked))  # type: ignore[misc]

    async def _last_position(self, _: LastPosition) -> Position:
        return Position(position=await self.run(lambda tx: tx.last_position()))

    async def _read_log(self, question: ReadLog) -> LogSpan:
        async def read(tx: Transaction) -> LogSpan:
            limit = min(question.limit, 1000)
            events, read_up_to = await read_log(
                tx.connection, self.service.catalog, question.after, limit, question.types
            )
            return LogSpan(events=events, read_up_to=read_up_to)

        return await self.run(read)

    async def _catch_up(self, question: CatchUp) -> Position:
        await self.readers[question.source].catch_up(question.position)
        return await self._last_position(LastPosition())

    async def _consume(self, reader: Reader) -> None:
        """Follow the live stream; and see to it that one which went silent or lost all it held loses us nothing."""
        seen = False
        while True:
            try:
                async with self.wire.following(reader.source, reader.deliver) as look:
                    while True:
                        await look()
                        await self._mind_the_lag(reader)
                        seen = True
            except nats.js.errors.NotFoundError:
                log.info("subscription.source_not_up", service=self.service.name, source=reader.source)
            except Exception as fault:  # noqa: BLE001 - the source or NATS is away
                expected = self.wire.closing or (not seen and isinstance(fault, Unavailable))
                note = log.info if expected else log.warning
                note("subscription.interrupted", service=self.service.name, source=reader.source, fault=repr(fault))
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS)

    async def _mind_the_lag(self, reader: Reader) -> None:
        last = await reader.last_of_source()
        await asyncio.sleep(LAG_CHECK_SECONDS + self.relay_delay_seconds)
        if await reader.position() < last:
            await reader.catch_up(last)

    async def _repeat(self, job: Job) -> None:
        while True:
            await asyncio.sleep(job.every_seconds)
            try:
                await job.run(self)
            except Exception as fault:  # noqa: BLE001 - the next round is the retry
                log.warning("job.failed", service=self.service.name, job=job.name, fault=repr(fault))


async def _ended(task: asyncio.Task[None]) -> None:
    await end(task, again_seconds=5.0)  # longer than it needs to end what it started
    if not task.cancelled():
        task.result()


def _can_be_repeated(fault: DBAPIError) -> bool:
    state = getattr(fault.orig, "sqlstate", None)
    return state in (DEADLOCK, SERIALIZATION) or (
        state == UNIQUE_VIOLATION and "events_stream_version" in str(fault.orig)
    )


def _is_away(fault: DBAPIError) -> bool:
    lost = isinstance(fault, OperationalError | InterfaceError) or fault.connection_invalidated
    return lost or str(getattr(fault.orig, "sqlstate", None)).startswith(SERVER_IN_TROUBLE)
