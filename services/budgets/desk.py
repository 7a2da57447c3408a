"""What one replica of budgets keeps in memory while it runs; all of it can be lost."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy.exc import IntegrityError

from services.budgets import handlers
from services.budgets.batches import Batches
from services.budgets.requests import PlacedHold, PlaceHold, Recorded, RecordRefusal, SettledHold, SettleHold
from services.budgets.watch import Watch, boot_seconds
from shared.errors import Refused, Unavailable
from shared.service import WAIT_SECONDS, Running
from shared.subscriptions import Reader


class Bell:
    """Wakes those who wait for something to have happened in this process."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """What the next ringing sets; taken before looking, so that nothing is missed in between."""
        return self._next


@dataclass
class Desk:
    """The two queues that holds go through, and what this replica has seen so far.

    ``applied`` is how far each source's log was known to be applied; ``ledger_months`` are known to be there.
    """

    places: Batches[PlaceHold, PlacedHold]
    ends: Batches[SettleHold | RecordRefusal, SettledHold | Recorded]
    renewals: Bell = field(default_factory=Bell)
    watch: Watch = field(default_factory=Watch)
    boot_seconds: Callable[[], float] = boot_seconds
    applied: dict[str, int] = field(default_factory=dict)
    catching_up: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    ledger_months: set[date] = field(default_factory=set)


async def place(running: Running[Any], asked: Sequence[PlaceHold]) -> Sequence[PlacedHold | Refused]:
    """Decide on holds, in one transaction."""
    try:
        return await running.run(handlers.place_holds, asked)
    except IntegrityError:
        # One of them was settled while it was being placed; now that is known.
        return await running.run(handlers.place_holds, asked)


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until ``event``, or for ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def catch_up(running: Running[Any], positions: Mapping[str, int]) -> None:
    """Know all that whoever asks had seen. Raises ``Unavailable`` if that takes too long."""
    desk: Desk = running.own
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            for source, position in positions.items():
                if source in running.readers:
                    await _catch_up(desk, running.readers[source], position)
    except Unavailable as away:
        raise Unavailable(away.message, reason="budgets_unavailable") from away
    except TimeoutError as fault:
        raise Unavailable("budgets is behind", reason="budgets_unavailable") from fault


async def _catch_up(desk: Desk, reader: Reader, position: int) -> None:
    if desk.applied.get(reader.source, 0) >= position:
        return
    async with desk.catching_up[reader.source]:  # one look serves all who wait for it
        if desk.applied.get(reader.source, 0) < position:
            desk.applied[reader.source] = await reader.catch_up(position)
