"""One gateway worker: its view, its edge, and what it sends calls on with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from services.gateway import rows
from services.gateway.admission import Admission, Caller
from services.gateway.calls import Call
from services.gateway.edge import Edge
from services.gateway.metrics import Metrics
from services.gateway.models import Catalogue
from services.gateway.outcomes import Outcomes
from services.gateway.proxy import Done, Proxy
from services.gateway.reply import Reply
from services.gateway.rows import Journey
from services.gateway.settings import GatewaySettings
from services.gateway.upstream import Upstream
from services.gateway.view import View
from shared.durations import parse_duration
from shared.errors import Refused
from shared.service import Running

log = structlog.get_logger()

JOIN_SECONDS = 10.0
DRAIN_SECONDS = 10.0


class Gateway:
    """The parts of a worker, put together once."""

    def __init__(self, running: Running[GatewaySettings]) -> None:
        settings = running.settings
        now = running.clock()
        bound = (parse_duration(settings.revocation_bound).after(now) - now).total_seconds()
        self._running = running
        self.view = View(running, bound)
        self.edge = Edge(settings, self.view)
        self.catalogue = Catalogue(settings.model_list)
        for warning in self.catalogue.warnings:
            log.warning("model_list.warning", says=warning)
        self.metrics = Metrics(self.catalogue.names)
        self.outcomes = Outcomes(running.clock)
        self.upstream = Upstream()
        self.admission = Admission(running, self.view, self.catalogue)
        self.proxy = Proxy(
            self.admission,
            self.upstream,
            self.outcomes,
            self.metrics.note,
            retries=settings.num_retries,
            clock=running.clock,
        )
        self._completing: set[asyncio.Task[Done[Reply]]] = set()

    def complete(self, journey: Journey, caller: Caller, call: Call) -> "asyncio.Task[Done[Reply]]":
        """The call in a task of its own, which ends whatever becomes of the client."""
        task = asyncio.create_task(self.proxy.complete(journey, caller, call))
        self._completing.add(task)
        task.add_done_callback(self._completing.discard)
        return task

    def note_refusal(self, journey: Journey, refused: Refused) -> None:
        """A refused call leaves a row with no spend."""
        row = rows.failed(journey, refused, self._running.clock())
        self.metrics.note(row, 0)
        self.admission.record_refusal(row)

    async def drained(self) -> None:
        """Let the calls under way end, and settle them; those that take too long are cut off, and settled as such."""
        if self._completing:
            _, late = await asyncio.wait(self._completing, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.upstream.stop(drain_seconds=DRAIN_SECONDS)
        await self.admission.drained(DRAIN_SECONDS)


@asynccontextmanager
async def gateway(running: Running[Any]) -> AsyncIterator[Gateway]:
    """Start a worker; end it by letting what is under way end, and settle it."""
    worker = Gateway(running)
    await worker.upstream.start()
    try:
        async with worker.view.living():
            await _joined(worker.view)
            yield worker
            await worker.drained()
    finally:
        await worker.upstream.stop(drain_seconds=0)


async def _joined(view: View) -> None:
    """Wait a little for the first renewal: until then every call is refused."""
    try:
        async with asyncio.timeout(JOIN_SECONDS):
            await view.renewed.wait()
    except TimeoutError:
        log.warning("worker.not_joined_yet")
