"""What git has of a file: the tests that something only grows compare with it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

needs_history = pytest.mark.skipif(
    not (CHECKOUT / ".git").exists(), reason="not a checkout: there is no history to compare with"
)


def committed(path: Path) -> Iterator[tuple[str, str]]:
    """Every version of the file ever committed on the way to this one: the commit, and the text. The newest first."""
    name = path.relative_to(CHECKOUT)
    for commit in _git("log", "--format=%H", "--", str(name)).split():
        yield commit[:10], _git("show", f"{commit}:{name}")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
