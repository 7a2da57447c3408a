"""What others may ask invitations now."""

from pydantic import BaseModel

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
