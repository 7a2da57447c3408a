"""What every unit test may rely on."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Logging is the process's: the next test finds it as this one did."""
    before, level = structlog.get_config(), logging.root.level
    yield
    structlog.configure(**before)
    logging.root.setLevel(level)
