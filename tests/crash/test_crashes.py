"""`make crash-test`: an installation of twelve processes at work, and what befalls them, one thing after the other.

Whatever it was: what a client was told stands, once; what it was not told stands wholly or not at all; nothing stays
stuck; and while it lasts, nobody is answered anything but that something is away.
"""

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.crash.faults import FAULTS, Fault, Seen
from tests.crash.workload import Workload, working
from tests.crash.world import TWICE, World, world

FLOWS_BEFORE, FLOWS_AFTER = 2, 4
# Until the next people have gone all the way: who hung on what was away gives up, and begins anew.
FLOWING_SECONDS = 45.0
CONVERGED_SECONDS = 30.0
# A worker is given up after five seconds, and what it held is written off a minute later.
WRITTEN_OFF_SECONDS = 90.0


@pytest_asyncio.fixture(scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("crashes")) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_all_that_was_acknowledged_is_there_once_and_the_rest_wholly_or_not(it: World, fault: Fault) -> None:
    seen = Seen()
    async with working([each.url for each in it.fleet.of("gateway")], it.fleet.http) as work:
        await work.flows(FLOWS_BEFORE, FLOWING_SECONDS)
        struck = time.monotonic()
        await fault.strike(it, seen)
        undone = time.monotonic()
        await work.flows(FLOWS_AFTER, FLOWING_SECONDS)
        flowing = time.monotonic()
    it.commands += work.commands
    ended = time.monotonic()
    await it.books.settle(CONVERGED_SECONDS)
    told(fault, work, seen, lasted=undone - struck, flowing=flowing - undone, settled=time.monotonic() - ended)
    assert not work.wrong, work.wrong
    await it.books.check(it.commands, it.mails)
    for service in TWICE:
        assert len(await it.duties(service)) == 1, f"{service} has one on duty"
        assert await it.streams.out_of_order(service) == []


def told(fault: Fault, work: Workload, seen: Seen, **seconds: float) -> None:
    """A line of the list of faults."""
    times = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    over = "".join(f", {service} taken over in {value:.1f} s" for service, value in seen.take_over_seconds.items())
    acknowledged = sum(command.acknowledged for command in work.commands)
    print(
        f"\n{fault}: {times}{over}; {work.lives} flows, {acknowledged} commands acknowledged, "
        f"{len(work.commands) - acknowledged} lost, failures within {work.outage_seconds:.1f} s: {dict(work.failures)}"
    )


async def test_at_last_no_call_of_a_lost_worker_is_left_open(it: World) -> None:
    await it.books.by_time(WRITTEN_OFF_SECONDS)
    await it.books.settle(CONVERGED_SECONDS)
    await it.books.check(it.commands, it.mails)
