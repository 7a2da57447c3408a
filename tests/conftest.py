"""What every test may have."""

import pytest

from tests.support.servers import start_servers, stop_servers


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers of this run."""
    start_servers(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop them."""
    stop_servers(config)
