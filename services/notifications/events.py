"""What notifications publishes. These shapes are stored for ever: add a version, never change one.

A mail is known by ``id``, and by what it is about: an invitation's ``ref`` and the generation of its link. No address,
no link and no text of a mail is in any of these, nor what a server said in its own words: it may name the addressee.
"""

from datetime import datetime
from typing import Literal

from shared.events import Catalog, Event

Kind = Literal["invitation"]
Withdrawal = Literal["accepted", "revoked", "expired", "resent", "unknown", "user_deleted", "no_address"]
Failure = Literal["refused", "given_up", "outcome_unknown"]


class NotificationQueued(Event):
    """A mail is wanted."""

    id: str
    kind: Kind
    user_id: str
    ref: str
    generation: int
    queued_at: datetime


class NotificationAttempted(Event):
    """The mail is about to be handed over to the server: until another event it may have been sent, or not."""

    id: str
    attempt: int
    attempted_at: datetime


class NotificationDeferred(Event):
    """The mail was not taken this time; it is tried again at ``due_at``."""

    id: str
    attempt: int
    error: str
    deferred_at: datetime
    due_at: datetime


class NotificationSent(Event):
    """The server has taken the mail."""

    id: str
    kind: Kind
    user_id: str
    ref: str
    generation: int
    attempts: int
    sent_at: datetime


class NotificationFailed(Event):
    """The mail is not tried again: it was refused for good, tried too often, or nobody knows what became of it."""

    id: str
    kind: Kind
    user_id: str
    ref: str
    generation: int
    attempts: int
    reason: Failure
    error: str
    failed_at: datetime


class NotificationWithdrawn(Event):
    """The mail lost its purpose before it was sent."""

    id: str
    reason: Withdrawal
    withdrawn_at: datetime


CATALOG = Catalog(
    "notifications",
    NotificationQueued,
    NotificationAttempted,
    NotificationDeferred,
    NotificationSent,
    NotificationFailed,
    NotificationWithdrawn,
)
