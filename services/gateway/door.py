"""The door to the world: anyone may come to it, and is asked for a credential where the way is not open."""

import uuid

from fastapi import Request

from services.gateway.settings import GatewaySettings
from shared.gate import Arrival, Way
from shared.principal import Principal
from shared.service import Running
from shared.visitor import VISITOR_HEADER, read_visitor, visitor_of


class PublicDoor:
    """Stands in a process with a gateway."""

    def __init__(self, gateway: Running[GatewaySettings]) -> None:
        self._gateway = gateway

    def greet(self, request: Request, service: str | None) -> Arrival:
        """A call id is always ours, whatever the client sends."""
        settings = self._gateway.settings
        token = request.headers.get(VISITOR_HEADER)
        visitor = read_visitor(settings.keyring, token, self._gateway.clock()) if token else None
        return Arrival(str(uuid.uuid4()), visitor or visitor_of(request, settings.trusted_proxy_ranges))

    async def identify(self, request: Request, way: Way) -> Principal | None:
        """By the request's credential."""
        if way.is_open:
            return None
        principal: Principal = await self._gateway.own.edge.identify(request, self._gateway.clock())
        return principal
