"""Every test of budgets has the module's world, at noon and without open holds of others in its own scopes."""

from collections.abc import AsyncIterator

import pytest

from tests.support.budgets import NOON
from tests.support.budgets_world import World, budgets_world


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with budgets_world() as world:
        yield world


@pytest.fixture(autouse=True)
def noon(world: World) -> None:
    """Each test begins at noon."""
    world.clock.now = NOON
