"""What NATS holds of a service's events, in its order."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import nats
import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

BATCH = 500
FETCH_SECONDS = 5.0


@dataclass
class Streams:
    """Each stream as far as it was looked at; one that was made anew is looked at from its beginning."""

    url: str
    _seen: dict[str, tuple[datetime | None, int]] = field(default_factory=dict)

    async def out_of_order(self, service: str) -> list[str]:
        """The new events that stand behind a later one, or twice."""
        stream = service.upper()
        client = await nats.connect(self.url)
        try:
            jetstream = client.jetstream()
            info = await jetstream.stream_info(stream)
            made, last = self._seen.get(stream, (None, 0))
            first = last + 1 if made == info.created else 1
            self._seen[stream] = (info.created, info.state.last_seq)
            count = info.state.last_seq - first + 1
            positions = await _positions(jetstream, stream, first, count) if count > 0 else []
        finally:
            await client.close()
        later = pairwise(positions)
        return [f"{service}: {after} behind {before}" for before, after in later if after <= before]


async def _positions(jetstream: nats.js.JetStreamContext, stream: str, first: int, count: int) -> list[int]:
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first, ack_policy=AckPolicy.NONE
    )
    reading = await jetstream.pull_subscribe(">", stream=stream, config=config)
    positions: list[int] = []
    while len(positions) < count:
        messages = await reading.fetch(min(BATCH, count - len(positions)), timeout=FETCH_SECONDS)
        positions += [json.loads(message.data)["position"] for message in messages]
    await reading.unsubscribe()
    return positions
