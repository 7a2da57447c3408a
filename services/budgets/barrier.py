"""The barrier: to wait until every live worker has applied some positions, or is gone (design §5)."""

from collections.abc import Mapping
from typing import Any

import structlog

from services.budgets import workers
from services.budgets.desk import Desk, wait
from services.budgets.requests import BARRIER_TOPIC, BarrierRaised
from services.budgets.workers import Worker
from shared.errors import Unavailable
from shared.service import WAIT_SECONDS, Running

log = structlog.get_logger()

LOOK_SECONDS = 0.05  # a renewal that another replica heard rings no bell here


async def await_barrier(running: Running[Any], positions: Mapping[str, int]) -> int:
    """Return when every live worker has applied ``positions`` or is gone; how many had to be waited for.

    Raises ``Unavailable`` should a worker go on living without ever applying them.
    """
    desk: Desk = running.own
    await running.wire.tell(BARRIER_TOPIC, BarrierRaised(positions=dict(positions)))
    waited_for: set[str] = set()
    until = desk.boot_seconds() + running.settings.revocation_seconds + WAIT_SECONDS
    while True:
        renewed = desk.renewals.next()
        behind = [worker for worker in await look(running) if not worker.has_applied(positions)]
        if not behind:
            return len(waited_for)
        waited_for |= {worker.worker_id for worker in behind}
        if desk.boot_seconds() >= until:
            raise Unavailable(f"{len(behind)} gateway workers do not keep up")
        await wait(renewed, LOOK_SECONDS)


async def look(running: Running[Any]) -> list[Worker]:
    """The live workers. Those whose number has not moved for the bound are given up first."""
    desk: Desk = running.own
    live = await running.run(workers.list_live)
    unmoved = desk.watch.unmoved(live, desk.boot_seconds(), running.settings.revocation_seconds)
    if unmoved:
        for worker_id in await running.run(workers.give_up, unmoved):
            log.warning("worker.given_up", worker_id=worker_id)
        live = await running.run(workers.list_live)
    return live
