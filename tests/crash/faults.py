"""The faults: what is done, to whom, and how it is undone."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import asyncpg

from tests.crash.world import TWICE, World
from tests.support.own_servers import OwnServer
from tests.support.serve import Served

DOWN_SECONDS = 2.0
# Longer than the server keeps a session whose process is frozen, and than a worker may go unseen.
FROZEN_SECONDS = 6.0
MINUTE_SECONDS = float(os.environ.get("KEYSTEAD_CRASH_MINUTE_SECONDS", "60"))
TAKE_OVER_SECONDS = 5.0
# One that is frozen keeps its session for four seconds from its last heartbeat; the rest is a slow machine's.
SLOW_MACHINE_SECONDS = 3.0


class Mortal(Protocol):
    """What can be frozen: a server, or a process of ours."""

    async def freeze(self) -> None: ...
    async def thaw(self) -> None: ...


@dataclass
class Seen:
    """What was measured while it lasted."""

    take_over_seconds: dict[str, float] = field(default_factory=dict)


Strike = Callable[[World, Seen], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """``strike`` does it, waits as long as it must last, undoes it, and is back when all run again."""

    name: str
    strike: Strike

    def __str__(self) -> str:
        return self.name


Whom = Callable[[World], Awaitable[Sequence[Served]]]


def both(service: str) -> Whom:
    async def find(world: World) -> Sequence[Served]:
        return world.fleet.of(service)

    return find


def holders(*services: str) -> Whom:
    """Of each service the replica whose duty it is."""

    async def find(world: World) -> Sequence[Served]:
        return [await world.holder(service) for service in services]

    return find


def one_gateway() -> Whom:
    async def find(world: World) -> Sequence[Served]:
        return world.fleet.of("gateway")[:1]

    return find


def kill(whom: Whom) -> Strike:
    """Processes, at once, and as many started in their places."""

    async def strike(world: World, seen: Seen) -> None:
        killed = await whom(world)
        before = await _duties_of(world, killed)
        for each in killed:
            each.process.kill()
        began = time.monotonic()
        await asyncio.gather(*(each.process.wait() for each in killed))
        await _see_take_overs(world, seen, before)
        await asyncio.sleep(max(0.0, DOWN_SECONDS - (time.monotonic() - began)))
        await world.fleet.ready(*[await world.fleet.start_again(each) for each in killed])

    return strike


def freeze(whom: Whom, seconds: float = FROZEN_SECONDS) -> Strike:
    async def strike(world: World, seen: Seen) -> None:
        frozen = await whom(world)
        before = await _duties_of(world, frozen)
        await _frozen(frozen, seconds, _see_take_overs(world, seen, before))
        await world.fleet.ready(*frozen)

    return strike


async def _duties_of(world: World, struck: Sequence[Served]) -> dict[str, int]:
    """The sessions that hold the duties which others may take over."""
    services = {name for each in struck for name in each.services if name in TWICE}
    left = {name for name in services if {*map(id, world.fleet.of(name))} - {*map(id, struck)}}
    return {name: pid for name in left for pid, _ in await world.duties(name)}


async def _see_take_overs(world: World, seen: Seen, before: dict[str, int]) -> None:
    async def one(service: str, pid: int) -> None:
        limit = TAKE_OVER_SECONDS + SLOW_MACHINE_SECONDS
        seen.take_over_seconds[service] = await world.taken_over(service, pid, limit)

    await asyncio.gather(*(one(*each) for each in before.items()))


async def _frozen(these: Sequence[Mortal], seconds: float, meanwhile: Awaitable[None]) -> None:
    try:
        for each in these:
            await each.freeze()
        began = time.monotonic()
        await meanwhile
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
    finally:
        for each in these:
            await each.thaw()


def kill_server(name: str, seconds: float = DOWN_SECONDS, *, emptied: bool = False) -> Strike:
    """The server, which starts again after ``seconds``, with its data or, NATS, without."""

    async def strike(world: World, seen: Seen) -> None:
        server = _server(world, name)
        await server.kill()
        await asyncio.sleep(seconds)
        if emptied:
            world.servers.lose_streams()
        await server.start_again()
        await _all_ready(world)

    return strike


def freeze_server(name: str, seconds: float) -> Strike:
    async def strike(world: World, seen: Seen) -> None:
        await _frozen([_server(world, name)], seconds, asyncio.sleep(0))
        await _all_ready(world)

    return strike


async def kill_a_backend(world: World, seen: Seen) -> None:
    """One of PostgreSQL's processes: the server then ends all sessions and recovers."""
    owner = await asyncpg.connect(world.servers.postgres.url)
    try:
        pid = await owner.fetchval(
            "select pid from pg_stat_activity where application_name = 'keystead identity' limit 1"
        )
    finally:
        owner.terminate()
    os.kill(pid, signal.SIGKILL)
    await _all_ready(world)


def _server(world: World, name: str) -> OwnServer:
    return {"postgres": world.servers.postgres, "nats": world.servers.nats}[name]


async def _all_ready(world: World) -> None:
    await world.fleet.ready(*[each for name in (*TWICE, "gateway") for each in world.fleet.of(name)])


FAULTS = (
    Fault("PostgreSQL is killed", kill_server("postgres")),
    Fault("a backend of PostgreSQL is killed", kill_a_backend),
    Fault("NATS is killed", kill_server("nats")),
    Fault("NATS is killed and its store deleted", kill_server("nats", emptied=True)),
    *(Fault(f"{name} on duty is killed", kill(holders(name))) for name in TWICE),
    Fault("a gateway is killed", kill(one_gateway())),
    *(Fault(f"both of {name} are killed", kill(both(name))) for name in TWICE),
    Fault("both gateways are killed", kill(both("gateway"))),
    *(Fault(f"{name} on duty freezes", freeze(holders(name))) for name in TWICE),
    Fault("a gateway freezes", freeze(one_gateway())),
    *(Fault(f"both of {name} freeze", freeze(both(name))) for name in TWICE),
    Fault("everyone on duty freezes for a minute", freeze(holders(*TWICE), MINUTE_SECONDS)),
    Fault("PostgreSQL freezes for a minute", freeze_server("postgres", MINUTE_SECONDS)),
    Fault("NATS freezes for a minute", freeze_server("nats", MINUTE_SECONDS)),
    Fault("NATS is down for two minutes", kill_server("nats", 2 * MINUTE_SECONDS)),
)
