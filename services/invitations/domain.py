"""An invitation: open until it is accepted, revoked, or over by the clock, to the second (contract §5.5)."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Literal

from services.invitations.events import (
    InvitationAccepted,
    InvitationCreated,
    InvitationExpired,
    InvitationResent,
    InvitationRevoked,
)
from shared.aggregate import Aggregate
from shared.errors import Refused

# §4.5: what an invitation's term may be.
TERM_MIN = timedelta(hours=1)
TERM_MAX = timedelta(days=90)
FIRST_GENERATION = 1
NO_SUCH_INVITATION = "there is no such invitation"

Closing = Literal["accepted", "revoked", "expired", "resent", "unknown"]
InvitationEvent = InvitationCreated | InvitationResent | InvitationAccepted | InvitationRevoked | InvitationExpired


def stream_of(ref: str) -> str:
    """The stream of one invitation's events."""
    return f"invitation-{ref}"


class Invitee(Enum):
    """What is known of the user now."""

    UNKNOWN, WITHOUT_EMAIL, WITH_EMAIL = range(3)


class Status(Enum):
    ABSENT, OPEN, ACCEPTED, REVOKED, EXPIRED = range(5)


@dataclass(frozen=True, slots=True)
class Invitation:
    """As much as deciding needs to know; the read model knows the rest.

    ``status`` is as the events left it: one whose time is over may have no event of that yet.
    """

    status: Status
    ref: str
    user_id: str
    generation: int
    id_hash: str
    term: timedelta
    expires_at: datetime
    claim_id: str | None = None

    def status_at(self, now: datetime) -> Status:
        """The status by the clock."""
        over = self.status is Status.OPEN and now >= self.expires_at
        return Status.EXPIRED if over else self.status


@dataclass(frozen=True, slots=True)
class CreateInvitation:
    ref: str
    user_id: str
    invitee: Invitee
    id_hash: str
    by: str
    now: datetime
    expires_at: datetime
    send_email: bool = False


@dataclass(frozen=True, slots=True)
class ResendInvitation:
    """``generation`` is the one that the new link is of, so that the same resending twice is one."""

    invitee: Invitee
    generation: int
    id_hash: str
    by: str
    now: datetime
    send_email: bool = False


@dataclass(frozen=True, slots=True)
class AcceptInvitation:
    id_hash: str
    user_id: str
    claim_id: str
    now: datetime


@dataclass(frozen=True, slots=True)
class DeleteInvitation:
    """An admin takes it back, and is told if there is nothing to take back."""

    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class RevokeInvitation:
    """It has lost its purpose: the user is gone, or has accepted another."""

    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class ExpireInvitation:
    now: datetime


InvitationCommand = (
    CreateInvitation | ResendInvitation | AcceptInvitation | DeleteInvitation | RevokeInvitation | ExpireInvitation
)


class InvitationNotFound(Refused):
    reason = "not_found"


class UserNotFound(Refused):
    reason = "not_found"


class UserHasNoEmail(Refused):
    reason = "user_has_no_email"


class TermOutOfRange(Refused):
    reason = "out_of_range"


class InvitationClosed(Refused):
    reason = "invitation_closed"


class InvitationNotResendable(Refused):
    reason = "invitation_not_resendable"


class AcceptanceReadOnly(Refused):
    reason = "field_read_only"


class LinkUnknown(Refused):
    reason = "invitation_unknown"


class LinkUsed(Refused):
    reason = "invitation_used"


class LinkExpired(Refused):
    reason = "invitation_expired"


def decide(invitation: Invitation, command: InvitationCommand) -> list[InvitationEvent]:
    """The table of contents: a function a command, each with all the rules of its own."""
    match command:
        case CreateInvitation():
            return _create(invitation, command)
        case ResendInvitation():
            return _resend(invitation, command)
        case AcceptInvitation():
            return _accept(invitation, command)
        case DeleteInvitation():
            return _delete(invitation, command)
        case RevokeInvitation():
            return _revoke(invitation, command)
        case ExpireInvitation():
            return _expire(invitation, command)


def _create(invitation: Invitation, command: CreateInvitation) -> list[InvitationEvent]:
    if invitation.status is not Status.ABSENT:
        return []  # asked twice, done once: a repeated command is no error
    _require_invitable(command.invitee)
    if not TERM_MIN <= command.expires_at - command.now <= TERM_MAX:
        raise TermOutOfRange("duration must be from 1h to 90d", param="duration")
    return [
        InvitationCreated(
            ref=command.ref,
            user_id=command.user_id,
            generation=FIRST_GENERATION,
            id_hash=command.id_hash,
            created_by=command.by,
            created_at=command.now,
            expires_at=command.expires_at,
            send_email=command.send_email,
        )
    ]


