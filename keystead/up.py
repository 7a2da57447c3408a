"""``keystead up``: real PostgreSQL and NATS, every service, one address; what it started it stops, and only that."""

import asyncio
import base64
import ipaddress
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from keystead.app import SERVICES, Connections, compose, load_settings, migrate, postgres_urls
from keystead.data_folder import DataFolder
from keystead.nats_users import nats_urls, nats_users
from keystead.servers import NatsServer, PostgresServer, supervise
from shared.keyring import Keyring
from shared.log import configure
from shared.settings import SettingsInvalid, read_file

log = structlog.get_logger()

DEFAULT_HOST, DEFAULT_PORT, DEFAULT_DATA = "127.0.0.1", 4000, ".keystead"
DRAIN_SECONDS = 15
WELL_KNOWN_KEYS = frozenset({"sk-1234", "sk-12345", "sk-123456", "sk-1234567890", "sk-master-key", "sk-keystead"})
KEY_LENGTH_MIN = 20


class PortTaken(Exception):
    """Somebody else listens there; the message says how to choose another."""


@dataclass(frozen=True, slots=True)
class UpArguments:
    """What the command line says; None where it says nothing."""

    data: Path | None = None
    config: Path | None = None
    host: str | None = None
    port: int | None = None


class _Server(uvicorn.Server):
    """Signals are ours: servers are stopped after the last request, not with it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def up(arguments: UpArguments, environment: Mapping[str, str] | None = None) -> None:
    """Run until SIGINT or SIGTERM. Raises what the person at the terminal must be told."""
    environ = dict(os.environ if environment is None else environment)
    configure(environ.get("KEYSTEAD_LOG_LEVEL", "warning"), "readable")
    config = arguments.config or (Path(path) if (path := environ.get("KEYSTEAD_CONFIG")) else None)
    content = read_file(config)
    host = arguments.host or environ.get("KEYSTEAD_HOST", DEFAULT_HOST)
    port = arguments.port or int(environ.get("KEYSTEAD_PORT", DEFAULT_PORT))
    data = DataFolder(arguments.data or Path(environ.get("KEYSTEAD_DATA_DIR", DEFAULT_DATA)))
    with data, _listening(host, port) as listening:
        address = f"http://{'[' + host + ']' if ':' in host else host}:{port}"
        environ.setdefault("PROXY_BASE_URL", address)
        environ["PROXY_BASE_URL"] = environ["PROXY_BASE_URL"].rstrip("/")
        secret = environ.setdefault("KEYSTEAD_SECRET_KEY", data.secret("secret-key", _draw_secret_key))
        master_key = _master_key(environ, content, data)
        settings, warnings = load_settings(content, environ)
        warnings += _check_master_key(master_key, host, content)
        warnings += _check_rates(settings)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        await _run(data, settings, Keyring(secret), listening, lambda: _greet(address, master_key, config))


async def _run(
    data: DataFolder, settings: dict[str, Any], keyring: Keyring, listening: socket.socket, greet: Any
) -> None:
    postgres, nats = PostgresServer(data), NatsServer(data, nats_users(keyring))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    async with AsyncExitStack() as stack:
        for server in (postgres, nats):
            stack.push_async_callback(server.stop)
        await asyncio.gather(postgres.start(), nats.start())
        await migrate(postgres.url, keyring)
        connections = Connections(postgres_urls(postgres.url, keyring), nats_urls(nats.url, keyring))
        app = compose(SERVICES, settings, connections).app
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS)
        http = _Server(config)
        supervised = [asyncio.create_task(supervise(server, stop)) for server in (postgres, nats)]
        serving = asyncio.create_task(http.serve(sockets=[listening]))
        await _until_started(http, serving)
        greet()
        await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        http.should_exit = True
        await serving
        stop.set()
        await asyncio.gather(*supervised)


async def _until_started(http: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    while not http.started and not serving.done():  # noqa: ASYNC110 - uvicorn has a flag, and no event for it
        await asyncio.sleep(0.01)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The address, taken before anything is started: a port in use is told at once."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as fault:
        raise PortTaken(f"{host} is no address of this machine. Choose another with --host.") from fault
    with socket.socket(family, kind) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(where)
        except OSError as fault:
            other = port + 100 if port < 65000 else port - 100
            raise PortTaken(
                f"port {port} on {host} can't be listened on ({fault.strerror})."
                f' Choose another: keystead up --port {other}, or make up ARGS="--port {other}"'
            ) from fault
        yield listening


def _draw_secret_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _master_key(environ: dict[str, str], content: Mapping[str, Any], data: DataFolder) -> str:
    """The environment's, the file's, or the one that is kept in the data folder."""
    given = environ.get("KEYSTEAD_MASTER_KEY") or environ.get("LITELLM_MASTER_KEY")
    general = content.get("general_settings")
    in_file = general.get("master_key") if isinstance(general, dict) else None
    if given or in_file:
        named = str(in_file).removeprefix("os.environ/") if str(in_file).startswith("os.environ/") else None
        return given or (environ.get(named, "") if named else str(in_file))
    made = data.secret("master-key", lambda: f"sk-{secrets.token_urlsafe(24)}")
    environ["KEYSTEAD_MASTER_KEY"] = made
    return made


def _check_master_key(master_key: str, host: str, content: Mapping[str, Any]) -> list[str]:
    """Warnings; raises ``SettingsInvalid`` for a key that must not guard an address others can reach (§4.3)."""
    path = "general_settings.master_key"
    if not master_key.startswith("sk-"):
        raise SettingsInvalid([f'{path}: does not start with "sk-"'])
    if len(master_key) >= KEY_LENGTH_MIN and master_key not in WELL_KNOWN_KEYS:
        return []
    permitted = bool((content.get("general_settings") or {}).get("dangerously_permit_weak_or_unset_master_key"))
    weak = f"is well known or under {KEY_LENGTH_MIN} characters"
    if not permitted and not _is_loopback(host):
        raise SettingsInvalid([f"{path}: {weak}, and {host} can be reached by others"])
    return [f"{path}: {weak}: anyone who can reach this address may guess it"]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_rates(settings: Mapping[str, Any]) -> list[str]:
    """Rates are kept and shown, and not enforced yet: that must not be found out in production."""
    names = ("tpm_limit", "rpm_limit", "max_parallel_requests")
    places = {
        "litellm_settings.default_internal_user_params": settings["identity"].default_internal_user_params,
        "litellm_settings.upperbound_key_generate_params": settings["keys"].upperbound_key_generate_params,
    }
    return [
        f"{path}.{name}: is kept and shown, but this version does not enforce it yet"
        for path, params in places.items()
        for name in names
        if getattr(params, name, None) is not None
    ]


def _greet(address: str, master_key: str, config: Path | None) -> None:
    models = "the models of " + str(config) if config else "a mock model, mock-gpt, that needs no provider"
    text = f"""
Keystead is up: {address}
Master key:     {master_key}
Models:         {models}

Next, in another terminal:
  export KEYSTEAD_URL={address} KEYSTEAD_MASTER_KEY={master_key}
  curl -s $KEYSTEAD_URL/health/readiness
  sh examples/self-serve.sh     # invite a person, claim, make a key, call a model, see what it cost

Ctrl-C stops everything that was started here.
"""
    print(text, flush=True)  # noqa: T201 - this is what the person waits for
