"""Every route of a running installation, as the application itself has it."""

from collections.abc import Iterator
from typing import NamedTuple

from fastapi.routing import APIRoute

from tests.support.installation import Installation


class Served(NamedTuple):
    """A route by one of its methods. ``name`` is how tests call it: ``POST /key/delete``, parameters as ``{}``."""

    method: str
    route: APIRoute

    @property
    def name(self) -> str:
        return f"{self.method} {plain(self.route.path)}"


def routes_of(it: Installation) -> list[Served]:
    """Those of the API."""
    return [served for served in _served(it) if served.route.include_in_schema]


def pages_of(it: Installation) -> list[Served]:
    """Those that answer a person, in HTML, and are no part of the API's description."""
    return [served for served in _served(it) if not served.route.include_in_schema]


def plain(path: str) -> str:
    """A path with its parameters' names left out, which are nobody's promise."""
    parts = path.split("{")
    return parts[0] + "".join("{}" + part.partition("}")[2] for part in parts[1:])


def _served(it: Installation) -> Iterator[Served]:
    for way in vars(it.composition.app)["_ways"]:  # what the gate lets through to the application
        for method in sorted(way.route.methods):
            yield Served(method, way.route)
