"""A history of the toys as it happens: replicas come and go, steps are carried out, and what must be true of it is."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from shared import trace
from shared.duty import end
from shared.errors import Refused, Unavailable
from shared.event_store import Transaction
from shared.relay import relay
from shared.service import Running
from tests.support import toy_steps as step
from tests.support.clerk import CLERK, file_tally
from tests.support.faults import Fault, Redeliver, befalls, loses_messages, source_of, terminate
from tests.support.toy_checks import all_given, all_told, check_stream, look
from tests.support.toys import (
    ACCOUNT,
    LEDGER,
    READER,
    Close,
    Place,
    deposit,
    eventually,
    note,
    open_account,
    place,
    stream_of,
)

SERVICES = {service.name: service for service in (LEDGER, READER, CLERK)}
JITTER_SECONDS = 0.03  # how long others are let run against one that holds back
HEARD_SECONDS = 1.0  # more than anyone needs who is there


class RolledBack(Exception):
    """Meant to happen."""


async def close_account(tx: Transaction, account: str) -> None:
    """Whatever its name is, it is free again."""
    releases = [f"name:{name}" for name in step.NAMES]
    await tx.execute(stream_of(account), ACCOUNT, Close(account), releases=releases)


@dataclass
class Replica:
    """A replica that runs until ``ended``."""

    running: Running[Any]
    ended: Callable[[], Awaitable[None]]


@dataclass
class History:
    """Who is there, and how each command, by its number, was answered: done, refused, or nobody knows."""

    place: Place
    replicas: dict[str, list[Replica]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[str, str] = field(default_factory=dict)
    lost_messages: set[str] = field(default_factory=set)
    stumbled: list[Running[Any]] = field(default_factory=list)

    async def start(self, service: str) -> str:
        if len(self.replicas[service]) == step.REPLICAS_MAX:
            return "all there"
        stack = AsyncExitStack()
        running = await stack.enter_async_context(self.place.running(SERVICES[service]).started())
        self.replicas[service].append(Replica(running, stack.aclose))
        return f"{len(self.replicas[service])} there"

    async def end(self, service: str, number: int) -> str:
        there = self.replicas[service]
        if there:
            await there.pop(number % len(there)).ended()
        return f"{len(there)} there"

    def one(self, service: str, number: int) -> Running[Any] | None:
        there = self.replicas[service]
        return there[number % len(there)].running if there else None

    async def run(self, command: step.Command) -> str:
        """How it was answered. Anything but an acknowledgement or a refusal is a fault of the kernel's."""
        match command:
            case step.OpenAccount(account, name, by):
                return await self._run("ledger", by, open_account, account, name)
            case step.MakeDeposit(account, amount, by):
                return await self._run("ledger", by, deposit, account, amount)
            case step.CloseAccount(account, by):
                return await self._run("ledger", by, close_account, account)
            case step.NoteAccount(account, by):
                return await self._run("reader", by, note, account)
            case step.FileTally(account, by):
                return await self._run("clerk", by, file_tally, account)

    async def _run(self, service: str, by: int, handler: Callable[..., Awaitable[Any]], *args: Any) -> str:
        running = self.one(service, by)
        if running is None:
            return "nobody there"
        number = f"{len(self.answers)}"
        self.answers[number] = "open"
        with trace.tracing(trace.Trace(number)):
            try:
                await running.run(handler, *args)
            except Unavailable:
                return self.answers[number]
            except Refused as refused:
                self.answers[number] = f"refused: {refused.code}"
            else:
                self.answers[number] = f"done by {service}"
        return self.answers[number]

    async def run_all(self, commands: Sequence[step.Command]) -> str:
        return ", ".join(await asyncio.gather(*map(self.run, commands)))

    async def happens(self, what: step.Step) -> str:  # noqa: PLR0911 - the table of contents
        """Carry a step out; what came of it, to be read."""
        match what:
            case step.AtOnce(commands, loss):
                answers = asyncio.ensure_future(self.run_all(commands))
                if loss:
                    await self._befalls(loss)
                return await answers
            case step.LateCommit():
                return await self._late(what)
            case step.CutRelay(made):
                return await self._cut_relay(made)
            case step.OutOfOrder(deposits, places):
                return await self._out_of_order(deposits, places)
            case step.WakeWithoutDuty(service, by, meanwhile):
                return await self._without_duty(service, by, meanwhile)
            case step.Stumble(by, times):
                return self._stumble(by, times)
            case step.StartReplica(service):
                return await self.start(service)
            case step.EndReplica(service, by):
                return await self.end(service, by)
            case step.Fence(service, by):
                return await self._fence(self.one(service, by))
            case step.Look():
                return await look(self.place, self.answers)
            case fault if isinstance(fault, Fault):
                return await self._befalls(fault)
            case command:
                return await self.run(command)

    async def _befalls(self, fault: Fault) -> str:
        if loses_messages(fault):
            self.lost_messages.add(source_of(fault))
        return await befalls(self.place.owner_url, fault, self.one(source_of(fault), 0))

    def _stumble(self, by: int, times: int) -> str:
        reader = self.one("reader", by)
        if reader is None or reader in self.stumbled:
            return "nobody there who has not"  # not so often in a row that an event is given up
        self.stumbled.append(reader)
        reader.own.stumbles = times
        return ""

    async def _late(self, late: step.LateCommit) -> str:
        running = self.one("ledger", late.deposit.by)
        if running is None:
            return "nobody there"
        holds, goes_on = asyncio.Event(), asyncio.Event()
        holding = asyncio.ensure_future(self._hold_back(running, late, holds, goes_on))
        holding.add_done_callback(lambda _: holds.set())  # it may be refused before it holds anything
        await holds.wait()
        commands = asyncio.ensure_future(self.run_all(late.meanwhile))
        await asyncio.wait([commands], timeout=JITTER_SECONDS)
        goes_on.set()
        return f"{await holding}; {await commands}"

    async def _hold_back(
        self, running: Running[Any], late: step.LateCommit, holds: asyncio.Event, goes_on: asyncio.Event
    ) -> str:
        async def held(tx: Transaction) -> None:
            await deposit(tx, late.deposit.account, late.deposit.amount)
            if late.positioned:
                await tx.flush()
                tx._pending.clear()  # what is appended is not appended again at the end
            holds.set()
            await goes_on.wait()
            if late.rolled_back:
                raise RolledBack

        try:
            await running.run(held)
        except (RolledBack, Refused) as fault:
            return type(fault).__name__
        return "done"

    async def _cut_relay(self, made: step.MakeDeposit) -> str:
        """Its update waits for the row's lock, and then its session is gone."""
        waiting = "wait_event_type = 'Lock' and query like 'update relay%'"
        async with self.place.owner() as owner, owner.transaction():
            await owner.execute("select from ledger.relay for update")
            answer = await self.run(made)

            async def published() -> bool:
                return bool(
                    await owner.fetchval(
                        "select count(*) from pg_stat_activity"
                        f" where datname = current_database() and usename = 'keystead_ledger' and {waiting}"
                    )
                )

            if not answer.startswith("done"):
                return answer
            with suppress(AssertionError):  # there may be nobody on duty
                await eventually(published, 1.0)
            return f"{answer}, {await terminate(self.place.owner_url, 'ledger', waiting)}"

    async def _out_of_order(self, deposits: Sequence[step.MakeDeposit], places: Sequence[int]) -> str:
        """The relay waits for its table's lock meanwhile."""
        async with self.place.owner() as owner, owner.transaction():
            await owner.execute("lock table ledger.relay in access exclusive mode")
            answers = await self.run_all(deposits)
            await self._befalls(Redeliver("ledger", places))
            with suppress(AssertionError):  # there may be nobody on duty
                await eventually(lambda: all_given(self.place, "ledger", "reader"), HEARD_SECONDS)
        return answers

    async def _without_duty(self, service: str, by: int, meanwhile: Sequence[step.Command]) -> str:
        running = self.one(service, by)
        if running is None or running.on_duty.is_set():
            return "nobody without duty"
        works = [relay(running), *(self._consume(running, source) for source in running.readers)]
        tasks = [asyncio.ensure_future(work) for work in works]
        answers = await self.run_all(meanwhile)
        await asyncio.wait(tasks, timeout=JITTER_SECONDS)
        await end(*tasks, again_seconds=1.0)
        return answers

    async def _consume(self, running: Running[Any], source: str) -> None:
        async with running.wire.following(source, running.readers[source].deliver):
            await asyncio.Event().wait()

    async def _fence(self, running: Running[Any] | None) -> str:
        if running is None:
            return "nobody there"
        try:
            await running.fence(sorted(running.readers))
        except Unavailable as fault:
            return str(fault)
        return "fenced"

    async def heals(self) -> None:
        """Everybody is there and well again; back when nobody has anything left to hear."""
        for service in SERVICES:
            if not self.replicas[service]:
                await self.start(service)
        for replica in self.replicas["reader"]:
            replica.running.own.stumbles = 0
        for service in ("reader", "clerk"):  # in the order in which they hear of one another
            for replica in self.replicas[service]:
                await eventually(lambda r=replica: self._fenced(r.running))  # type: ignore[misc]
        for service in SERVICES:
            await all_told(self.place, service)

    async def _fenced(self, running: Running[Any]) -> bool:
        return await self._fence(running) == "fenced"

    async def check(self) -> None:
        """What must be true at the end."""
        await look(self.place, self.answers, converged=True)
        for service in SERVICES:
            await check_stream(self.place, self.replicas[service][0].running, service in self.lost_messages)


@asynccontextmanager
async def history() -> AsyncIterator[History]:
    """The toys in a place of their own, one of each; whoever runs at the end is ended."""
    async with place() as here:
        it = History(here)
        try:
            for service in SERVICES:
                await it.start(service)
            yield it
        finally:
            for service in SERVICES:
                while it.replicas[service]:
                    await it.end(service, 0)
