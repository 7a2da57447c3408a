"""The main job, over real HTTP against real servers: invited, claimed, a key, calls, spend, refused, ended."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.flow import self_serve
from tests.support.installation import Installation, installation

TIMES = 200
SIDE_BY_SIDE = 20


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as made:
        yield made


@pytest.mark.timeout(280)
async def test_the_flow_runs_two_hundred_times_with_no_pause(it: Installation) -> None:
    for _ in range(TIMES):
        await self_serve(it)


async def test_the_flow_runs_side_by_side_with_the_relay_a_second_late() -> None:
    async with installation(relay_delay_seconds=1.0) as slow:
        await asyncio.gather(*(self_serve(slow) for _ in range(SIDE_BY_SIDE)))
