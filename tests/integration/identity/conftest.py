"""One installation for each module's tests; each makes users of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.support.installation import Installation, installation


@pytest.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running
