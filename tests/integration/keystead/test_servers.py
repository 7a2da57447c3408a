"""The servers of `keystead up`, for real: started, killed, started again, stopped."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import asyncpg
import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from keystead.child import ServerFailed, holders, until
from keystead.data_folder import DataFolder
from keystead.servers import NatsServer, NatsUser, PostgresServer, supervise

RESTART_SECONDS = 5.0
SECOND_START_SECONDS = 3.0
FOREVER = "select count(*) from generate_series(1, 1000000000000)"  # never asks whether its postmaster lives

# What `up` is here: it starts both servers, says so, and waits to be killed.
UP = """
import asyncio, sys
from pathlib import Path
from keystead.data_folder import DataFolder
from keystead.servers import NatsServer, PostgresServer

async def up(data):
    for server in (PostgresServer(data), NatsServer(data)):
        await server.start()
        print(server.pid, server.url, flush=True)
    await asyncio.Event().wait()

asyncio.run(up(DataFolder(Path(sys.argv[1]))))
"""


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataFolder]:
    with DataFolder(tmp_path / "a folder, with spaces") as folder:
        yield folder


@pytest.fixture
async def postgres(data: DataFolder) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(data)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def nats_server(data: DataFolder) -> AsyncIterator[NatsServer]:
    server = NatsServer(data)
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def supervised(server: PostgresServer | NatsServer) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    supervision = asyncio.create_task(supervise(server, stop))
    yield stop
    stop.set()
    await supervision


@asynccontextmanager
async def connection(server: PostgresServer) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connected = await asyncpg.connect(server.url)
    try:
        yield connected
    finally:
        await connected.close()


@asynccontextmanager
async def client(server: NatsServer, user: NatsUser | None = None) -> AsyncIterator[Client]:
    login = {"user": user.name, "password": user.password} if user else {}
    connected = await nats.connect(server.url, **login, reconnect_time_wait=0.01, max_reconnect_attempts=-1)
    try:
        yield connected
    finally:
        await connected.close()


async def write_row(server: PostgresServer) -> None:
    async with connection(server) as postgres:
        await postgres.execute("create table if not exists committed (number int)")
        await postgres.execute("insert into committed values (1)")


async def count_rows(server: PostgresServer) -> int:
    async with connection(server) as postgres:
        return int(await postgres.fetchval("select count(*) from committed"))


async def write_message(server: NatsServer) -> None:
    async with client(server) as connected:
        await connected.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await connected.jetstream().publish("kept", b"1")


async def count_messages(server: NatsServer) -> int:
    async with client(server) as connected:
        return (await connected.jetstream().stream_info("KEPT")).state.messages


async def is_up(server: PostgresServer | NatsServer) -> bool:
    try:
        await (count_rows(server) if isinstance(server, PostgresServer) else count_messages(server))
    except (OSError, asyncpg.PostgresError, nats.errors.Error):
        return False
    return True


async def seconds_until_up_again(server: PostgresServer | NatsServer) -> float:
    """From a kill -9 to the first question answered."""
    killed_at = monotonic()
    killed = server.pid
    assert killed
    os.kill(killed, signal.SIGKILL)

    async def again() -> bool:
        return server.pid not in {None, killed} and await is_up(server)

    assert await until(again, 4 * RESTART_SECONDS)
    return monotonic() - killed_at


def run_up(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", UP, folder], stdout=subprocess.PIPE, text=True)


def user_of(server: PostgresServer) -> int:
    return Path(f"/proc/{server.pid}").stat().st_uid


def environment_of(server: PostgresServer) -> bytes:
    return Path(f"/proc/{server.pid}/environ").read_bytes()


def processes(data: DataFolder) -> list[int]:
    """All that the servers are made of: each holds its server's lock."""
    return [pid for name in ("postgres.lock", "nats.lock") for pid in holders(data.path / name)]


async def test_stopping_leaves_no_process(data: DataFolder, postgres: PostgresServer, nats_server: NatsServer) -> None:
    assert {postgres.pid, nats_server.pid} < {*processes(data)}
    await postgres.stop()
    await nats_server.stop()
    assert processes(data) == []
    await postgres.stop()


