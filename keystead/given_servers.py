"""PostgreSQL and NATS that somebody else runs: whether they can be used, said before anything rests on them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog

from keystead.child import ServerFailed
from shared.schema import is_current
from shared.service import Service

POSTGRES_MIN = 15
TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.5

log = structlog.get_logger()


async def check_postgres(url: str) -> None:
    """Raises ``ServerFailed`` if the server does not let its owner in, or is too old."""
    try:
        connection = await asyncpg.connect(url, timeout=TIMEOUT_SECONDS)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as fault:
        raise ServerFailed(f"KEYSTEAD_POSTGRES_URL: PostgreSQL can't be used there ({_said(fault)})") from fault
    version = connection.get_server_version().major
    await connection.close()
    if version < POSTGRES_MIN:
        raise ServerFailed(f"KEYSTEAD_POSTGRES_URL: that is PostgreSQL {version}; {POSTGRES_MIN} or newer is needed")


async def check_nats(url: str) -> None:
    """Raises ``ServerFailed`` if nobody greets there, or a NATS without JetStream."""
    place = url.partition("://")[2].rpartition("@")[2].rstrip("/")
    host, _, port = place.rpartition(":") if place.rpartition(":")[2].isdigit() else (place, "", "4222")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            greeting = await reader.readline()
            writer.close()
        about = json.loads(greeting.removeprefix(b"INFO "))
    except (OSError, TimeoutError, ValueError) as fault:
        raise ServerFailed(f"KEYSTEAD_NATS_URL: NATS can't be reached there ({_said(fault)})") from fault
    if not about.get("jetstream"):
        raise ServerFailed("KEYSTEAD_NATS_URL: that NATS runs without JetStream; start it with -js")


async def check_migrated(url: str, service: Service[Any]) -> None:
    """Raises ``ServerFailed`` unless the service can log in to a database that was migrated for this version."""
    name = f"KEYSTEAD_POSTGRES_URL ({service.name})"
    try:
        connection = await asyncpg.connect(url, timeout=TIMEOUT_SECONDS)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as fault:
        raise ServerFailed(f"{name}: PostgreSQL can't be used there ({_said(fault)})") from fault
    try:
        current = await is_current(connection, service.name, service.migrations)
    finally:
        await connection.close()
    if not current:
        raise ServerFailed(f"{name}: the database is not migrated for this version; run keystead migrate")


async def until_there(check: Callable[[], Awaitable[None]]) -> None:
    """Try for a while: what is started together is not there at once. Raises the last ``ServerFailed``."""
    clock = asyncio.get_running_loop().time
    until = clock() + PATIENCE_SECONDS
    while True:
        try:
            return await check()
        except ServerFailed as fault:
            if clock() >= until:
                raise
            log.info("server.waited_for", fault=str(fault))
        await asyncio.sleep(RETRY_SECONDS)


def _said(fault: BaseException) -> str:
    return str(fault) or type(fault).__name__
