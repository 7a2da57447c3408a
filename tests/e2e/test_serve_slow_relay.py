"""The main job through separate processes, while what each service tells the others comes a second late."""

import asyncio
from pathlib import Path

import pytest

from tests.support.flow import self_serve
from tests.support.serve import fleet, whole

TIMES = 100
SIDE_BY_SIDE = 20


@pytest.mark.timeout(280)
async def test_the_flow_runs_a_hundred_times_with_the_relay_a_second_late(tmp_path: Path) -> None:
    async with fleet(tmp_path, relay_delay_seconds=1.0) as slow:
        await whole(slow)
        client = slow.client
        for _ in range(TIMES // SIDE_BY_SIDE):
            await asyncio.gather(*(self_serve(client) for _ in range(SIDE_BY_SIDE)))
