"""What may happen in a history of a whole installation: self-serve requests at any site, and what befalls it.

Users, links and keys are named by numbers: of those that were made, it is the one at that place, counted round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

from tests.support.faults import Fault, LoseSessions, faults_of

HEARS = {
    "identity": ("invitations", "budgets"),
    "invitations": ("identity", "notifications"),
    "keys": ("identity", "budgets"),
    "budgets": ("identity", "keys"),
    "notifications": ("invitations", "identity"),
}
EMAILS = ("ada@example.test", "bob@example.test", "cy@example.test")
ALIASES = ("laptop", "server")
SITES_MAX = 2


@dataclass(frozen=True)
class NewUser:
    email: str | None
    with_key: bool
    invited: bool
    max_budget: float | None


@dataclass(frozen=True)
class UpdateUser:
    user: int
    email: str | None
    role: str
    max_budget: float | None


@dataclass(frozen=True)
class DeleteUser:
    user: int


@dataclass(frozen=True)
class Invite:
    user: int
    mailed: bool


@dataclass(frozen=True)
class Resend:
    link: int


@dataclass(frozen=True)
class CloseInvitation:
    link: int


@dataclass(frozen=True)
class Claim:
    link: int


@dataclass(frozen=True)
class LogIn:
    user: int


@dataclass(frozen=True)
class LogOut:
    session: int


@dataclass(frozen=True)
class GenerateKey:
    """For oneself by a session, if ``session`` is given; for a user by the master key."""

    user: int
    session: int | None
    alias: str | None
    max_budget: float | None


@dataclass(frozen=True)
class UpdateKey:
    key: int
    alias: str | None
    max_budget: float | None


@dataclass(frozen=True)
class ChangeKey:
    key: int
    how: Literal["block", "unblock", "delete"]


@dataclass(frozen=True)
class CallModel:
    key: int


Command = (
    NewUser
    | UpdateUser
    | DeleteUser
    | Invite
    | Resend
    | CloseInvitation
    | Claim
    | LogIn
    | LogOut
    | GenerateKey
    | UpdateKey
    | ChangeKey
    | CallModel
)


@dataclass(frozen=True)
class At:
    """A command at one of the sites."""

    site: int
    command: Command


@dataclass(frozen=True)
class AtOnce:
    """Requests, and perhaps sessions of a service's that are lost in the middle of them."""

    requests: Sequence[At]
    loss: LoseSessions | None = None


@dataclass(frozen=True)
class StartSite:
    """Every service once more, with a gateway of its own."""


@dataclass(frozen=True)
class EndSite:
    site: int


Step = At | AtOnce | StartSite | EndSite | Fault

number = st.integers(0, 3)
emails = st.sampled_from(EMAILS)
budgets = st.sampled_from((None, 0.0001, 0.0003, 1.0))
aliases = st.none() | st.sampled_from(ALIASES)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(NewUser, emails, st.booleans(), st.booleans(), budgets),
    st.builds(NewUser, st.none(), st.booleans(), st.just(False), budgets),
    st.builds(UpdateUser, number, emails, st.sampled_from(("internal_user", "internal_user_viewer")), budgets),
    st.builds(DeleteUser, number),
    st.builds(Invite, number, st.booleans()),
    st.builds(Resend, number),
    st.builds(CloseInvitation, number),
    st.builds(Claim, number),
    st.builds(Claim, number),
    st.builds(LogIn, number),
    st.builds(LogOut, number),
    st.builds(GenerateKey, number, st.none() | number, aliases, budgets),
    st.builds(GenerateKey, number, st.none() | number, aliases, budgets),
    st.builds(UpdateKey, number, aliases, budgets),
    st.builds(ChangeKey, number, st.sampled_from(("block", "unblock", "delete"))),
    st.builds(CallModel, number),
    st.builds(CallModel, number),
)
requests = st.builds(At, st.integers(0, SITES_MAX - 1), commands)
several = st.lists(requests, min_size=2, max_size=6).map(tuple)
services = st.sampled_from(sorted(HEARS))
# So that there is something to go wrong: who has a key and a budget, who was invited and has claimed it, who was not.
BEGINNING: Sequence[Step] = (
    At(0, NewUser("ada@example.test", with_key=True, invited=True, max_budget=1.0)),
    At(0, NewUser("bob@example.test", with_key=True, invited=False, max_budget=None)),
    At(0, Invite(0, mailed=True)),
    At(0, Invite(1, mailed=False)),
    At(0, Claim(1)),
    At(0, GenerateKey(1, session=0, alias="laptop", max_budget=0.0003)),
)
steps = st.lists(
    st.one_of(
        requests,
        requests,
        st.builds(AtOnce, several),
        st.builds(AtOnce, several, st.builds(LoseSessions, services)),
        st.builds(StartSite),
        st.builds(EndSite, st.integers(0, SITES_MAX - 1)),
        faults_of(HEARS).map(lambda fault: fault),  # one branch of these, and not one for each kind
    ),
    min_size=20,
    max_size=40,
)
