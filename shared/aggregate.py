"""An aggregate: what one stream's events fold to, and what may be decided on it. Pure, both halves."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.events import Event

State = TypeVar("State")
Command = TypeVar("Command")
E_ = TypeVar("E_", bound=Event)


@dataclass(frozen=True)
class Aggregate(Generic[State, Command, E_]):
    """``decide`` takes the state and a command and returns events or raises a ``Refused``; ``evolve`` folds one event.

    Neither may know a clock, chance or I/O: instants and identifiers come in the command. The same command twice
    decides nothing the second time.
    """

    initial: State
    decide: Callable[[State, Command], Sequence[E_]]
    evolve: Callable[[State, E_], State]

    def fold(self, events: Iterable[E_]) -> State:
        """The state after ``events``, in their order."""
        state = self.initial
        for event in events:
            state = self.evolve(state, event)
        return state
