"""An installation of many processes that may each be killed or frozen, and what is seen of it from outside."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from tests.crash.books import Books
from tests.crash.streams import Streams
from tests.crash.workload import Command
from tests.support.eventually import eventually
from tests.support.mail_server import MailServer, mail_server
from tests.support.mails import told
from tests.support.own_servers import OwnServers, own_servers
from tests.support.serve import Fleet, Served, fleet_on

# Those with a log of their own.
TWICE = ("identity", "invitations", "keys", "budgets", "notifications")
HOLDER = (
    "select a.pid, a.client_port from pg_locks l join pg_stat_activity a using (pid)"
    " where l.locktype = 'advisory' and l.granted and a.application_name = 'keystead duty' and a.usename = $1"
)


@dataclass
class World:
    """All of it. ``commands`` are those of every test so far: what one fault lost may show later."""

    fleet: Fleet
    servers: OwnServers
    mail: MailServer
    streams: Streams
    commands: list[Command] = field(default_factory=list)

    @property
    def books(self) -> Books:
        return Books(self.servers.postgres.url)

    @property
    def mails(self) -> Counter[str]:
        return Counter(mail.to[0] for mail in self.mail.taken)

    async def duties(self, service: str) -> list[tuple[int, int]]:
        """The sessions that hold the service's duty: PostgreSQL's process, and the port it is connected from."""
        owner = await asyncpg.connect(self.servers.postgres.url)
        try:
            return [tuple(row.values()) for row in await owner.fetch(HOLDER, f"keystead_{service}")]
        finally:
            await owner.close()

    async def holder(self, service: str) -> Served:
        """The replica whose duty it is."""
        ((_, port),) = await self.duties(service)
        (found,) = [each for each in self.fleet.of(service) if port in ports_of(each.process.pid)]
        return found

    async def taken_over(self, service: str, after: int, seconds: float) -> float:
        """How long it took until another session than PostgreSQL's process ``after`` held the duty."""

        async def taken() -> bool:
            return [pid for pid, _ in await self.duties(service)] not in ([], [after])

        began = time.monotonic()
        await eventually(taken, seconds)
        return time.monotonic() - began


def ports_of(pid: int) -> set[int]:
    """The local ports of a process's connections."""
    sockets = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Two processes of each service that has a log of its own, and two gateways, each with its own of those."""
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(own_servers(folder))
        mail = await stack.enter_async_context(mail_server())
        fleet = await stack.enter_async_context(fleet_on(servers, folder, **told(mail)))
        for _ in range(2):
            await fleet.ready(*[await fleet.start(name) for name in TWICE])
        gateways = [await fleet.start("gateway", urls=fleet.urls(choice)) for choice in range(2)]
        await fleet.ready(*gateways)
        yield World(fleet, servers, mail, Streams(servers.witness_url))
