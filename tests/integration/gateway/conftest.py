"""One provider for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.support.upstream import running_upstream


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with running_upstream() as url:
        yield url