async def test_a_second_start_is_quick_and_finds_what_was_committed(data: DataFolder) -> None:
    for runs in range(1, 3):
        started_at = monotonic()
        postgres, nats_server = PostgresServer(data), NatsServer(data)
        await asyncio.gather(postgres.start(), nats_server.start())
        took_seconds = monotonic() - started_at
        await write_row(postgres)
        await write_message(nats_server)
        assert (await count_rows(postgres), await count_messages(nats_server)) == (runs, runs)
        await asyncio.gather(postgres.stop(), nats_server.stop())
    assert took_seconds < SECOND_START_SECONDS


async def test_a_killed_postgres_is_started_again_with_all_that_was_committed(postgres: PostgresServer) -> None:
    await write_row(postgres)
    async with supervised(postgres):
        for _ in range(3):
            assert await seconds_until_up_again(postgres) < RESTART_SECONDS
            await write_row(postgres)
    assert await count_rows(postgres) == 4


async def test_a_busy_backend_of_a_killed_postgres_does_not_hold_up_the_next(postgres: PostgresServer) -> None:
    await write_row(postgres)
    busy = await asyncpg.connect(postgres.url)
    query = asyncio.create_task(busy.execute(FOREVER))

    async def it_runs() -> bool:
        async with connection(postgres) as other:
            running = await other.fetchval("select count(*) from pg_stat_activity where query = $1", FOREVER)
        return bool(running)

    assert await until(it_runs, RESTART_SECONDS)
    async with supervised(postgres):
        assert await seconds_until_up_again(postgres) < RESTART_SECONDS
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await query
    busy.terminate()


async def test_a_killed_nats_is_started_again_and_its_clients_find_it(nats_server: NatsServer) -> None:
    await write_message(nats_server)
    async with supervised(nats_server), client(nats_server) as connected:

        async def found() -> bool:
            return connected.is_connected

        for _ in range(3):
            assert await seconds_until_up_again(nats_server) < RESTART_SECONDS
            # A kill amid its greeting makes the client drop a socket without closing it, which counts as a fault here.
            assert await until(found, RESTART_SECONDS)
        await connected.jetstream().publish("kept", b"2")
    assert await count_messages(nats_server) == 2


@pytest.mark.parametrize("servers_too", [False, True], ids=["up alone", "all of it"])
async def test_after_kill_9_it_starts_again_at_once_and_nothing_is_lost(tmp_path: Path, *, servers_too: bool) -> None:
    with run_up(tmp_path) as up:
        assert up.stdout
        (postgres_pid, url), (nats_pid, nats_url) = (up.stdout.readline().split() for _ in range(2))
        postgres = await asyncpg.connect(url)
        await postgres.execute("create table committed as select 1")
        connected = await nats.connect(nats_url, allow_reconnect=False)
        await connected.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await connected.jetstream().publish("kept", b"1")
        for pid in [up.pid, *(int(pid) for pid in (postgres_pid, nats_pid) if servers_too)]:
            os.kill(pid, signal.SIGKILL)
    with DataFolder(tmp_path) as data:
        again, nats_again = PostgresServer(data), NatsServer(data)
        await asyncio.gather(again.start(), nats_again.start())
        assert {int(postgres_pid), int(nats_pid)}.isdisjoint(processes(data))
        assert (await count_rows(again), await count_messages(nats_again)) == (1, 1)
        await asyncio.gather(again.stop(), nats_again.stop())
    postgres.terminate()
    await connected.close()


async def test_there_are_never_two_at_once(postgres: PostgresServer) -> None:
    running = postgres.pid
    with pytest.raises(RuntimeError, match="runs already"):
        await postgres.start()
    assert postgres.pid == running


async def test_supervision_ends_when_told_and_leaves_the_server_running(postgres: PostgresServer) -> None:
    async with supervised(postgres):
        pass
    assert postgres.pid


async def test_a_server_that_does_not_come_up_again_is_tried_until_it_does(
    data: DataFolder, postgres: PostgresServer
) -> None:
    version = data.postgres / "PG_VERSION"
    right = version.read_text()
    await write_row(postgres)

    with capture_logs() as logs:

        async def failed_twice() -> bool:
            return [entry["event"] for entry in logs].count("server.restart_failed") == 2

        async with supervised(postgres):
            version.write_text("9\n")
            assert postgres.pid
            os.kill(postgres.pid, signal.SIGKILL)
            assert await until(failed_twice, 2 * RESTART_SECONDS)
            version.write_text(right)
            assert await until(lambda: is_up(postgres), RESTART_SECONDS)
    events = [entry["event"] for entry in logs]
    assert events[:3] == ["server.died", "server.restart_failed", "server.restart_failed"]
    assert "database files are incompatible with server" in logs[1]["error"]


