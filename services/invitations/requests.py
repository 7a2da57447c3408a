"""What others may ask invitations now."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.requests import Question


class CheckInvitation(Question):
    """Is the invitation whose link has this SHA-256 open, and whose is it?

    Refused with ``invitation_unknown``, ``invitation_used`` or ``invitation_expired``.
    """

    id_hash: str


class OpenInvitation(BaseModel):
    ref: str
    user_id: str
    generation: int


class MakeLink(Question):
    """Make the id of this generation's link again, to be mailed or shown now, and to be kept nowhere."""

    ref: str
    generation: int


class MadeLink(BaseModel):
    """``id`` is null if the link opens nothing any more; ``closed`` then says why."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: str | None = Field(default=None, repr=False)
    expires_at: datetime | None = None
    closed: Literal["accepted", "revoked", "expired", "resent", "unknown"] | None = None


class AcceptInvitation(Question):
    """Accept it for ``user_id``: of many at once one wins. The same ``claim_id`` again gets the same answer.

    Refused as ``CheckInvitation`` is, and with ``invitation_unknown`` if it is another user's.
    """

    id_hash: str
    user_id: str
    claim_id: str


class AcceptedInvitation(BaseModel):
    """``position`` is that of InvitationAccepted in invitations' log."""

    ref: str
    position: int
