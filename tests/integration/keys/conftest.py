"""One world of keys for the module's tests; each makes users and keys of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.support.keys import NOON
from tests.support.keys_world import World, keys_world


@pytest.fixture(scope="module")
async def module_world() -> AsyncIterator[World]:
    async with keys_world() as world:
        yield world


@pytest.fixture
def world(module_world: World) -> World:
    """Each test begins at noon, and with no barrier waited for."""
    module_world.clock.now = NOON
    module_world.barriers.clear()
    return module_world
