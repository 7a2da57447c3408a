"""What invitations publishes. These shapes are stored for ever: add a version, never change one.

An invitation is known by ``ref``; its link's secret is in none of these, only that secret's SHA-256.
"""

from datetime import datetime
from typing import Any, ClassVar

from shared.events import Catalog, Event


class InvitationCreated(Event):
    """An invitation, open until ``expires_at``. ``send_email``: notifications is to mail the link."""

    schema_version: ClassVar[int] = 2

    ref: str
    user_id: str
    generation: int
    id_hash: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    send_email: bool = False


class InvitationResent(Event):
    """A new link with a full term; the old one is dead. ``send_email`` as when it was created."""

    schema_version: ClassVar[int] = 2

    ref: str
    user_id: str
    generation: int
    id_hash: str
    resent_by: str
    resent_at: datetime
    expires_at: datetime
    send_email: bool = False


class InvitationAccepted(Event):
    """The invited claimed it. ``claim_id`` names the password that identity keeps pending for it."""

    ref: str
    user_id: str
    claim_id: str
    accepted_at: datetime


class InvitationRevoked(Event):
    """The link is dead: an admin took it back, another was claimed, or the user is gone."""

    ref: str
    user_id: str
    revoked_by: str
    revoked_at: datetime


class InvitationExpired(Event):
    """Its time was over before anybody claimed it."""

    ref: str
    user_id: str
    expired_at: datetime


def _without_mail(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew no mails."""
    return {**data, "send_email": False}


CATALOG = Catalog(
    "invitations",
    InvitationCreated,
    InvitationResent,
    InvitationAccepted,
    InvitationRevoked,
    InvitationExpired,
    upcasters={("InvitationCreated", 1): _without_mail, ("InvitationResent", 1): _without_mail},
)
