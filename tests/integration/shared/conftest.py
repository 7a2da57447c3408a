"""The kernel's tests each have a place of their own; most have both toys at work there."""

from collections.abc import AsyncIterator

import pytest

from tests.support.toys import Place, Toys
from tests.support.toys import place as a_place
from tests.support.toys import toys as the_toys


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as here:
        yield here


@pytest.fixture
async def toys(place: Place) -> AsyncIterator[Toys]:
    async with the_toys(place) as running:
        yield running


@pytest.fixture(scope="module")
async def shared_toys() -> AsyncIterator[Toys]:
    """Toys for tests that leave nothing behind."""
    async with a_place() as here, the_toys(here) as running:
        yield running
