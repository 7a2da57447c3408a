"""What is true of every aggregate, whatever it is asked and in whatever order (design §3)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.budgets import events as budgets
from services.budgets.domain import budget
from services.identity import events as identity
from services.identity.domain import session, user
from services.invitations import domain as invitation
from services.invitations import events as invitations
from services.keys import domain as key
from services.keys import events as keys
from services.keys.limits import Limits
from services.notifications import domain as notification
from services.notifications import events as notifications
from shared.aggregate import Aggregate
from shared.errors import REASONS, Refused
from shared.events import Catalog, Event

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

instants = st.integers(0, 400).map(lambda hours: NOON + timedelta(hours=hours))
names = st.sampled_from(("x", "y"))
perhaps = st.none() | names
amounts = st.none() | st.integers(0, 3)
durations = st.sampled_from((None, "1h", "30d"))
user_limits = st.builds(
    identity.UserLimits,
    models=st.sampled_from(((), ("fast",))),
    max_budget_nano_usd=amounts,
    budget_duration=durations,
    budget_set_at=st.none() | instants,
)
wanted = st.none() | st.builds(identity.WantedInvitation, ref=names, send_email=st.booleans())
first_keys = st.none() | st.builds(identity.FirstKey, key_id=names, token=names, key_name=names)
metadata = st.dictionaries(names, st.integers(0, 1), max_size=1)
roles = st.sampled_from(("internal_user", "proxy_admin"))
terms = st.builds(keys.KeyTerms, key_alias=perhaps, max_budget_nano_usd=amounts, duration=durations)
key_limits = st.builds(Limits, upper=st.builds(keys.KeyTerms, max_budget_nano_usd=st.none() | st.just(2)))
subjects = st.just(notification.Subject("x", "invitation", "ada", "r1", 1))
changes = st.fixed_dictionaries({}, optional={"max_budget_nano_usd": amounts, "duration": durations})


@dataclass(frozen=True)
class Kind:
    """An aggregate, what it may be asked, and the events after which nothing more may follow on its stream.

    ``counts`` are commands that say something new each time they are given.
    """

    aggregate: Aggregate[Any, Any, Any]
    catalog: Catalog
    commands: st.SearchStrategy[Any]
    last: Sequence[type[Event]] = ()
    counts: Sequence[type] = field(default=())


USER = Kind(
    user.USER,
    identity.CATALOG,
    st.one_of(
        st.builds(
            user.CreateUser,
            user_id=st.just("ada"),
            role=roles,
            sealed_email=perhaps,
            sealed_alias=perhaps,
            limits=user_limits,
            metadata=metadata,
            first_key=first_keys,
            now=instants,
            invitation=wanted,
        ),
        st.builds(
            user.UpdateUser,
            user_id=st.just("ada"),
            role=roles,
            sealed_email=perhaps,
            sealed_alias=perhaps,
            limits=user_limits,
            metadata=metadata,
            now=instants,
        ),
        st.builds(user.DeleteUser, user_id=st.just("ada"), now=instants),
        st.builds(user.SetPassword, user_id=st.just("ada"), claim_id=names, now=instants),
    ),
    last=(identity.UserDeleted,),
)
SESSION = Kind(
    session.SESSION,
    identity.CATALOG,
    st.one_of(
        st.builds(
            session.StartSession,
            session_id=st.just("s"),
            user_id=names,
            token=names,
            method=st.sampled_from(("password", "invitation")),
            sealed_ip=perhaps,
            sealed_user_agent=perhaps,
            expires_at=instants,
            now=instants,
        ),
        st.builds(
            session.EndSession, session_id=st.just("s"), reason=st.sampled_from(("expired", "logged_out")), now=instants
        ),
    ),
    last=(identity.SessionEnded,),
)
invitees = st.sampled_from((invitation.Invitee.WITH_EMAIL, *invitation.Invitee))
links = st.just("x") | names
soon = st.integers(0, 3).map(lambda hours: NOON + timedelta(hours=hours))
INVITATION = Kind(
    invitation.INVITATION,
    invitations.CATALOG,
    st.one_of(
        st.builds(
            invitation.CreateInvitation,
            ref=st.just("r1"),
            user_id=st.just("ada"),
            invitee=invitees,
            id_hash=links,
            by=names,
            now=st.just(NOON),
            expires_at=st.just(NOON + timedelta(hours=2)) | instants,
        ),
        st.builds(
            invitation.ResendInvitation,
            invitee=invitees,
            generation=st.integers(2, 4),
            id_hash=links,
            by=names,
            now=soon,
        ),
        st.builds(
            invitation.AcceptInvitation,
            id_hash=links,
            user_id=st.sampled_from(("ada", "ada", "bob")),
            claim_id=names,
            now=soon,
        ),
        st.builds(invitation.DeleteInvitation, by=names, now=soon),
        st.builds(invitation.RevokeInvitation, by=names, now=soon),
        st.builds(invitation.ExpireInvitation, now=soon),
    ),
    last=(invitations.InvitationAccepted,),
)
KEY = Kind(
    key.KEY,
    keys.CATALOG,
    st.one_of(
        st.builds(
            key.GenerateKey,
            key_id=st.just("k"),
            token=names,
            key_name=st.just("sk-...wxyz"),
            user_id=perhaps,
            key_type=st.just("llm_api"),
            asked=terms,
            blocked=st.booleans(),
            limits=key_limits,
            by=names,
            now=instants,
        ),
        st.builds(
            key.UpdateKey,
            key_id=st.just("k"),
            user_id=perhaps,
            changes=changes,
            limits=key_limits,
            by=names,
            now=instants,
        ),
        st.builds(key.BlockKey, key_id=st.just("k"), by=names, now=instants),
        st.builds(key.UnblockKey, key_id=st.just("k"), by=names, now=instants),
        st.builds(key.ExpireKey, key_id=st.just("k"), now=instants),
        st.builds(key.DeleteKey, key_id=st.just("k"), by=names, now=instants),
    ),
    last=(keys.KeyDeleted,),
)
NOTIFICATION = Kind(
    notification.NOTIFICATION,
    notifications.CATALOG,
    st.one_of(
        st.builds(notification.QueueNotification, subject=subjects, now=instants),
        st.builds(notification.HandOver, now=instants),
        st.builds(notification.ReportSent, now=instants),
        st.builds(notification.ReportTrouble, error=names, for_good=st.booleans(), now=instants),
        st.builds(notification.ReportLost, now=instants),
        st.builds(notification.WithdrawNotification, reason=st.just("revoked"), now=instants),
    ),
    last=(notifications.NotificationSent, notifications.NotificationWithdrawn),
    counts=(notification.ReportTrouble,),
)
BUDGET = Kind(
    budget.BUDGET,
    budgets.CATALOG,
    st.one_of(
        st.builds(
            budget.SetBudget,
            scope=st.just("key:k"),
            max_budget_nano_usd=amounts,
            budget_duration=durations,
            set_at=instants,
        ),
        st.builds(budget.RemoveBudget, scope=st.just("key:k"), now=instants),
    ),
)
KINDS = {
    "user": USER,
    "session": SESSION,
    "invitation": INVITATION,
    "key": KEY,
    "notification": NOTIFICATION,
    "budget": BUDGET,
}


def decided(kind: Kind, state: Any, command: Any) -> list[Event]:
    """What it decides; nothing, if it refuses in words that the wire knows."""
    try:
        return list(kind.aggregate.decide(state, command))
    except Refused as refused:
        assert refused.code in REASONS
        return []


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_an_aggregate_is_asked_in_whatever_order(name: str, data: st.DataObject) -> None:
    """It decides alike on what is alike, changes nothing, repeats nothing, ends once, and is the fold of its events."""
    kind = KINDS[name]
    state, happened = kind.aggregate.initial, list[Event]()
    for command in data.draw(st.lists(kind.commands, min_size=4, max_size=20)):
        before = copy.deepcopy(state)
        events = decided(kind, state, command)
        assert decided(kind, before, copy.deepcopy(command)) == events
        assert state == before, "deciding changed the state"
        assert not (events and isinstance(happened[-1] if happened else None, tuple(kind.last)))
        for event in events:
            state = kind.aggregate.evolve(state, event)
        happened += events
        if not isinstance(command, tuple(kind.counts)):
            assert decided(kind, state, command) == [], "the same command twice"
    stored = [kind.catalog.load(*event.stored()) for event in happened]
    assert stored == happened
    assert kind.aggregate.fold(stored) == state
