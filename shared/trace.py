"""What caused what: correlation, cause and actor of the work under way, from the request to the last subscriber."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from shared.events import Recorded

SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Trace:
    """``correlation_id`` is the request's, for all it causes; ``causation_id`` the event that this reacts to."""

    correlation_id: str
    causation_id: str | None = None
    actor: str = SYSTEM

    def headers(self) -> dict[str, str]:
        """As headers of a NATS message."""
        cause = {"keystead-causation": self.causation_id} if self.causation_id else {}
        return {"keystead-correlation": self.correlation_id, "keystead-actor": self.actor, **cause}

    @classmethod
    def of(cls, headers: dict[str, str]) -> "Trace":
        """From the headers of a NATS message; a message without them starts a correlation of its own."""
        return cls(
            correlation_id=headers.get("keystead-correlation") or str(uuid.uuid4()),
            causation_id=headers.get("keystead-causation"),
            actor=headers.get("keystead-actor") or SYSTEM,
        )

    @classmethod
    def caused_by(cls, recorded: "Recorded") -> "Trace":
        """Of what is done because of an event."""
        return cls(recorded.correlation_id, causation_id=recorded.id, actor=recorded.actor)


_current: ContextVar[Trace | None] = ContextVar("keystead_trace", default=None)


def current() -> Trace:
    """The trace of the work under way; work that nobody asked for starts one."""
    return _current.get() or Trace(str(uuid.uuid4()))


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Do the block's work, and log it, under ``trace``."""
    token = _current.set(trace)
    names = {"correlation_id": trace.correlation_id, "actor": trace.actor}
    cause = {"causation_id": trace.causation_id} if trace.causation_id else {}
    try:
        with structlog.contextvars.bound_contextvars(**names, **cause):
            yield trace
    finally:
        _current.reset(token)
