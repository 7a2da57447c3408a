"""What the portal keeps while it runs: its way to the API, and its templates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from services.portal.client import TIMEOUT_SECONDS, Api
from services.portal.rendering import Renderer
from shared.service import Running


@dataclass(frozen=True, slots=True)
class Portal:
    api: Api
    renderer: Renderer


@asynccontextmanager
async def portal(running: Running[Any]) -> AsyncIterator[Portal]:
    """A connection is used once: one that the other side closes meanwhile would fail a POST, which nobody repeats."""
    settings = running.settings
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as http:
        yield Portal(Api(http, settings.api_address, settings.keyring, running.clock), Renderer())
