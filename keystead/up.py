"""``keystead up``: real PostgreSQL and NATS, every service, one address; what it started it stops, and only that."""

import asyncio
import base64
import os
import secrets
import shlex
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from keystead.app import SERVICES, Connections, compose, migrate, postgres_urls
from keystead.configuration import UNMADE, Configuration, Defaults, configuration
from keystead.data_folder import DataFolder, write_private
from keystead.given_servers import check_nats, check_postgres
from keystead.nats_users import nats_urls, nats_users, subscriber_url
from keystead.process import Life, address_of, listening, run_to_its_end, serve_http, tell, until_signalled
from keystead.servers import NatsServer, PostgresServer, supervise
from keystead.settings import ProcessSettings
from shared.keyring import Keyring
from shared.log import configure
from shared.settings import read_file


@dataclass(frozen=True, slots=True)
class UpArguments:
    """What the command line says; None where it says nothing."""

    data: Path | None = None
    config: Path | None = None
    host: str | None = None
    port: int | None = None


def run(arguments: UpArguments) -> int:
    """Run until SIGINT or SIGTERM; the exit status."""
    return run_to_its_end(up(arguments, os.environ))


async def up(arguments: UpArguments, environment: Mapping[str, str]) -> None:
    """Run until SIGINT or SIGTERM. Raises what the person at the terminal must be told."""
    environ = {**environment, **_variables(arguments)}
    config = Path(named) if (named := environ.get("KEYSTEAD_CONFIG")) else None
    content = read_file(config)
    process = configuration(content, environ, UNMADE).process  # every fault is told before anything is touched
    configure(process.log_level, "readable")
    with DataFolder(process.data_folder) as data, listening(process.host, process.port, "up") as at:
        address = address_of(process)
        told = configuration(content, environ, _make(process, data, address))
        tell(*(f"warning: {warning}" for warning in told.warnings))
        greeting = _greeting(address, told.process.master_key, config)
        await until_signalled(lambda life: _serve(data, told, at, greeting, life))


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
    made = replace(UNMADE, base_url=address, api_url=_loopback_address(process))
    if process.secret_key == UNMADE.secret_key:
        made = replace(made, secret_key=data.secret("secret-key", _draw_secret_key))
    if process.master_key == UNMADE.master_key:
        made = replace(made, master_key=data.secret("master-key", _draw_master_key))
    return made


def _loopback_address(process: ProcessSettings) -> str:
    """How this machine reaches what it serves; an address that stands for all of its own is none to connect to."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(process.host, process.host)  # noqa: S104 - told, not bound
    return address_of(process.model_copy(update={"host": loopback}))


def _draw_secret_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _draw_master_key() -> str:
    return f"sk-{secrets.token_urlsafe(24)}"


async def _serve(data: DataFolder, told: Configuration, at: socket.socket, greeting: str, life: Life) -> None:
    """Serve until told to stop."""
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
            await serve_http(composition.app, at, greeting, life)


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
        if nats:  # for who wants to listen: see examples/subscriber.py
            write_private(data.path / "subscriber-nats-url", subscriber_url(nats.url, keyring) + "\n")
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
