"""A worker in a process of its own, which a test can freeze or kill: ``python -m tests.support.worker_process``.

Reads what it is to join from its standard input, as JSON; the first line that it prints is its address.
"""

import asyncio
import json
import signal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from keystead.app import SERVICES, compose
from services.gateway.service import SERVICE as GATEWAY
from tests.support.installation import Installation, connections_to, keyring, serving, settings


@dataclass
class WorkerProcess:
    """One that runs at ``url``, unless it is frozen."""

    url: str
    _process: asyncio.subprocess.Process

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Without a word of farewell."""
        self._process.kill()


@asynccontextmanager
async def worker_process(
    it: Installation, content: dict[str, Any], services: Sequence[str] = (GATEWAY.name,)
) -> AsyncIterator[WorkerProcess]:
    """A replica of some services of that installation, made from the same content of the configuration file."""
    given = {"owner_url": it.owner_url, "namespace": it.namespace, "content": content, "services": [*services]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.worker_process", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(given).encode() + b"\n")
    await process.stdin.drain()
    try:
        yield WorkerProcess((await process.stdout.readline()).decode().strip(), process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


async def work(told: TextIO, owner_url: str, namespace: str, content: dict[str, Any], services: Sequence[str]) -> None:
    """Until killed."""
    loaded = settings(content)
    ours = [service for service in SERVICES if service.name in services]
    async with serving(compose(ours, loaded, connections_to(owner_url, namespace), keyring=keyring()).app) as url:
        print(url, file=told, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="EdDSA is deprecated")
    answers, sys.stdout = sys.stdout, sys.stderr  # what is logged goes elsewhere
    asyncio.run(work(answers, **json.loads(sys.stdin.readline())))
