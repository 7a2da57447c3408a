"""Schemathesis reads `/openapi.json` of a running installation and tries everything in it, in sequences too (§1.4).

The same requests in every run. KEYSTEAD_TEST_FUZZ_EXAMPLES=200 tries that many of each instead of a few, at random.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.flow import self_serve
from tests.support.half_done import nothing_is_half_done
from tests.support.installation import MASTER_KEY, Installation, installation

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("KEYSTEAD_TEST_FUZZ_EXAMPLES", "0"))
# What the document can't say is no fault: that a key must be there, that one date is not after the other.
NOT_CHECKED = "positive_data_acceptance"
# Whoever tries these ends the session that they try with.
ENDING_THE_SESSION = ("/logout", "/session/logout", "/keystead/v1/sessions", "/keystead/v1/sessions/{session_id}")


@dataclass(frozen=True)
class Run:
    """Who tries, and how much of it."""

    role: str
    phases: str
    examples: int

    def __str__(self) -> str:
        return self.role or "nobody"


# Most is found by who may most; the rest is there for what is refused.
RUNS = (
    Run("", "fuzzing", 1),
    Run("internal_user_viewer", "fuzzing", 1),
    Run("internal_user", "fuzzing,stateful", 1),
    Run("proxy_admin", "coverage,stateful", 4),
)


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running


async def options_of(it: Installation, run: Run) -> list[str]:
    if not run.role:
        return []
    if run.role == "proxy_admin":
        return ["-H", f"Authorization: Bearer {MASTER_KEY}"]
    session = (await it.invite(user_role=run.role)).session
    left_out = [option for path in ENDING_THE_SESSION for option in ("--exclude-path", path)]
    return ["-H", f"Authorization: Bearer {session}", *left_out]


async def schemathesis(it: Installation, run: Run, options: Sequence[str], folder: Path) -> tuple[int, str]:
    """The command's exit status and all that it says; what it keeps is in ``folder``."""
    chance = ["-n", str(EXAMPLES)] if EXAMPLES else ["-n", str(run.examples), "--generation-deterministic"]
    phases = "examples,coverage,fuzzing,stateful" if EXAMPLES else run.phases
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{it.url}/openapi.json", "--no-color"]
    process = await asyncio.create_subprocess_exec(
        *(*command, *chance, "--phases", phases, "--checks", "all", "--exclude-checks", NOT_CHECKED, "--no-shrink"),
        *("--continue-on-failure", "--request-timeout", "20", "--warnings", "off", "--suppress-health-check", "all"),
        *options,
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.fuzzing", "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.timeout(7200 if EXAMPLES else 300)
@pytest.mark.parametrize("run", RUNS, ids=str)
async def test_no_request_is_answered_otherwise_than_described(it: Installation, run: Run, tmp_path: Path) -> None:
    status, said = await schemathesis(it, run, await options_of(it, run), tmp_path)
    assert status == 0, said
    assert "refusal_of_the_contract" not in said


async def test_nothing_is_left_half_done(it: Installation) -> None:
    await nothing_is_half_done(it.owner_url)


async def test_everything_goes_on_working(it: Installation) -> None:
    status, ready = await it.call("GET", "/health/readiness", key=None)
    assert (status, ready["status"]) == (200, "healthy")
    await self_serve(it)
