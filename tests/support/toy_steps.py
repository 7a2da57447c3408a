"""What may happen in a history of the toys: commands by any replica, and whatever befalls those who carry them out."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.faults import Fault, LoseSessions, faults_of, places

HEARS = {"reader": ("ledger",), "clerk": ("ledger", "reader")}
SERVICES = ("ledger", "reader", "clerk")
ACCOUNTS, NAMES = ("a", "b", "c"), ("n1", "n2")
REPLICAS_MAX = 3


# Commands. ``by`` picks one of the replicas that are there.


@dataclass(frozen=True)
class OpenAccount:
    account: str
    name: str | None
    by: int


@dataclass(frozen=True)
class MakeDeposit:
    account: str
    amount: int
    by: int


@dataclass(frozen=True)
class CloseAccount:
    account: str
    by: int


@dataclass(frozen=True)
class NoteAccount:
    account: str
    by: int


@dataclass(frozen=True)
class FileTally:
    account: str
    by: int


Command = OpenAccount | MakeDeposit | CloseAccount | NoteAccount | FileTally


@dataclass(frozen=True)
class AtOnce:
    """Commands, and perhaps sessions that are lost in the middle of them."""

    commands: Sequence[Command]
    loss: LoseSessions | None = None


@dataclass(frozen=True)
class LateCommit:
    """A deposit that holds its commit back, before or after it took its position, while others do ``meanwhile``."""

    deposit: MakeDeposit
    positioned: bool
    rolled_back: bool
    meanwhile: Sequence[Command]


@dataclass(frozen=True)
class CutRelay:
    """The relay ends between publishing and keeping what it has published."""

    deposit: MakeDeposit


@dataclass(frozen=True)
class OutOfOrder:
    """New events are delivered in this order (as places in the log, from its end), some twice and some not at all."""

    deposits: Sequence[MakeDeposit]
    places: Sequence[int]


@dataclass(frozen=True)
class WakeWithoutDuty:
    """A replica relays and consumes though it lost the lock: it was frozen and does not know it yet."""

    service: str
    by: int
    meanwhile: Sequence[Command]


@dataclass(frozen=True)
class Stumble:
    """A replica of the reader fails at its next deposits."""

    by: int
    times: int


@dataclass(frozen=True)
class StartReplica:
    service: str


@dataclass(frozen=True)
class EndReplica:
    service: str
    by: int


@dataclass(frozen=True)
class Fence:
    """A replica catches up with all that it hears."""

    service: str
    by: int


@dataclass(frozen=True)
class Look:
    """Everything is checked, in the middle of it all."""


Step = (
    Command
    | AtOnce
    | LateCommit
    | CutRelay
    | OutOfOrder
    | WakeWithoutDuty
    | Stumble
    | StartReplica
    | EndReplica
    | Fence
    | Look
    | Fault
)

services = st.sampled_from(SERVICES)
accounts = st.sampled_from(ACCOUNTS)
replica = st.integers(0, REPLICAS_MAX - 1)
deposits = st.builds(MakeDeposit, accounts, st.integers(-3, 9).filter(bool), replica)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(OpenAccount, accounts, st.none() | st.sampled_from(NAMES), replica),
    deposits,
    deposits,
    st.builds(CloseAccount, accounts, replica),
    st.builds(NoteAccount, accounts, replica),
    st.builds(FileTally, accounts, replica),
)
several = st.lists(commands, min_size=1, max_size=6).map(tuple)
troubles: st.SearchStrategy[Step] = st.one_of(
    st.builds(AtOnce, several, st.builds(LoseSessions, services)),
    st.builds(LateCommit, deposits, st.booleans(), st.booleans(), several),
    st.builds(CutRelay, deposits),
    st.builds(OutOfOrder, st.lists(deposits, min_size=2, max_size=4).map(tuple), places),
    st.builds(WakeWithoutDuty, services, replica, several),
    st.builds(Stumble, replica, st.integers(1, 2)),
    st.builds(StartReplica, services),
    st.builds(EndReplica, services, replica),
    st.builds(Fence, st.sampled_from(sorted(HEARS)), replica),
    st.builds(Look),
)
steps = st.lists(st.one_of(commands, st.builds(AtOnce, several), troubles, faults_of(HEARS)), min_size=20, max_size=40)
