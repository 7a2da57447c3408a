"""One world of invitations a module; a test has users of its own in it, and begins at noon."""

from collections.abc import AsyncIterator

import pytest
from httpx2 import AsyncClient

from tests.support.invitations_world import NOON, World, client_of
from tests.support.invitations_world import world as a_world


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
def noon(world: World) -> None:
    world.clock.now = NOON


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncClient]:
    async with client_of(world) as client:
        yield client
