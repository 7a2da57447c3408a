"""Which Keystead this is."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


def version() -> str:
    """The installed package's version; a checkout is not installed."""
    try:
        return version_of("keystead")
    except PackageNotFoundError:
        return "0.1.0"
