"""Hears who was created, who accepted an invitation and which keys were made, and prints a line for each.

Needs nats-py and nothing of Keystead's. KEYSTEAD_SUBSCRIBER_NATS_URL is the log-in of the NATS user `subscriber`, who
may only listen. Which events there are, and their shapes: docs/events.md, docs/asyncapi.json.
"""

import asyncio
import json
import os
from typing import Any

import nats
from nats.js import JetStreamContext
from nats.js.errors import ServiceUnavailableError

STREAMS = ("IDENTITY", "INVITATIONS", "KEYS")
CONSUMER = "subscriber"  # there for us on every stream; we may make none ourselves
FETCH_SECONDS = 5.0


def line_of(event: dict[str, Any]) -> str | None:
    data = event["data"]
    match event["type"]:
        case "UserCreated":
            return f"user {data['user_id']} was created as {data['role']}"
        case "InvitationAccepted":
            return f"user {data['user_id']} accepted invitation {data['ref']}"
        case "KeyGenerated":
            return f"key {data['key_id']} was made for {data['user_id'] or 'nobody'}"
        case _:
            return None  # others, and those that a later version adds


async def follow(jetstream: JetStreamContext, stream: str) -> None:
    """Act first, then acknowledge: cut short in between, the event comes again, 30 seconds later.

    So a line may be printed twice, and none is lost. An effect that must not happen twice goes by the event's `id`.
    """
    following = await jetstream.pull_subscribe_bind(consumer=CONSUMER, stream=stream)
    while True:
        try:
            for message in await following.fetch(batch=100, timeout=FETCH_SECONDS):
                event = json.loads(message.data)
                if line := line_of(event):
                    print(f"{event['time']} {event['type']}: {line}", flush=True)  # noqa: T201 - what it is for
                await message.ack()
        except TimeoutError:
            pass  # nothing happened; ask again
        except ServiceUnavailableError:
            await asyncio.sleep(1)  # the stream is being made anew


async def main() -> None:
    address = os.environ["KEYSTEAD_SUBSCRIBER_NATS_URL"]
    client = await nats.connect(address, inbox_prefix=f"_INBOX_{CONSUMER}", max_reconnect_attempts=-1)
    await asyncio.gather(*(follow(client.jetstream(), stream) for stream in STREAMS))


if __name__ == "__main__":
    asyncio.run(main())
