"""Services in processes of their own that a test kills, by SIGKILL, at one named step of what they do.

A step is a moment and a name: "after the commit of make", "before telling UserCreated". It is the process itself that
dies there, so that nothing happens between the step and the end.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from sqlalchemy.engine.default import DefaultDialect

from keystead.app import SERVICES, compose
from keystead.servers import free_port
from shared import wire
from shared.event_store import Transaction
from shared.events import Recorded
from shared.service import Running
from tests.support.installation import (
    Client,
    connections_to,
    database,
    keyring,
    serving,
    settings,
)
from tests.support.servers import nats_url
from tests.support.streams import forget_streams

CUTTABLE = ("identity", "invitations", "keys", "notifications")
DIES_WITHIN_SECONDS = 20.0
STARTS_WITHIN_SECONDS = 30.0


# In the process that dies


class Steps:
    """What this process does, noted in a file; it is over at the step that it was told."""

    def __init__(self, told: Path) -> None:
        self._file = told.open("ab", buffering=0)
        self.last = ""

    def __call__(self, step: str) -> None:
        self._file.write(f"{step}\n".encode())
        if step == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


# Whose transaction is under way: the handler that was run, and then the events that it reacts to.
_causes: ContextVar[list[str] | None] = ContextVar("causes", default=None)


def watch(steps: Steps) -> None:
    """Note the steps of every service here: commits, questions and answers, events told."""
    _around(Running, "run", _naming_the_handler)
    _around(Transaction, "caused_by", _naming_the_event)
    _around(DefaultDialect, "do_commit", lambda commit: _watched_commit(commit, steps))
    _around(wire.Wire, "ask", lambda ask: _watched_question(ask, steps))
    _around(wire.Wire, "publish", lambda publish: _watched_event(publish, steps))
    _around(wire, "_answered", lambda answered: _watched_answer(answered, steps))


def _around(owner: Any, name: str, watched: Callable[[Any], Any]) -> None:
    setattr(owner, name, watched(getattr(owner, name)))


def _naming_the_handler(run: Any) -> Any:
    async def named(self: Any, handler: Any, *args: Any, **kwargs: Any) -> Any:
        token = _causes.set([getattr(handler, "__name__", "")])
        try:
            return await run(self, handler, *args, **kwargs)
        finally:
            _causes.reset(token)

    return named


def _naming_the_event(caused_by: Any) -> Any:
    def named(self: Any, recorded: Recorded) -> Any:
        if (causes := _causes.get()) is not None:
            causes.append(recorded.event.stored().type)
        return caused_by(self, recorded)

    return named


def _watched_commit(commit: Any, steps: Steps) -> Any:
    def watched(self: Any, connection: Any) -> None:
        handler, *events = _causes.get() or [""]
        names = events or [handler]
        for name in names:
            steps(f"before the commit of {name}")
        commit(self, connection)
        for name in names:
            steps(f"after the commit of {name}")

    return watched


def _watched_question(ask: Any, steps: Steps) -> Any:
    async def watched(self: Any, service: str, question: Any, *args: Any, **kwargs: Any) -> Any:
        name = f"{type(question).__name__} of {service}"
        steps(f"before asking {name}")
        answer = await ask(self, service, question, *args, **kwargs)
        steps(f"after asking {name}")
        return answer

    return watched


def _watched_answer(answered: Any, steps: Steps) -> Any:
    async def watched(question: Any, *args: Any) -> Any:
        answer = await answered(question, *args)
        steps(f"before answering {question.__name__}")
        return answer

    return watched


def _watched_event(publish: Any, steps: Steps) -> Any:
    async def watched(self: Any, recorded: Recorded) -> None:
        name = recorded.event.stored().type
        steps(f"before telling {name}")
        await publish(self, recorded)
        steps(f"after telling {name}")

    return watched


def work(given: Mapping[str, Any], connection: Connection) -> None:
    """One service, until it is killed."""
    log = Path(given["log"]).open("ab", buffering=0)  # noqa: SIM115 - for as long as there is this process
    os.dup2(log.fileno(), sys.stderr.fileno())
    steps = Steps(Path(given["steps"]))
    watch(steps)
    uvloop.run(_work(given, connection, steps))


async def _work(given: Mapping[str, Any], connection: Connection, steps: Steps) -> None:
    ours = [service for service in SERVICES if service.name == given["service"]]
    connections = connections_to(given["owner_url"], given["namespace"])
    app = compose(ours, settings(), connections, keyring=keyring()).app

    def obey() -> None:
        steps.last = connection.recv()
        connection.send("heard")

    asyncio.get_running_loop().add_reader(connection.fileno(), obey)
    async with serving(app, _at(given["port"])):
        connection.send("serves")
        await asyncio.Event().wait()


def _at(port: int) -> socket.socket:
    at = socket.socket(proto=socket.IPPROTO_TCP)
    at.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    at.bind(("127.0.0.1", port))
    return at


# In the test


@dataclass
class Victim:
    """A service's process; the next one listens where the last one did."""

    given: dict[str, Any]
    context: ForkServerContext
    process: Any = None
    connection: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.given['port']}"

    async def start(self) -> None:
        """Back when it serves."""
        self.connection, theirs = self.context.Pipe()
        self.process = self.context.Process(target=work, args=(self.given, theirs), daemon=True)
        self.process.start()
        theirs.close()
        assert await self._hears(STARTS_WITHIN_SECONDS) == "serves", self.errors()

    async def die_at(self, step: str) -> None:
        """Back when it knows that it will."""
        self.connection.send(step)
        assert await self._hears(STARTS_WITHIN_SECONDS) == "heard"

    async def _hears(self, seconds: float) -> Any:
        assert await asyncio.to_thread(self.connection.poll, seconds), self.errors()
        return self.connection.recv()

    async def died(self) -> None:
        """Back when it did; an AssertionError if it never comes to that step."""
        await asyncio.to_thread(self.process.join, DIES_WITHIN_SECONDS)
        assert self.process.exitcode == -signal.SIGKILL, f"alive: {self.steps()}"
        self._forget()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self._forget()

    def _forget(self) -> None:
        self.process.close()
        self.connection.close()
        self.process = None

    def steps(self) -> list[str]:
        """All that any of its processes did."""
        return Path(self.given["steps"]).read_text(encoding="utf-8").splitlines()

    def errors(self) -> str:
        return Path(self.given["log"]).read_text(encoding="utf-8")


