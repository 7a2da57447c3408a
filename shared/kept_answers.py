"""The answers that a service keeps for 24 hours, and who is at work on one: a lock that ends with its process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from shared.errors import Unavailable
from shared.event_store import Transaction

if TYPE_CHECKING:
    from shared.service import Running

LIFE = timedelta(hours=24)
QUERY_SECONDS = 5.0
# A machine that is gone says no farewell: then it is the server that has to notice, and to give up the locks.
NOTICE_THE_DEAD = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}

_LOCK = "hashtextextended('kept_answers/' || $1, 0)"
_READ = "select body_hash, sealed_seed, sealed_answer from kept_answers where id = $1"
_AWAY = (
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    OSError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """``sealed_answer`` is None while there is none: somebody is at work on it, or was cut off."""

    body_hash: str
    sealed_seed: str = field(repr=False)
    sealed_answer: str | None = field(repr=False)


class KeptAnswers:
    """One service's, in one process.

    All goes over one connection of its own, opened when it is first needed: who waits here holds nothing that others
    wait for, and with the process go its locks. They save work and say who is too early; that nothing is done twice
    rests on the log alone (``Transaction.execute``).
    """

    def __init__(self, service: str, dsn: str) -> None:
        self._service = service
        self._dsn = dsn
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()
        self._at_work: set[str] = set()  # a session gets its own locks again, so what is ours we know ourselves

    async def find(self, id_: str, now: datetime) -> KeptAnswer | None:
        """What is kept under that id, unless it is over by ``now``."""
        row = await self._ask(f"{_READ} and asked_at > $2", id_, now - LIFE)
        return None if row is None else KeptAnswer(*row)

    @asynccontextmanager
    async def at_work(self, id_: str) -> AsyncIterator[bool]:
        """For the length of the block, be the only one of all replicas who works on it; False if another does."""
        if id_ in self._at_work:
            yield False
            return
        self._at_work.add(id_)
        try:
            ours = bool((await self._ask(f"select pg_try_advisory_lock({_LOCK})", id_))[0])
            try:
                yield ours
            finally:
                if ours:
                    with suppress(Unavailable):  # then the lock is gone with its connection
                        await self._ask(f"select pg_advisory_unlock({_LOCK})", id_)
        finally:
            self._at_work.discard(id_)

    async def begin(self, id_: str, body_hash: str, sealed_seed: str, now: datetime) -> KeptAnswer:
        """Note what is begun, in the place of what is over; whoever is cut off goes on from that seed."""
        await self._ask(
            "insert into kept_answers as k (id, body_hash, sealed_seed, asked_at) values ($1, $2, $3, $4)"
            " on conflict (id) do update set body_hash = excluded.body_hash, sealed_seed = excluded.sealed_seed,"
            " sealed_answer = null, asked_at = excluded.asked_at where k.asked_at <= $5",
            id_,
            body_hash,
            sealed_seed,
            now,
            now - LIFE,
        )
        return KeptAnswer(*await self._ask(_READ, id_))

    async def keep(self, id_: str, sealed_answer: str) -> None:
        """The first answer stays the first."""
        await self._ask(
            "update kept_answers set sealed_answer = $2 where id = $1 and sealed_answer is null", id_, sealed_answer
        )

    async def close(self) -> None:
        """Give up what is held; the next asking opens anew."""
        if self._connection is not None:
            self._connection.terminate()

    async def _ask(self, query: str, *arguments: object) -> Any:
        try:
            # Waiting for one's turn counts: behind others who get no answer it would be as long as theirs together.
            async with asyncio.timeout(QUERY_SECONDS), self._turn:
                connection = await self._connected()
                return await connection.fetchrow(query, *arguments)
        except BaseException as fault:
            await self.close()  # left in the middle of something, it is no good any more
            if isinstance(fault, _AWAY):
                raise Unavailable("the database can't be reached") from fault
            raise

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            named = {"search_path": self._service, "application_name": f"keystead {self._service} answers"}
            self._connection = await asyncpg.connect(
                self._dsn, timeout=QUERY_SECONDS, command_timeout=QUERY_SECONDS, server_settings=named | NOTICE_THE_DEAD
            )
        return self._connection


async def forget_answers(running: "Running[Any]") -> None:
    """Delete what is over."""

    async def forget(tx: Transaction) -> None:
        await tx.connection.exec_driver_sql("delete from kept_answers where asked_at <= $1", (tx.now - LIFE,))

    await running.run(forget)
