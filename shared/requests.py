"""Requests: what a service may ask another now, and the questions that every service answers about its own log."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Question(BaseModel):
    """Asked over core NATS, never stored. Its name is its class's; the answer is a model beside it."""

    model_config = ConfigDict(frozen=True)


class LastPosition(Question):
    """Where does your log end?"""


class Position(BaseModel):
    """The position of the last committed event, 0 for an empty log."""

    position: int


class ReadLog(Question):
    """Your events after ``after``, in order; of ``types`` only, if there are any."""

    after: int
    limit: int = 500
    types: tuple[str, ...] = ()


class LogSpan(BaseModel):
    """Envelopes (CloudEvents, JSON) in position order, and the position that the reading got to."""

    events: list[dict[str, Any]]
    read_up_to: int


class CatchUp(Question):
    """Apply ``source``'s log up to ``position``, then say where your own log ends."""

    source: str
    position: int


class Found(BaseModel):
    """What an owner knows of one thing; ``exists`` is false for one unknown or gone, and then the rest is empty.

    ``position`` is the owner's last position when it looked.
    """

    position: int
    exists: bool
