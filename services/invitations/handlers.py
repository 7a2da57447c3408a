"""What is done with invitations: an async function a command. Looks up, draws, stamps, executes; decides nothing."""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.invitations import read_model
from services.invitations.domain import (
    FIRST_GENERATION,
    INVITATION,
    NO_SUCH_INVITATION,
    AcceptanceReadOnly,
    AcceptInvitation,
    CreateInvitation,
    DeleteInvitation,
    ExpireInvitation,
    InvitationNotFound,
    Invitee,
    LinkUnknown,
    ResendInvitation,
    RevokeInvitation,
    closed_by,
    require_open,
    stream_of,
)
from services.invitations.events import InvitationResent
from services.invitations.read_model import InvitationRow
from services.invitations.requests import MadeLink, OpenInvitation
from shared.durations import parse_duration
from shared.event_store import Transaction
from shared.keyring import Keyring
from shared.secret import draw_uuid


@dataclass(frozen=True, slots=True)
class Link:
    """A link's secret, to be shown in the answer that made it and nowhere else; and the invitation as it stands now."""

    id: str = field(repr=False)
    invitation: InvitationRow


async def create_invitation(
    tx: Transaction, *, user_id: str, duration: str | None, send_email: bool | None = None, ref: str | None = None
) -> Link:
    """Invite a user, for ``duration`` or for as long as the setting says; ``ref`` where it was drawn already."""
    ref = ref or draw_uuid(tx.draw("invitation"))
    link_id = make_link_id(tx.settings.keyring, ref, FIRST_GENERATION)
    command = CreateInvitation(
        ref=ref,
        user_id=user_id,
        invitee=await _invitee(tx, user_id),
        id_hash=hash_link_id(link_id),
        by=tx.trace.actor,
        now=tx.now,
        expires_at=parse_duration(duration or tx.settings.invitation_duration).after(tx.now),
        send_email=_mailed(tx, send_email),
    )
    await tx.execute(stream_of(ref), INVITATION, command)
    return Link(link_id, await get_invitation(tx, ref))


async def resend_invitation(tx: Transaction, *, ref: str, send_email: bool | None = None) -> Link:
    """A new link, open for a full term. The old one is dead."""
    invitation = await read_model.find_invitation(tx, ref)
    if invitation is None:
        raise InvitationNotFound(f"ref: {NO_SUCH_INVITATION}", param="ref")
    generation = invitation.generation + 1
    command = ResendInvitation(
        invitee=await _invitee(tx, invitation.user_id),
        generation=generation,
        id_hash=hash_link_id(make_link_id(tx.settings.keyring, ref, generation)),
        by=tx.trace.actor,
        now=tx.now,
        send_email=_mailed(tx, send_email),
    )
    # One that was cut off has resent it already, and then its own link is the answer, not the next.
    resent = await tx.execute(stream_of(ref), INVITATION, command)
    generation = next((event.generation for event in resent if isinstance(event, InvitationResent)), generation)
    return Link(make_link_id(tx.settings.keyring, ref, generation), await get_invitation(tx, ref))


def _mailed(tx: Transaction, send_email: bool | None) -> bool:
    """A link is mailed where that was asked for; where nothing was said, if there is a server to do it (§3.5)."""
    return send_email if send_email is not None else tx.settings.smtp_host is not None


async def make_link(tx: Transaction, *, ref: str, generation: int) -> MadeLink:
    """The link's id once more, for who mails or shows it now."""
    invitation, _ = await tx.load(stream_of(ref), INVITATION)
    closed = closed_by(invitation, generation, tx.now)
    if closed is not None:
        return MadeLink(closed=closed)
    return MadeLink(id=make_link_id(tx.settings.keyring, ref, generation), expires_at=invitation.expires_at)


async def check_invitation(tx: Transaction, *, id_hash: str) -> OpenInvitation:
    """Whose the invitation is, if its link opens anything now; changes nothing."""
    ref = await _ref_of(tx, id_hash)
    invitation, _ = await tx.load(stream_of(ref), INVITATION)
    require_open(invitation, id_hash, tx.now)
    return OpenInvitation(ref=ref, user_id=invitation.user_id, generation=invitation.generation)


