"""The connection that kept answers are asked for over, where nobody answers at its other end."""

import asyncio
import time
from datetime import UTC, datetime

from shared.errors import Unavailable
from shared.kept_answers import QUERY_SECONDS, KeptAnswers


async def test_who_waits_behind_others_waits_no_longer_than_alone() -> None:
    """Else the last of many requests would learn minutes later that the database is away."""
    hung_up = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hung_up.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        kept = KeptAnswers("keys", f"postgresql://127.0.0.1:{server.sockets[0].getsockname()[1]}/keystead")
        began = time.monotonic()
        asked = [kept.find(str(number), datetime.now(UTC)) for number in range(5)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        hung_up.set()
    assert [type(answer) for answer in answers] == [Unavailable] * len(answers)
    assert time.monotonic() - began < 2 * QUERY_SECONDS
