"""The streams of a test, which are gone when it is."""

import nats


async def forget_streams(at: str, namespace: str) -> None:
    """Those that are left of all that were under these names."""
    client = await nats.connect(at)
    try:
        prefix = namespace.replace(".", "_").upper()
        for stream in await client.jetstream().streams_info():
            if (stream.config.name or "").startswith(prefix):
                await client.jetstream().delete_stream(stream.config.name or "")
    finally:
        await client.close()
