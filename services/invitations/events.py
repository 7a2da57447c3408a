"""What invitations publishes. These shapes are stored for ever: add a version, never change one.

An invitation is known by ``ref``; its link's secret is in none of these, only that secret's SHA-256.
"""

from datetime import datetime

from shared.events import Catalog, Event


class InvitationCreated(Event):
    ref: str
    user_id: str
    generation: int
    id_hash: str
    created_by: str
    created_at: datetime
    expires_at: datetime


class InvitationResent(Event):
    """A new link with a full term; the old one is dead."""

    ref: str
    user_id: str
    generation: int
    id_hash: str
    resent_by: str
    resent_at: datetime
    expires_at: datetime


class InvitationAccepted(Event):
    """The invited claimed it. ``claim_id`` names the password that identity keeps pending for it."""

    ref: str
    user_id: str
    claim_id: str
    accepted_at: datetime


class InvitationRevoked(Event):
    ref: str
    user_id: str
    revoked_by: str
    revoked_at: datetime


class InvitationExpired(Event):
    ref: str
    user_id: str
    expired_at: datetime


CATALOG = Catalog(
    "invitations",
    InvitationCreated,
    InvitationResent,
    InvitationAccepted,
    InvitationRevoked,
    InvitationExpired,
)
