"""The main job through separate processes: each service its own, keys and gateway twice, HTTP and NATS between them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.flow import self_serve
from tests.support.serve import Fleet, fleet, whole

TIMES = 100
SIDE_BY_SIDE = 20


@pytest_asyncio.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("served")) as made:
        await whole(made)
        yield made


@pytest.mark.timeout(280)
async def test_the_flow_runs_a_hundred_times_with_no_pause(served: Fleet) -> None:
    client = served.client
    for _ in range(TIMES):
        await self_serve(client)


@pytest.mark.timeout(280)
async def test_the_flow_runs_a_hundred_times_with_the_relay_a_second_late(tmp_path: Path) -> None:
    async with fleet(tmp_path, relay_delay_seconds=1.0) as slow:
        await whole(slow)
        client = slow.client
        for _ in range(TIMES // SIDE_BY_SIDE):
            await asyncio.gather(*(self_serve(client) for _ in range(SIDE_BY_SIDE)))
