"""When waiting for a worker ends: once its row's number has not moved for the bound, by this process's own clock."""

import time
from collections.abc import Iterable

from services.budgets.workers import Worker


def boot_seconds() -> float:
    """A clock that goes on while the machine or the process is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Watch:
    """Since when this process has seen each worker at its present number.

    The worker counts from before it asked for that renewal, so from earlier, and by a clock of the same kind: once the
    bound has passed here, it has passed there, and that worker admits nothing.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def unmoved(self, live: Iterable[Worker], now: float, bound_seconds: float) -> dict[str, int]:
        """Look at all live workers. Those whose number stood still for the bound, each with that number."""
        before = self._seen
        self._seen = {}
        still: dict[str, int] = {}
        for worker in live:
            number, since = before.get(worker.worker_id, (worker.number, now))
            if number != worker.number:
                since = now
            self._seen[worker.worker_id] = worker.number, since
            if now - since >= bound_seconds:
                still[worker.worker_id] = worker.number
        return still
