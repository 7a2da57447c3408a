"""What every test may have."""

import pytest

pytest.register_assert_rewrite("tests.support")

from tests.support.servers import start_servers, stop_servers  # noqa: E402 - rewritten first


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers of this run."""
    start_servers(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop them."""
    stop_servers(config)
