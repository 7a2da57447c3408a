"""How the last calls to each deployment went: what ``/health`` tells without calling anybody (D27)."""

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from services.gateway.models import Deployment
from shared.errors import Refused

SEEN_FOR = timedelta(minutes=5)


class Outcomes:
    """The outcomes of the last five minutes."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._seen: deque[tuple[datetime, Deployment, str | None]] = deque(maxlen=10_000)

    def note(self, deployment: Deployment, refused: Refused | None) -> None:
        """A call went well, or was refused upstream."""
        # What the provider refuses as malformed is the client's fault, and says nothing of the provider.
        error = None if refused is None or refused.code == "upstream_rejected" else refused.code
        self._seen.append((self._clock(), deployment, error))

    def report(self) -> dict[str, Any]:
        """The answer of ``/health`` (§1.6): a deployment is as its last call was."""
        since = self._clock() - SEEN_FOR
        last = {deployment.id: (deployment, error) for at, deployment, error in self._seen if at >= since}
        healthy = [{"model": d.model, "model_id": d.id} for d, error in last.values() if error is None]
        unhealthy = [
            {"model": d.model, "model_id": d.id, "error": error} for d, error in last.values() if error is not None
        ]
        return {
            "healthy_endpoints": healthy,
            "unhealthy_endpoints": unhealthy,
            "healthy_count": len(healthy),
            "unhealthy_count": len(unhealthy),
        }