async def test_supervision_ends_also_while_a_server_is_down(data: DataFolder, postgres: PostgresServer) -> None:
    with capture_logs() as logs:

        async def failed() -> bool:
            return "server.restart_failed" in [entry["event"] for entry in logs]

        async with supervised(postgres):
            (data.postgres / "PG_VERSION").write_text("9\n")
            assert postgres.pid
            os.kill(postgres.pid, signal.SIGKILL)
            assert await until(failed, RESTART_SECONDS)
    await postgres.stop()
    assert processes(data) == []


async def test_an_interrupted_first_start_is_not_taken_for_a_finished_one(data: DataFolder) -> None:
    server = PostgresServer(data)
    start = asyncio.create_task(server.start())

    async def half_made() -> bool:
        return any(data.path.glob("postgres.making.*/base"))

    assert await until(half_made, RESTART_SECONDS)
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await server.stop()
    assert processes(data) == []
    await server.start()
    await write_row(server)
    await server.stop()
    assert not [*data.path.glob("postgres.making.*")]


async def test_a_pid_file_that_names_someone_else_is_no_obstacle(data: DataFolder) -> None:
    server = PostgresServer(data)
    await server.start()
    await server.stop()
    (data.postgres / "postmaster.pid").write_text(f"{os.getppid()}\n{data.postgres}\n0\n1\n\n127.0.0.1\n")
    await server.start()
    await server.stop()


async def test_a_server_that_cannot_start_says_what_its_log_says(data: DataFolder) -> None:
    data.postgres.mkdir()
    with pytest.raises(ServerFailed, match=r"(?s)postgres ended before it was ready.*postgresql.conf"):
        await PostgresServer(data).start()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="about root on Linux")
async def test_root_that_may_not_make_a_user_namespace_runs_postgres_as_nobody(data: DataFolder) -> None:
    server = PostgresServer(data)
    await server.start()
    await write_row(server)
    await server.stop()
    for path in (*data.postgres.rglob("*"), data.postgres):  # as the start that was not allowed to would have left it
        os.chown(path, 65534, 65534)
    await server.start()
    assert user_of(server) == 65534
    assert await count_rows(server) == 1
    await server.stop()


async def test_postgres_asks_for_the_password(postgres: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url, password="guessed")


async def test_postgres_logs_no_data(data: DataFolder, postgres: PostgresServer) -> None:
    async with connection(postgres) as connected:
        await connected.execute("create table people (email text primary key)")
        await connected.execute("insert into people values ('ada@example.com')")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connected.execute("insert into people values ('ada@example.com')")
    log = (data.logs / "postgres.log").read_text()
    assert "duplicate key value violates unique constraint" in log
    assert "ada" not in log


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_servers_see_none_of_our_environment(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_MASTER_KEY", "sk-secret")
    monkeypatch.setenv("PGDATA", "/nowhere")
    server = PostgresServer(data)
    await server.start()
    assert b"sk-secret" not in environment_of(server)
    await server.stop()


async def test_a_nats_user_may_do_what_is_named_and_answer_who_asks(data: DataFolder) -> None:
    keys = NatsUser("keys", "one", publish=["keys.>"], subscribe=["keys.>"])
    everyone = NatsUser("operator", "two")
    server = NatsServer(data, [keys, everyone])
    await server.start()
    refusals: list[str] = []

    async def refused(error: Exception) -> None:
        refusals.append(str(error))

    async def answer(question: Msg) -> None:
        await question.respond(b"answer")

    limited = await nats.connect(server.url, user="keys", password="one", error_cb=refused)
    async with client(server, everyone) as operator:
        await limited.subscribe("keys.ask", cb=answer)
        await limited.publish("users.UserDeleted", b"")
        for _ in range(2):  # the client's ping overtakes what it has not written yet: only a second one comes after it
            await limited.flush()
        assert (await operator.request("keys.ask", b"", timeout=2)).data == b"answer"
        await operator.jetstream().add_stream(name="KEYS", subjects=["keys.>"])
    await limited.close()
    assert [text for text in refusals if "users.userdeleted" in text.lower()] == refusals != []
    stranger = Client()
    with pytest.raises(nats.errors.Error):
        await stranger.connect(server.url, allow_reconnect=False, error_cb=refused)
    await stranger.close()  # a refused client keeps its socket until told
    await server.stop()
    assert "one" not in repr(keys)