async def accept_invitation(tx: Transaction, *, id_hash: str, user_id: str, claim_id: str) -> str:
    """Accept it for the invited, and close whatever else they have open. Of many at once one wins. Returns its ref."""
    ref = await _ref_of(tx, id_hash)
    open_refs = await read_model.list_open_refs(tx, user_id)
    command = AcceptInvitation(id_hash=id_hash, user_id=user_id, claim_id=claim_id, now=tx.now)
    if await tx.execute(stream_of(ref), INVITATION, command):  # else it was before, and what came since stays open
        await _revoke(tx, open_refs, by=user_id)
    return ref


async def update_invitation(tx: Transaction, *, invitation_id: str, is_accepted: bool) -> InvitationRow:
    """Changes nothing, and so is refused unless nothing would change (D10)."""
    invitation = await get_invitation(tx, invitation_id)
    if is_accepted != (invitation.status == "accepted"):
        raise AcceptanceReadOnly("is_accepted can't be set: only the invited can accept", param="is_accepted")
    return invitation


async def delete_invitation(tx: Transaction, *, invitation_id: str) -> InvitationRow:
    """An admin takes an open invitation back."""
    ref = (await get_invitation(tx, invitation_id)).ref
    await tx.execute(stream_of(ref), INVITATION, DeleteInvitation(by=tx.trace.actor, now=tx.now))
    return await get_invitation(tx, ref)


async def revoke_invitations(tx: Transaction, *, user_id: str, by: str) -> None:
    """Close all that is open for a user."""
    await _revoke(tx, await read_model.list_open_refs(tx, user_id), by=by)


async def _revoke(tx: Transaction, refs: Iterable[str], *, by: str) -> None:
    for ref in refs:
        await tx.execute(stream_of(ref), INVITATION, RevokeInvitation(by=by, now=tx.now))


async def expire_invitations(tx: Transaction, *, limit: int) -> int:
    """Note of ``limit`` invitations at most that their time is over. Returns how many there were."""
    due = await read_model.list_due_refs(tx, limit)
    for ref in due:
        await tx.execute(stream_of(ref), INVITATION, ExpireInvitation(tx.now))
    return len(due)


async def get_invitation(tx: Transaction, invitation_id: str) -> InvitationRow:
    """By its ref or by its link's id."""
    row = await read_model.find_invitation(tx, invitation_id)
    row = row or await read_model.find_invitation_by_link(tx, hash_link_id(invitation_id))
    if row is None:
        raise InvitationNotFound(f"invitation_id: {NO_SUCH_INVITATION}", param="invitation_id")
    return row


def make_link_id(keyring: Keyring, ref: str, generation: int) -> str:
    """The secret in the link: a UUID whose 122 free bits are an HMAC, so that it can be made again and kept nowhere."""
    return str(uuid.UUID(bytes=keyring.hmac("invitation-link", f"{ref}:{generation}".encode())[:16], version=4))


def hash_link_id(link_id: str) -> str:
    """What is kept of a link's id, to find the invitation by. A UUID in capitals is the same UUID."""
    return hashlib.sha256(link_id.lower().encode()).hexdigest()


async def _ref_of(tx: Transaction, id_hash: str) -> str:
    row = await read_model.find_invitation_by_link(tx, id_hash)
    if row is None:
        raise LinkUnknown(NO_SUCH_INVITATION)
    return row.ref


async def _invitee(tx: Transaction, user_id: str) -> Invitee:
    user = await read_model.find_user(tx, user_id)
    if user is not None and user.has_email:
        return Invitee.WITH_EMAIL
    tx.rests_on.add("identity")  # what we know may be late: before this refuses anybody, `run` catches up
    return Invitee.UNKNOWN if user is None else Invitee.WITHOUT_EMAIL
