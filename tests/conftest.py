"""What every test may have."""

from asyncio import AbstractEventLoop
from collections.abc import Callable

import pytest
import uvloop

pytest.register_assert_rewrite("tests.support")

from tests.support.servers import start_servers, stop_servers  # noqa: E402 - rewritten first


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers of this run."""
    start_servers(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop them."""
    stop_servers(config)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    """The event loop that `keystead up` runs on."""
    return {"uvloop": uvloop.new_event_loop}