def _resend(invitation: Invitation, command: ResendInvitation) -> list[InvitationEvent]:
    if invitation.status_at(command.now) not in (Status.OPEN, Status.EXPIRED):
        raise InvitationNotResendable(f"ref: the invitation is {invitation.status.name.lower()}", param="ref")
    if command.generation == invitation.generation:
        return []
    _require_invitable(command.invitee)
    return [
        InvitationResent(
            ref=invitation.ref,
            user_id=invitation.user_id,
            generation=command.generation,
            id_hash=command.id_hash,
            resent_by=command.by,
            resent_at=command.now,
            expires_at=command.now + invitation.term,
            send_email=command.send_email,
        )
    ]


def _require_invitable(invitee: Invitee) -> None:
    if invitee is Invitee.UNKNOWN:
        raise UserNotFound("user_id: there is no such user", param="user_id")
    if invitee is Invitee.WITHOUT_EMAIL:
        raise UserHasNoEmail("user_id: the user has no e-mail to log in with", param="user_id")


def _accept(invitation: Invitation, command: AcceptInvitation) -> list[InvitationEvent]:
    if command.claim_id == invitation.claim_id:
        return []
    require_open(invitation, command.id_hash, command.now)
    if command.user_id != invitation.user_id:
        raise LinkUnknown(NO_SUCH_INVITATION)
    return [
        InvitationAccepted(
            ref=invitation.ref, user_id=invitation.user_id, claim_id=command.claim_id, accepted_at=command.now
        )
    ]


def require_open(invitation: Invitation, id_hash: str, now: datetime) -> None:
    """Raise what the holder of a link is told if it opens nothing any more."""
    status = invitation.status_at(now)
    if id_hash != invitation.id_hash or status is Status.REVOKED:
        raise LinkUnknown(NO_SUCH_INVITATION)  # a link of an earlier generation is as if it had never been
    if status is Status.ACCEPTED:
        raise LinkUsed("this invitation was used already")
    if status is Status.EXPIRED:
        raise LinkExpired("this invitation has expired")


def closed_by(invitation: Invitation, generation: int, now: datetime) -> Closing | None:
    """Why the link of ``generation`` opens nothing; None if it does."""
    match invitation.status_at(now):
        case Status.OPEN:
            return None if generation == invitation.generation else "resent"
        case Status.ACCEPTED:
            return "accepted"
        case Status.REVOKED:
            return "revoked"
        case Status.EXPIRED:
            return "expired"
        case Status.ABSENT:
            return "unknown"


def _delete(invitation: Invitation, command: DeleteInvitation) -> list[InvitationEvent]:
    status = invitation.status_at(command.now)
    if status is not Status.OPEN:
        raise InvitationClosed(f"invitation_id: the invitation is {status.name.lower()}", param="invitation_id")
    return [_revoked(invitation, command)]


def _revoke(invitation: Invitation, command: RevokeInvitation) -> list[InvitationEvent]:
    if invitation.status_at(command.now) is not Status.OPEN:
        return []
    return [_revoked(invitation, command)]


def _revoked(invitation: Invitation, command: DeleteInvitation | RevokeInvitation) -> InvitationRevoked:
    return InvitationRevoked(
        ref=invitation.ref, user_id=invitation.user_id, revoked_by=command.by, revoked_at=command.now
    )


def _expire(invitation: Invitation, command: ExpireInvitation) -> list[InvitationEvent]:
    if invitation.status is not Status.OPEN or command.now < invitation.expires_at:
        return []
    # It expired when its time was over, not when somebody came to note it.
    return [InvitationExpired(ref=invitation.ref, user_id=invitation.user_id, expired_at=invitation.expires_at)]


def evolve(invitation: Invitation, event: InvitationEvent) -> Invitation:
    """What is known after one event more."""
    match event:
        case InvitationCreated():
            return Invitation(
                status=Status.OPEN,
                ref=event.ref,
                user_id=event.user_id,
                generation=event.generation,
                id_hash=event.id_hash,
                term=event.expires_at - event.created_at,
                expires_at=event.expires_at,
            )
        case InvitationResent():
            return replace(
                invitation,
                status=Status.OPEN,
                generation=event.generation,
                id_hash=event.id_hash,
                expires_at=event.expires_at,
            )
        case InvitationAccepted():
            return replace(invitation, status=Status.ACCEPTED, claim_id=event.claim_id)
        case InvitationRevoked():
            return replace(invitation, status=Status.REVOKED)
        case InvitationExpired():
            return replace(invitation, status=Status.EXPIRED)


NOTHING_YET = Invitation(
    status=Status.ABSENT,
    ref="",
    user_id="",
    generation=0,
    id_hash="",
    term=timedelta(),
    expires_at=datetime.min.replace(tzinfo=UTC),
)
INVITATION = Aggregate(NOTHING_YET, decide, evolve)
