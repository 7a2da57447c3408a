"""A PostgreSQL and a NATS that are a test's own, so that it may kill them, freeze them and take away what they hold."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from keystead.data_folder import DataFolder
from keystead.nats_users import nats_users
from keystead.servers import NatsServer, NatsUser, PostgresServer
from tests.support.installation import keyring
from tests.support.up import descendants_of

# Sees all that NATS holds, as none of an installation's own may.
WITNESS = NatsUser("witness", "seen-by-nobody-else")


@dataclass
class OwnServer:
    """A server that a signal may befall."""

    server: PostgresServer | NatsServer

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def url(self) -> str:
        return self.server.url

    async def kill(self) -> None:
        """Its first process; what others there are see that it is gone, and go."""
        os.kill(self._pid, signal.SIGKILL)
        await self.server.exited()

    async def start_again(self) -> None:
        """On the port it had, when all that was left of it is gone."""
        await self.server.start()

    async def freeze(self) -> None:
        signal_all(self._pid, signal.SIGSTOP)

    async def thaw(self) -> None:
        signal_all(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        assert self.server.pid is not None
        return self.server.pid


def signal_all(pid: int, number: int) -> None:
    """The process first, so that it starts no more, then those that it started."""
    os.kill(pid, number)
    for each in descendants_of(pid):
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(each, number)


@dataclass
class OwnServers:
    """Both."""

    postgres: OwnServer
    nats: OwnServer
    data: DataFolder

    @property
    def witness_url(self) -> str:
        return self.nats.url.replace("://", f"://{WITNESS.name}:{WITNESS.password}@")

    def lose_streams(self) -> None:
        """All that NATS holds, while it does not run."""
        shutil.rmtree(self.data.nats / "jetstream")


@asynccontextmanager
async def own_servers(folder: Path) -> AsyncIterator[OwnServers]:
    """Running, with the log-ins of an installation."""
    async with AsyncExitStack() as stack:
        data = stack.enter_context(DataFolder(folder / "servers"))
        users = [*nats_users(keyring()), WITNESS]
        postgres = OwnServer(PostgresServer(data, fsync=False))
        nats = OwnServer(NatsServer(data, users, sync_always=False))
        for own in (postgres, nats):
            stack.push_async_callback(own.server.stop)
            await own.server.start()
        yield OwnServers(postgres, nats, data)
