"""Batches: what arrives while a transaction runs is done together in the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

import structlog

from shared.errors import Refused

log = structlog.get_logger()

Q = TypeVar("Q")
A = TypeVar("A")

BATCH_MAX = 200


class Batches(Generic[Q, A]):
    """``work`` takes questions in the order of their arrival, and gives each its answer or its refusal."""

    def __init__(self, work: Callable[[Sequence[Q]], Awaitable[Sequence[A | Refused]]]) -> None:
        self._work = work
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer to ``question``, committed. Raises what it is refused with."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._running is None or self._running.done():
            # A batch is nobody's in particular, so it runs under no asker's trace.
            self._running = asyncio.create_task(self._run(), context=Context())
        return await answer

    async def finished(self) -> None:
        """When everything asked so far has been answered."""
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            await self._do(batch)

    async def _do(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._work([question for question, _ in batch])
        except Refused as refused:
            _give(batch, [refused] * len(batch))
        except Exception as fault:  # noqa: BLE001 - it is given to those who asked
            if len(batch) == 1:
                _give(batch, [fault])
                return
            # One that can't be done must not be the others' fault.
            log.warning("batch.failed", size=len(batch), fault=repr(fault))
            for one in batch:
                await self._do([one])
        else:
            _give(batch, answers)


def _give(batch: Sequence[tuple[Q, asyncio.Future[A]]], answers: Sequence[A | Exception]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if future.done():  # whoever asked has given up
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
