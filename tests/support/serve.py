"""An installation of separate processes: `keystead serve`, each service its own, as a compose file starts them."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import aiohttp

from keystead.app import SERVICES
from keystead.servers import find_nats_server, free_port
from tests.support.databases import copy_of
from tests.support.eventually import eventually
from tests.support.installation import MASTER_KEY, MODEL_LIST, SECRET_KEY, Client
from tests.support.own_servers import OwnServers
from tests.support.up import ROOT, bare_environment

BASE_URL = "http://keystead.test"
START_SECONDS = 60.0
NAMES = tuple(service.name for service in SERVICES if service.name != "gateway")
# As `keystead serve`, and with what no operator would want: a relay that is late.
SLOW = """
import sys
from keystead.serve import ServeArguments, run
sys.exit(run(ServeArguments({services!r}, relay_delay_seconds={delay!r})))
"""


@dataclass
class Served:
    """One process, and where it listens."""

    services: tuple[str, ...]
    url: str
    process: asyncio.subprocess.Process
    errors: Path
    urls: Mapping[str, str] = field(default_factory=dict)

    async def kill(self) -> None:
        """As a machine that fails."""
        self.process.kill()
        await self.process.wait()

    async def end(self) -> int:
        """As an operator ends it; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def freeze(self) -> None:
        """As a machine that is paused."""
        self.process.send_signal(signal.SIGSTOP)

    async def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@dataclass
class Fleet:
    """All that runs. Its first gateway is asked unless another is named."""

    folder: Path
    environment: dict[str, str]
    http: aiohttp.ClientSession
    stack: AsyncExitStack
    relay_delay_seconds: float = 0.0
    processes: list[Served] = field(default_factory=list)

    def of(self, service: str) -> list[Served]:
        return [each for each in self.processes if service in each.services and each.process.returncode is None]

    async def start(self, *services: str, port: int | None = None, urls: Mapping[str, str] | None = None) -> Served:
        """One more process."""
        port = port or free_port()
        errors = self.folder / f"{'-'.join(services)}-{port}.errors"
        environment = {**self.environment, **(urls or {}), "KEYSTEAD_PORT": str(port)}
        command = ["-m", "keystead", "serve", *services]
        if self.relay_delay_seconds:
            command = ["-c", SLOW.format(services=services, delay=self.relay_delay_seconds)]
        with errors.open("a", encoding="utf-8") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=file
            )
        served = Served(services, f"http://127.0.0.1:{port}", process, errors, urls or {})
        self.processes.append(served)
        self.stack.push_async_callback(_ended, served)
        return served

    async def start_again(self, ended: Served) -> Served:
        """Another in the place of one that ended."""
        return await self.start(*ended.services, port=int(ended.url.rpartition(":")[2]), urls=ended.urls)

    async def ready(self, *these: Served) -> None:
        """Until they say that they are."""
        await asyncio.gather(*(eventually(lambda s=each: self._is_ready(s), START_SECONDS) for each in these))  # type: ignore[misc]

    async def _is_ready(self, served: Served) -> bool:
        assert served.process.returncode is None, served.errors.read_text(encoding="utf-8")
        try:
            async with self.http.get(f"{served.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def urls(self, choice: int = 0) -> dict[str, str]:
        """Where a gateway finds the services; of one that runs several times, the one of that number."""
        found = {name: self.of(name) for name in NAMES}
        return {f"KEYSTEAD_{name.upper()}_URL": some[choice % len(some)].url for name, some in found.items() if some}

    @property
    def client(self) -> Client:
        """Of all gateways, each in its turn."""
        urls = [each.url for each in self.of("gateway")]
        return Client(urls[0], self.http, turns=cycle(urls))


async def _ended(served: Served) -> None:
    if served.process.returncode is None:
        served.process.kill()
        await served.process.wait()


@asynccontextmanager
async def fleet_on(servers: OwnServers, folder: Path, **more: str) -> AsyncIterator[Fleet]:
    """On servers of the test's own; no service yet. ``more`` is what the services are told besides."""
    async with AsyncExitStack() as stack:
        environment = {**_environment(folder), **more, "KEYSTEAD_POSTGRES_URL": servers.postgres.url}
        await _keystead("migrate", environment=environment)
        environment["KEYSTEAD_NATS_URL"] = servers.nats.url
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Fleet(folder, environment, http, stack)


def _environment(folder: Path) -> dict[str, str]:
    config = folder / "keystead.yaml"
    config.write_text(json.dumps({"model_list": MODEL_LIST}), encoding="utf-8")
    return {
        **bare_environment(),
        "KEYSTEAD_CONFIG": str(config),
        "KEYSTEAD_SECRET_KEY": SECRET_KEY,
        "KEYSTEAD_MASTER_KEY": MASTER_KEY,
        "PROXY_BASE_URL": BASE_URL,
    }


@asynccontextmanager
async def fleet(folder: Path, *, relay_delay_seconds: float = 0.0) -> AsyncIterator[Fleet]:
    """A database and a NATS, made by `keystead migrate` and `keystead nats-config`; no service yet."""
    async with AsyncExitStack() as stack:
        environment = _environment(folder)

        async def migrate(owner_url: str) -> None:
            await _keystead("migrate", environment={**environment, "KEYSTEAD_POSTGRES_URL": owner_url})

        environment["KEYSTEAD_POSTGRES_URL"] = await stack.enter_async_context(copy_of("keystead_served", migrate))
        port = free_port()
        environment["KEYSTEAD_NATS_URL"] = f"nats://127.0.0.1:{port}"
        await _start_nats(folder, port, await _keystead("nats-config", environment=environment), stack)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Fleet(folder, environment, http, stack, relay_delay_seconds)


async def _keystead(command: str, *, environment: Mapping[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keystead", command, cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, command
    return said.decode()


async def _start_nats(folder: Path, port: int, accounts: str, stack: AsyncExitStack) -> None:
    store = {"store_dir": str(folder / "jetstream")}
    config = folder / "nats.conf"
    config.write_text(f"listen: 127.0.0.1:{port}\njetstream: {json.dumps(store)}\n{accounts}", encoding="utf-8")
    log = (folder / "nats.log").open("w", encoding="utf-8")
    stack.callback(log.close)
    nats = await asyncio.create_subprocess_exec(find_nats_server(), "--config", config, stderr=log)

    async def end() -> None:
        nats.kill()
        await nats.wait()

    stack.push_async_callback(end)


async def whole(fleet: Fleet) -> None:
    """Every service in a process of its own; keys and gateway twice, and each gateway with its own keys."""
    inner = [await fleet.start(name) for name in (*NAMES, "keys")]
    await fleet.ready(*inner)
    outer = [await fleet.start("gateway", urls=fleet.urls(choice)) for choice in range(2)]
    await fleet.ready(*outer)
