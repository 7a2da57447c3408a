"""One PostgreSQL and one NATS for the whole test run, shared by its workers; or those that the environment names."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from keystead.data_folder import DataFolder
from keystead.servers import NatsServer, PostgresServer

POSTGRES_URL = "KEYSTEAD_TEST_POSTGRES_URL"
NATS_URL = "KEYSTEAD_TEST_NATS_URL"
STARTED = pytest.StashKey[ExitStack]()


def postgres_url() -> str:
    """The superuser's address, as `postgresql://user:password@host:port/database`."""
    return os.environ[POSTGRES_URL]


def nats_url() -> str:
    """Where NATS with JetStream listens; ours is open to everyone on this machine."""
    return os.environ[NATS_URL]


def start_servers(config: pytest.Config) -> None:
    """Start what the environment does not name, and name it there: xdist's workers begin later and inherit it."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        with ExitStack() as stack:
            stack.enter_context(servers())
            config.stash[STARTED] = stack.pop_all()


def stop_servers(config: pytest.Config) -> None:
    """Stop what `start_servers` started. Should the run be killed, they die with it."""
    config.stash.get(STARTED, ExitStack()).close()


@contextmanager
def servers() -> Iterator[None]:
    """Those that the environment does not name run, and are named there, for the length of the block."""
    missing = [name for name in (POSTGRES_URL, NATS_URL) if name not in os.environ]
    with ExitStack() as stack:
        data = _data_folder(stack) if missing else None
        for name in missing:
            assert data is not None
            _start(PostgresServer(data, fsync=False) if name == POSTGRES_URL else _nats(data), name, stack)
        yield


def _data_folder(stack: ExitStack) -> DataFolder:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="keystead-tests-"))
    return stack.enter_context(DataFolder(Path(folder)))


def _nats(data: DataFolder) -> NatsServer:
    return NatsServer(data, sync_always=False)


def _start(server: PostgresServer | NatsServer, name: str, stack: ExitStack) -> None:
    stack.callback(lambda: asyncio.run(server.stop()))
    asyncio.run(server.start())
    os.environ[name] = server.url
    stack.callback(os.environ.pop, name)
