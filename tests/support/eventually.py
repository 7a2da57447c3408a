"""For what the contract bounds by time and no position tells of: asked again until it is so."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

EVERY_SECONDS = 0.02


async def eventually(is_so: Callable[[], bool | Awaitable[bool]], seconds: float = 5.0) -> None:
    """Back as soon as ``is_so``; an AssertionError if it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await _now(is_so):
        assert time.monotonic() < deadline, f"still not so after {seconds} s: {inspect.getsource(is_so).strip()}"
        await asyncio.sleep(EVERY_SECONDS)


async def _now(is_so: Callable[[], bool | Awaitable[bool]]) -> bool:
    answer = is_so()
    return await answer if isinstance(answer, Awaitable) else answer
