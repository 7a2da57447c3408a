"""``keystead up``: real PostgreSQL and NATS, every service, one address; what it started it stops, and only that."""

import asyncio
import base64
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
import uvloop

from keystead.app import SERVICES, Connections, compose, migrate, postgres_urls
from keystead.child import ServerFailed
from keystead.configuration import UNMADE, Configuration, Defaults, configuration
from keystead.data_folder import DataFolder, FolderUnusable
from keystead.given_servers import check_nats, check_postgres
from keystead.nats_users import nats_urls, nats_users
from keystead.servers import NatsServer, PostgresServer, ServerMissing, supervise
from keystead.settings import ProcessSettings
from shared.keyring import Keyring
from shared.log import configure
from shared.settings import SettingsInvalid, read_file

EXIT_FAILED, EXIT_SETTINGS = 1, 2
DRAIN_SECONDS = 15
BACKLOG = 2048


class PortTaken(Exception):
    """Somebody else listens there; the message says how to choose another."""


@dataclass(frozen=True, slots=True)
class UpArguments:
    """What the command line says; None where it says nothing."""

    data: Path | None = None
    config: Path | None = None
    host: str | None = None
    port: int | None = None


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


def run(arguments: UpArguments) -> int:
    """Run until SIGINT or SIGTERM; the exit status, after what went wrong was told to the person at the terminal."""
    try:
        uvloop.run(up(arguments, os.environ))
    except SettingsInvalid as invalid:
        _tell(*invalid.faults)
        return EXIT_SETTINGS
    except (FolderUnusable, PortTaken, ServerFailed, ServerMissing) as fault:
        _tell(f"keystead: {fault}")
        return EXIT_FAILED
    return 0


async def up(arguments: UpArguments, environment: Mapping[str, str]) -> None:
    """Run until SIGINT or SIGTERM. Raises what the person at the terminal must be told."""
    environ = {**environment, **_variables(arguments)}
    config = Path(named) if (named := environ.get("KEYSTEAD_CONFIG")) else None
    content = read_file(config)
    process = configuration(content, environ, UNMADE).process  # every fault is told before anything is touched
    configure(process.log_level, "readable")
    with DataFolder(process.data_folder) as data, _listening(process.host, process.port) as listening:
        address = _address(process)
        told = configuration(content, environ, _make(process, data, address))
        _tell(*(f"warning: {warning}" for warning in told.warnings))
        greeting = _greeting(address, told.process.master_key, config)
        await _until_signalled(lambda life: _serve(data, told, listening, greeting, life))


def _variables(arguments: UpArguments) -> dict[str, str]:
    """The arguments, as the variables that they go before."""
    said = {
        "KEYSTEAD_DATA_DIR": arguments.data,
        "KEYSTEAD_CONFIG": arguments.config,
        "KEYSTEAD_HOST": arguments.host,
        "KEYSTEAD_PORT": arguments.port,
    }
    return {name: str(value) for name, value in said.items() if value is not None}


def _make(process: ProcessSettings, data: DataFolder, address: str) -> Defaults:
    """What is needed and was not given is made once, and kept in the data folder."""
    made = replace(UNMADE, base_url=address)
    if process.secret_key == UNMADE.secret_key:
        made = replace(made, secret_key=data.secret("secret-key", _draw_secret_key))
    if process.master_key == UNMADE.master_key:
        made = replace(made, master_key=data.secret("master-key", _draw_master_key))
    return made


def _draw_secret_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _draw_master_key() -> str:
    return f"sk-{secrets.token_urlsafe(24)}"


def _address(process: ProcessSettings) -> str:
    return f"http://{f'[{process.host}]' if ':' in process.host else process.host}:{process.port}"


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The address, taken before anything is started: a port in use is told at once."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as fault:
        raise PortTaken(f"{host} is no address of this machine. Choose another with --host.") from fault
    with socket.socket(family, kind) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(where)
            listening.listen(BACKLOG)  # bound alone, another `up` could bind it too
        except OSError as fault:
            other = port + 100 if port < 65000 else port - 100
            raise PortTaken(
                f"port {port} on {host} can't be listened on ({fault.strerror})."
                f' Choose another: keystead up --port {other}, or make up ARGS="--port {other}"'
            ) from fault
        yield listening


async def _until_signalled(work: Callable[[Life], Awaitable[None]]) -> None:
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


async def _serve(data: DataFolder, told: Configuration, listening: socket.socket, greeting: str, life: Life) -> None:
    """Serve until told to stop, and then as long as it takes to answer what was asked before."""
    keyring = Keyring(told.process.secret_key)
    async with _servers(data, told.process, keyring) as (owner_url, nats_url):
        await migrate(owner_url, keyring)
        connections = Connections(
            {**postgres_urls(owner_url, keyring), **told.own_urls("POSTGRES")},
            {**nats_urls(nats_url, keyring), **told.own_urls("NATS")},
        )
        composition = compose(
            SERVICES, told.services, connections, keyring=keyring, cors_origins=told.process.cors_origins
        )
        async with composition.started():
            http = _Http(
                uvicorn.Config(
                    composition.app,
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    proxy_headers=False,  # whom to believe is said by trusted_proxy_ranges
                    timeout_graceful_shutdown=DRAIN_SECONDS,
                )
            )
            serving = asyncio.create_task(http.serve([listening]))
            life.started.set()
            print(greeting, flush=True)  # noqa: T201 - this is what the person waits for
            await life.stop.wait()
            http.should_exit = True
            await serving


@asynccontextmanager
async def _servers(data: DataFolder, process: ProcessSettings, keyring: Keyring) -> AsyncIterator[tuple[str, str]]:
    """PostgreSQL's and NATS's addresses; what was not given is started, kept running, and stopped at the end."""
    postgres = None if process.postgres_url else PostgresServer(data)
    nats = None if process.nats_url else NatsServer(data, nats_users(keyring))
    ours = [server for server in (postgres, nats) if server is not None]
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        for server in ours:
            stack.push_async_callback(server.stop)
        starting = [server.start() for server in ours]
        if process.postgres_url:
            starting.append(check_postgres(process.postgres_url))
        if process.nats_url:
            starting.append(check_nats(process.nats_url))
        await _all(starting)
        supervised = [asyncio.create_task(supervise(server, stop)) for server in ours]
        try:
            yield postgres.url if postgres else str(process.postgres_url), nats.url if nats else str(process.nats_url)
        finally:
            stop.set()
            await asyncio.gather(*supervised)


async def _all(works: Sequence[Awaitable[None]]) -> None:
    """Do them at once; when one fails, or all are cancelled, the others have ended before that is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201 - for the person at the terminal


def _greeting(address: str, master_key: str, config: Path | None) -> str:
    models = f"the models of {config}" if config else "a mock model, mock-gpt, that needs no provider"
    return f"""
Keystead is up: {address}
Master key:     {master_key}
Models:         {models}

Next, in another terminal:
  export KEYSTEAD_URL={shlex.quote(address)} KEYSTEAD_MASTER_KEY={shlex.quote(master_key)}
  curl -s $KEYSTEAD_URL/health/readiness
  sh examples/self-serve.sh     # invite a person, claim, make a key, call a model, see what it cost

Ctrl-C stops everything that was started here.
"""
