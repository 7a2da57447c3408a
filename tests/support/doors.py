"""A door for tests of what is behind the gate: who comes in is said by the test."""

import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from shared.gate import Arrival, Gate, Served, Way
from shared.principal import Principal
from shared.visitor import visitor_of


@dataclass(frozen=True)
class OpenDoor:
    """Asks ``who`` where a credential is needed."""

    who: Callable[[Request], Awaitable[Principal]]

    def greet(self, request: Request, service: str | None) -> Arrival:
        return Arrival(str(uuid.uuid4()), visitor_of(request))

    async def identify(self, request: Request, way: Way) -> Principal | None:
        return None if way.is_open else await self.who(request)


def gated(
    app: ASGIApp, routes: Iterable[Any], who: Callable[[Request], Awaitable[Principal]], version: str = "test"
) -> Gate:
    """``app`` with these routes behind a gate."""
    served = Served("tested", app, [route for route in routes if isinstance(route, APIRoute)])
    return Gate(app, served=[served], door=OpenDoor(who), version=version)
