"""What every command that stays does: take its address, work until it is signalled, answer what was asked before."""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from keystead.child import ServerFailed
from keystead.data_folder import FolderUnusable
from keystead.protocol import BoundedProtocol
from keystead.servers import ServerMissing
from keystead.settings import ProcessSettings
from shared.settings import SettingsInvalid

EXIT_FAILED, EXIT_SETTINGS = 1, 2
DRAIN_SECONDS = 15
KEEPALIVE_SECONDS = 75  # longer than proxies and gateways keep an idle connection for its next request
BACKLOG = 2048


class PortTaken(Exception):
    """Somebody else listens there; the message says how to choose another."""


@dataclass(frozen=True, slots=True)
class Life:
    """How the serving and those who wait for it hear of each other."""

    started: asyncio.Event
    stop: asyncio.Event


class _Http(uvicorn.Server):
    """Signals are ours: servers are stopped after the last request, not with it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run_to_its_end(work: Coroutine[Any, Any, None]) -> int:
    """Run a command; its exit status, after what went wrong was told to the person at the terminal."""
    try:
        uvloop.run(work)
    except SettingsInvalid as invalid:
        tell(*invalid.faults)
        return EXIT_SETTINGS
    except (FolderUnusable, PortTaken, ServerFailed, ServerMissing) as fault:
        tell(f"keystead: {fault}")
        return EXIT_FAILED
    return 0


def tell(*lines: str) -> None:
    """To the person at the terminal, and no log."""
    for line in lines:
        print(line, file=sys.stderr)


def say(text: str) -> None:
    """What the command was run for."""
    print(text, flush=True)


def address_of(process: ProcessSettings) -> str:
    """Where this process listens, as a URL that can be typed."""
    return f"http://{f'[{process.host}]' if ':' in process.host else process.host}:{process.port}"


@contextmanager
def listening(host: str, port: int, command: str) -> Iterator[socket.socket]:
    """The address, taken before anything is started: a port in use is told at once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
    except (OSError, UnicodeError) as fault:
        raise PortTaken(f"{host} is no address of this machine. Choose another with --host.") from fault
    # With its protocol named: asyncio sends small answers at once on such sockets only.
    with socket.socket(family, kind, protocol) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(where)
            taken.listen(BACKLOG)  # bound alone, another process could bind it too
        except OSError as fault:
            other = port + 100 if port < 65000 else port - 100
            hint = f', or make up ARGS="--port {other}"' if command == "up" else ""
            raise PortTaken(
                f"port {port} on {host} can't be listened on ({fault.strerror})."
                f" Choose another: keystead {command} --port {other}{hint}"
            ) from fault
        yield taken


async def until_signalled(work: Callable[[Life], Awaitable[None]]) -> None:
    """Work until SIGINT or SIGTERM, which asks it to end; one that has not started yet is cancelled."""
    life = Life(asyncio.Event(), asyncio.Event())
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, life.stop.set)
    working = asyncio.ensure_future(work(life))
    signalled = asyncio.ensure_future(life.stop.wait())
    await asyncio.wait([working, signalled], return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if not life.started.is_set():
        working.cancel()
    with suppress(asyncio.CancelledError):
        await working


async def serve_http(app: ASGIApp, at: socket.socket, greeting: str, life: Life) -> None:
    """Serve until told to stop, and then as long as it takes to answer what was asked before."""
    http = _Http(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # whom to believe is said by trusted_proxy_ranges
            timeout_keep_alive=KEEPALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    serving = asyncio.create_task(http.serve([at]))
    life.started.set()
    say(greeting)
    await life.stop.wait()
    http.should_exit = True
    await serving
