"""A server process of ours: never two at once, dying with us, asked to end before it is made to."""

import asyncio
import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from keystead import launch

POLL_SECONDS = 0.01
LOG_MAX_BYTES = 16 * 1024 * 1024
LOG_TAIL_BYTES = 2000
# Ours holds secrets, and variables that PostgreSQL would take for settings.
BARE_ENVIRONMENT = MappingProxyType({"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"})

# What is sent, and how long we then wait. Both servers end in good order on an interrupt and at once on a quit.
STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
END_LEFT_OVERS = ((signal.SIGINT, 2.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 10.0))
LEFT_OVERS_END_THEMSELVES_SECONDS = 0.25


class ServerFailed(Exception):
    """A server ended before it was ready, or an earlier one can't be ended; the message holds the end of its log."""


class Child:
    """One process, and a lock that it and all that it starts hold for as long as any of them lives.

    So what an earlier run left behind, killed with -9, is noticed, also when it is only a backend of PostgreSQL's
    which has not yet seen that its postmaster is gone. The kernel gives the lock back; no pid file can be stale.
    """

    def __init__(self, name: str, *, lock: Path, log: Path) -> None:
        self.name = name
        self._lock = lock.resolve()
        self._log = log
        self._log_begins = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    async def spawn(
        self,
        command: Sequence[str],
        *,
        home: Path | None = None,
        stale: Path | None = None,
        stdin: bytes = b"",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start the command, its output going to the log. With a home, a folder of its own, it never runs as root.

        `stale` is a file that only a process now gone can have left: removed, once the lock says so.
        """
        if self.pid:
            raise RuntimeError(f"{self.name} runs already")
        lock = await self._take_lock()
        try:
            _remove(stale)
            self._process = self._open([*_launcher(home), *command], lock, environment)
        finally:
            os.close(lock)
        if self._process.stdin:
            with suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(stdin)

    async def exited(self) -> int | None:
        """Wait until the process has ended, however that came; its exit code."""
        await until(self._has_ended, math.inf)
        return self.exit_code

    async def is_ready(self, ready: Callable[[], Awaitable[bool]], patience_seconds: float) -> bool:
        """Wait that long for it to get ready; a process that has ended is an error, as it will not."""

        async def decided() -> bool:
            return await self._has_ended() or await ready()

        if not await until(decided, patience_seconds):
            return False
        if await self._has_ended():
            raise ServerFailed(
                f"{self.name} ended before it was ready, with {self.exit_code}. {self._log}:\n{self.said()}"
            )
        return True

    async def stop(self) -> None:
        """Ask the process to end, then make it; back when it is gone."""
        for number, patience_seconds in STOP:
            if self._process and self.pid:
                self._process.send_signal(number)
                await until(self._has_ended, patience_seconds)

    def said(self) -> str:
        """The last of what the process wrote to its log."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_begins, self._log.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()

    async def _has_ended(self) -> bool:
        return self.pid is None

    def _open(self, command: Sequence[str], lock: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > LOG_MAX_BYTES:
            self._log.replace(self._log.with_suffix(".old.log"))
        with self._log.open("ab") as log:
            self._log_begins = log.tell()
            return subprocess.Popen(  # noqa: S603 - the command is ours
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                cwd="/",
                env=BARE_ENVIRONMENT | environment,
                start_new_session=True,  # a terminal's Ctrl-C is for us alone: we still need the servers while we drain
            )

    async def _take_lock(self) -> int:
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)

        async def taken() -> bool:
            return _try_lock(lock)

        if await until(taken, LEFT_OVERS_END_THEMSELVES_SECONDS):
            return lock
        for number, patience_seconds in END_LEFT_OVERS:
            for pid in holders(self._lock):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if await until(taken, patience_seconds):
                return lock
        os.close(lock)
        raise ServerFailed(f"{self.name} of an earlier start does not end: processes {[*holders(self._lock)]}.")


async def until(condition: Callable[[], Awaitable[bool]], patience_seconds: float) -> bool:
    """Ask again and again, for neither a file lock, nor a process, nor a server's readiness tells us of itself."""
    deadline = asyncio.get_running_loop().time() + patience_seconds
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def holders(path: Path) -> Iterator[int]:
    """The other processes that have the file open, as far as we may see them."""
    mine = os.getpid()
    found = _from_proc(path) if Path("/proc/self/fd").is_dir() else _from_lsof(path)
    return (pid for pid in found if pid != mine)


def _from_proc(path: Path) -> Iterator[int]:
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # it ended meanwhile, or it is none of ours
            if process.name.isdigit() and any(link.readlink() == path for link in (process / "fd").iterdir()):
                yield int(process.name)


def _from_lsof(path: Path) -> Iterator[int]:
    if lsof := shutil.which("lsof"):
        listing = subprocess.run([lsof, "-t", "--", path], capture_output=True, text=True, check=False)  # noqa: S603
        yield from map(int, listing.stdout.split())


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(stale: Path | None) -> None:
    if stale:
        stale.unlink(missing_ok=True)


def _launcher(home: Path | None) -> list[str]:
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(home or "")]
