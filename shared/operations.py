"""Operations: what an operator may ask of any service about its read models and the events that it could not handle."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from shared.requests import Question


class ReadModelState(BaseModel):
    """How far a read model is: ``position`` is its source's last event in it, ``lag_*`` what that is behind."""

    service: str
    name: str
    source: str
    position: int
    lag_events: int
    lag_seconds: float
    status: Literal["ready", "building", "rebuilding", "behind"]


class ListReadModels(Question):
    """How do your read models stand?"""


class ListedReadModels(BaseModel):
    read_models: list[ReadModelState]


class Operation(BaseModel):
    """Something long that was begun; ``progress`` goes from 0 to 1."""

    id: str
    kind: str
    status: Literal["running", "done", "failed"]
    progress: float
    error: str | None
    started_at: datetime
    ended_at: datetime | None


class RebuildReadModel(Question):
    """Build that read model anew, from the log. Answered with the ``Operation``; refused ``not_found``, ``in_use``."""

    name: str


class FindOperation(Question):
    """How is that operation? Refused ``not_found``. Its id begins with the service's name and a dot."""

    id: str


class ParkedEvent(BaseModel):
    """An event of ``service`` that ``subscriber`` could not handle, and the later ones of its stream behind it.

    ``id`` is the subscriber's name, a dot and the event's id; events are envelopes.
    """

    id: str
    service: str
    subscriber: str
    event: dict[str, Any]
    error: str
    attempts: int
    first_at: datetime
    last_at: datetime
    waiting: list[dict[str, Any]]


class ListParkedEvents(Question):
    """What do you have parked, of one source or of all? The oldest first."""

    source: str | None = None


class ListedParkedEvents(BaseModel):
    parked_events: list[ParkedEvent]


class RetryParkedEvent(Question):
    """Try it again, and if it works what waits behind it, in order. Refused ``not_found``."""

    id: str


class Retried(BaseModel):
    """``applied`` counts the events that worked; ``parked`` is what stands in the stream's way now, if anything."""

    applied: int
    parked: ParkedEvent | None


class DropParkedEvent(Question):
    """Give it up for good, and go on with what waits behind it. Answered ``Retried``; refused ``not_found``."""

    id: str
    note: str | None = None


class Redeliver(Question):
    """Here are events of ``source`` once more (envelopes, in order). What was applied before changes nothing."""

    source: str
    events: list[dict[str, Any]]


class Redelivered(BaseModel):
    """How many had not been applied yet, and were now; and how many were passed over."""

    applied: int
    passed_over: int
