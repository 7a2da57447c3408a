"""Tests of rules: given what happened, when something is commanded, then that happens, or it is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pytest

from shared.aggregate import Aggregate
from shared.errors import REASONS, Refused
from shared.events import Event

State = TypeVar("State")
Command = TypeVar("Command")
E_ = TypeVar("E_", bound=Event)
R = TypeVar("R", bound=Refused)


@dataclass(frozen=True)
class Commanded(Generic[State, Command, E_]):
    """A command on what happened, not decided yet."""

    aggregate: Aggregate[State, Command, E_]
    happened: Sequence[E_]
    command: Command

    def then(self, *events: E_) -> None:
        """It decides exactly these, in this order; no events: it stays quiet."""
        assert [*self._decided()] == [*events]

    def refused(self, refusal: type[R]) -> R:
        """It is refused, by this refusal itself and for a reason that the wire knows. Returned, to ask it more."""
        with pytest.raises(refusal) as caught:
            self._decided()
        assert type(caught.value) is refusal
        assert caught.value.code in REASONS
        return caught.value

    def _decided(self) -> Sequence[E_]:
        return self.aggregate.decide(self.aggregate.fold(self.happened), self.command)


@dataclass(frozen=True)
class Given(Generic[State, Command, E_]):
    """What happened on one stream."""

    aggregate: Aggregate[State, Command, E_]
    happened: Sequence[E_]

    def when(self, command: Command) -> Commanded[State, Command, E_]:
        return Commanded(self.aggregate, self.happened, command)


def given(aggregate: Aggregate[State, Command, E_], *happened: E_) -> Given[State, Command, E_]:
    """``given(KEY, GENERATED).when(delete()).then(DELETED)``, or ``.refused(KeyUnknown)``."""
    return Given(aggregate, happened)
