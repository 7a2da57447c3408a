"""`keystead up` as a process of its own, as a person starts it."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import httpx2

from keystead.servers import free_port

ROOT = Path(__file__).parents[2]
END_SECONDS = 60.0
# What a developer's shell may hold, and must not reach the command.
NOT_INHERITED = re.compile(r"KEYSTEAD_|LITELLM_|PROXY_|UI_|DATABASE_URL|OPENAI_|SMTP_|PYTHONDONTWRITEBYTECODE|COV_|PG")


@dataclass
class Up:
    """One that has said that it is up."""

    process: "subprocess.Popen[str]"
    errors: Path
    said: str
    seconds: float

    @property
    def url(self) -> str:
        return self._told(r"^Keystead is up: (\S+)$")

    @property
    def master_key(self) -> str:
        return self._told(r"^Master key: +(\S+)$")

    @property
    def exports(self) -> dict[str, str]:
        """What it says to export."""
        return dict(pair.split("=", 1) for pair in self._told(r"^  export (.*)$").split())

    @property
    def logged(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def _told(self, pattern: str) -> str:
        found = re.search(pattern, self.said, re.MULTILINE)
        assert found, self.said
        return found[1]

    def call(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> httpx2.Response:
        """One request, as the admin if no key is given."""
        headers = {"Authorization": f"Bearer {key or self.master_key}"}
        return httpx2.request(method, self.url + path, json=body, headers=headers, timeout=30)

    def ok(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """The answer of a request that must succeed."""
        answer = self.call(method, path, body, key=key)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and wait for its end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)


@contextmanager
def run_up(
    folder: Path,
    *arguments: str,
    port: int | None = None,
    terminal: int | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Up]:
    """Start it on a data folder and wait until it is up. What is left of it at the end is killed."""
    began = time.monotonic()
    with starting(folder, *arguments, port=port, terminal=terminal, environment=environment) as (process, errors):
        yield wait_until_up(process, errors, began=began)


@contextmanager
def starting(
    folder: Path,
    *arguments: str,
    port: int | None = None,
    terminal: int | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """The same, without waiting: the process, and the file of what it writes to standard error."""
    errors = folder.with_name(f"{folder.name}.errors")
    errors.parent.mkdir(parents=True, exist_ok=True)
    command = ["--data", str(folder), "--port", str(port or free_port()), *arguments]
    with errors.open("w", encoding="utf-8") as file:
        process = _popen(command, stderr=file, terminal=terminal, environment=environment)
    try:
        yield process, errors
    finally:
        kill_group(process)


def run_to_its_end(
    *arguments: str, environment: Mapping[str, str] = MappingProxyType({})
) -> "subprocess.CompletedProcess[str]":
    """Start it where it can't start; what it said, and its exit status."""
    process = _popen(arguments, stderr=subprocess.PIPE, terminal=None, environment=environment)
    try:
        said, errors = process.communicate(timeout=END_SECONDS)
    finally:
        kill_group(process)
    return subprocess.CompletedProcess(process.args, process.returncode, said, errors)


def _popen(
    arguments: Sequence[str], *, stderr: int | IO[str], terminal: int | None, environment: Mapping[str, str]
) -> "subprocess.Popen[str]":
    """The process, in a session of its own: what it is sent does not reach the tests, and a terminal is its alone."""
    return subprocess.Popen(
        [sys.executable, "-m", "keystead", "up", *arguments],
        cwd=ROOT,
        env={**bare_environment(), **environment},
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
        preexec_fn=None if terminal is None else lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )


def bare_environment() -> dict[str, str]:
    """The environment without what would be a setting."""
    return {name: value for name, value in os.environ.items() if not NOT_INHERITED.match(name)}


def wait_until_up(process: "subprocess.Popen[str]", errors: Path, *, began: float) -> Up:
    """Read what it says up to its last line."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Ctrl-C"):
            seconds = time.monotonic() - began - seconds_waited_for_a_processor(process.pid)
            return Up(process, errors, said, seconds)
    raise AssertionError(f"exit status {process.wait()}\n{said}\n{errors.read_text(encoding='utf-8')}")


def kill_group(process: "subprocess.Popen[str]") -> None:
    """Kill what is left of it; its servers die with it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def seconds_waited_for_a_processor(pid: int) -> float:
    """How long others kept it from running: on a busy machine that is no time of its own."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except OSError:
        return 0.0


def servers_of(up: Up) -> Mapping[str, int]:
    """The process ids of its servers, by their programs' names."""
    return {name: pid for pid, name, parent in _processes() if parent == up.process.pid}


def family_of(up: Up) -> set[int]:
    """It, its servers, and their processes."""
    return {up.process.pid} | descendants_of(up.process.pid)


def descendants_of(first: int) -> set[int]:
    """The processes that it started, and those that they did."""
    family, parents = {first}, {pid: parent for pid, _, parent in _processes()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {first}


def alive(pids: set[int]) -> set[int]:
    return pids & {pid for pid, _, _ in _processes()}


def _processes() -> Iterator[tuple[int, str, int]]:
    """Id, program and parent of each process that has not ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
        except OSError:
            continue  # it ended meanwhile
        state, parent = rest.split()[:2]
        if state != "Z":
            yield int(stat.parent.name), head.partition("(")[2], int(parent)
