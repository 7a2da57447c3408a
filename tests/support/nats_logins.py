"""Log-ins at a NATS that has the list of users: what each may do, and what the server refuses it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from keystead.app import SERVICES
from keystead.data_folder import DataFolder
from keystead.nats_users import SUBSCRIBER, nats_urls, nats_users, subscriber_url
from keystead.servers import NatsServer
from shared.keyring import Keyring
from shared.wire import Wire, inbox_of

KEYRING = Keyring(base64.b64encode(bytes(32)).decode())
NAMES = [service.name for service in SERVICES]
PATIENCE_SECONDS = 5.0


@asynccontextmanager
async def nats_of_all(folder: Path) -> AsyncIterator[dict[str, str]]:
    """Each service's address at a server on which all have declared their streams; and the outside subscriber's."""
    with DataFolder(folder) as data:
        server = NatsServer(data, nats_users(KEYRING), sync_always=False)
        await server.start()
        try:
            addresses = nats_urls(server.url, KEYRING)
            for name in NAMES:
                wire = Wire(name, addresses[name])
                await wire.broker.start()
                await wire.declare_stream()
                await wire.stop()
            yield {**addresses, SUBSCRIBER: subscriber_url(server.url, KEYRING)}
        finally:
            await server.stop()


class Login:
    """One service's connection, and what the server refused it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client = Client()
        self._refusals: asyncio.Queue[str] = asyncio.Queue()

    async def on_error(self, fault: Exception) -> None:
        self._refusals.put_nowait(str(fault).lower())

    async def refusal(self) -> str:
        """The next thing that was refused."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._refusals.get()

    @property
    def refused(self) -> bool:
        return not self._refusals.empty()


@asynccontextmanager
async def login(urls: dict[str, str], name: str) -> AsyncIterator[Login]:
    it = Login(name)
    await it.client.connect(
        urls[name], error_cb=it.on_error, allow_reconnect=False, inbox_prefix=inbox_of(name).encode()
    )
    try:
        yield it
    finally:
        await it.client.close()
