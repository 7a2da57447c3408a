"""The containers of docker-compose.yml, brought up, asked, killed and taken down by Docker's own command."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = "keystead-test"
FILES = ("--file", "docker-compose.yml", "--file", "tests/compose/compose.yaml")
PORT = 4080
UP_SECONDS = 900


@dataclass(frozen=True)
class Containers:
    """One installation of them. ``port`` is nginx's, on this machine."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def master_key(self) -> str:
        return (ROOT / "deploy" / "secrets" / "master_key").read_text(encoding="utf-8").strip()

    def secrets(self) -> dict[str, str]:
        """What nobody may find in an environment or a log, by the file's name."""
        folder = ROOT / "deploy" / "secrets"
        found = {path.name: path.read_text(encoding="utf-8").strip() for path in folder.iterdir()}
        return {name: value for name, value in found.items() if value}

    def inspect(self) -> list[dict[str, Any]]:
        """All containers, those that have ended too, as Docker knows them."""
        ids = compose("ps", "--all", "--quiet").split()
        found: list[dict[str, Any]] = json.loads(_docker("inspect", *ids))
        return found

    def run_in(self, service: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command in a running container; what became of it."""
        return subprocess.run(
            ["docker", "exec", f"{PROJECT}-{service}-1", *command], capture_output=True, text=True, check=False
        )

    def kill(self, service: str) -> None:
        """As a machine that fails: it is gone, container and all."""
        _docker("rm", "--force", f"{PROJECT}-{service}-1")

    def replace(self, service: str) -> None:
        """Bring another up in its place, and wait until it is healthy."""
        compose("up", "--detach", "--no-deps", "--wait", service)

    def logs(self) -> str:
        return compose("logs", "--no-color")


@contextmanager
def containers(port: int = PORT) -> Iterator[Containers]:
    """Build, bring up and wait until all are healthy; at the end nothing is left, data included."""
    subprocess.run(["sh", "deploy/make-secrets.sh"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    os.environ["KEYSTEAD_PUBLISHED_PORT"] = str(port)
    try:
        compose("up", "--build", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS))
        yield Containers(port)
    finally:
        compose("down", "--volumes", "--timeout", "5")


def compose(*arguments: str) -> str:
    """What `docker compose` said. Raises ``AssertionError`` with its last words if it failed."""
    return _docker("compose", "--project-name", PROJECT, *FILES, *arguments)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments[:8])} …: {done.stderr[-3000:]}"
    return done.stdout
