"""PostgreSQL and NATS that somebody else runs: whether they can be used, said before anything rests on them."""

import asyncio
import json

import asyncpg

from keystead.child import ServerFailed

POSTGRES_MIN = 15
TIMEOUT_SECONDS = 10.0


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


def _said(fault: BaseException) -> str:
    return str(fault) or type(fault).__name__