@dataclass
class Cuttable(Client):
    """An installation whose gateway and budgets live here, and the others each in a process to be killed."""

    owner_url: str
    victims: dict[str, Victim] = field(default_factory=dict)


def _context() -> ForkServerContext:
    """Processes that begin with all modules loaded: a start is a third of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.cutting"])
    return context


@asynccontextmanager
async def cuttable(folder: Path) -> AsyncIterator[Cuttable]:
    """On a database and under names of its own."""
    namespace = f"t{os.urandom(5).hex()}."
    context = _context()
    async with AsyncExitStack() as stack:
        owner_url = await stack.enter_async_context(database())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        victims = dict[str, Victim]()
        for service in CUTTABLE:
            steps = folder / f"{service}.steps"
            steps.touch()
            given = {"service": service, "owner_url": owner_url, "namespace": namespace}
            places = {"port": free_port(), "steps": str(steps), "log": str(folder / f"{service}.log")}
            victims[service] = Victim({**given, **places}, context)
            stack.callback(victims[service].end)
        await asyncio.gather(*(victim.start() for victim in victims.values()))
        here = [service for service in SERVICES if service.name not in victims]
        urls = {service: victim.url for service, victim in victims.items()}
        composition = compose(here, settings(), connections_to(owner_url, namespace), keyring=keyring(), elsewhere=urls)
        async with serving(composition.app) as url:
            yield Cuttable(url, http, owner_url, victims)
            await forget_streams(nats_url(), namespace)


async def repeated(ask: Callable[[], Awaitable[tuple[int, Any]]], seconds: float = 30.0) -> tuple[int, Any]:
    """As a client does it: again, for as long as it is told that somebody is away or at work."""
    async with asyncio.timeout(seconds):
        while True:
            status, answer = await ask()
            if status != 503 and "idempotency_in_progress" not in json.dumps(answer):
                return status, answer
            await asyncio.sleep(0.05)  # a client's own pause: nothing says when it may come again
