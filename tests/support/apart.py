"""An installation in two applications with HTTP between them: a gateway, and all other services behind it."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

import aiohttp

from keystead.app import SERVICES, compose
from services.gateway.service import SERVICE as GATEWAY
from tests.support.installation import (
    Client,
    address_of,
    connections_to,
    database,
    keyring,
    loopback,
    serving,
    settings,
)
from tests.support.servers import nats_url
from tests.support.streams import forget_streams


@dataclass
class Apart(Client):
    """``url`` is the gateway's, ``inner`` that of the services behind it."""

    inner: str


@asynccontextmanager
async def apart(elsewhere: Mapping[str, str] = MappingProxyType({})) -> AsyncIterator[Apart]:
    """On a database and under names of its own. ``elsewhere`` says where the gateway looks for some, instead."""
    inner = [service for service in SERVICES if service is not GATEWAY]
    at = loopback()
    loaded, ring = settings(KEYSTEAD_API_URL=address_of(at)), keyring()
    async with database() as owner_url, aiohttp.ClientSession() as http:
        namespace = f"t{uuid.uuid4().hex[:10]}."
        connections = connections_to(owner_url, namespace)
        behind = compose(inner, loaded, connections, keyring=ring)
        async with serving(behind.app) as inner_url:
            urls = {**{service.name: inner_url for service in inner}, **elsewhere}
            front = compose([GATEWAY], loaded, connections, keyring=ring, elsewhere=urls)
            async with serving(front.app, at) as url:
                yield Apart(url, http, inner_url)
                await forget_streams(nats_url(), namespace)
