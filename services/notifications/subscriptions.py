"""What notifications hears: invitations whose links are to be mailed, and what makes such a mail needless."""

from services.identity.events import CATALOG as IDENTITY
from services.identity.events import UserDeleted
from services.invitations.events import CATALOG as INVITATIONS
from services.invitations.events import (
    InvitationAccepted,
    InvitationCreated,
    InvitationExpired,
    InvitationResent,
    InvitationRevoked,
)
from services.notifications import handlers
from services.notifications.domain import Subject
from shared.event_store import Transaction
from shared.events import Recorded
from shared.subscriptions import Subscription


async def on_invitation_created(tx: Transaction, recorded: Recorded) -> None:
    """The mail's id is that of the event that asked for it: told twice, it is one mail."""
    match recorded.event:
        case InvitationCreated(send_email=True, user_id=user_id, ref=ref, generation=generation):
            await handlers.queue_notification(tx, Subject(recorded.id, "invitation", user_id, ref, generation))


async def on_invitation_resent(tx: Transaction, recorded: Recorded) -> None:
    """The old link is dead, and so is a mail with it."""
    resent = recorded.event
    assert isinstance(resent, InvitationResent)
    await handlers.withdraw_about(tx, resent.ref, "resent", before_generation=resent.generation)
    if resent.send_email:
        subject = Subject(recorded.id, "invitation", resent.user_id, resent.ref, resent.generation)
        await handlers.queue_notification(tx, subject)


async def on_invitation_closed(tx: Transaction, recorded: Recorded) -> None:
    match recorded.event:
        case InvitationAccepted(ref=ref):
            await handlers.withdraw_about(tx, ref, "accepted")
        case InvitationRevoked(ref=ref):
            await handlers.withdraw_about(tx, ref, "revoked")
        case InvitationExpired(ref=ref):
            await handlers.withdraw_about(tx, ref, "expired")


async def on_user_deleted(tx: Transaction, recorded: Recorded) -> None:
    match recorded.event:
        case UserDeleted(user_id=user_id):
            await handlers.withdraw_to(tx, user_id)


SUBSCRIPTIONS = (
    Subscription(
        INVITATIONS,
        {
            InvitationCreated: on_invitation_created,
            InvitationResent: on_invitation_resent,
            InvitationAccepted: on_invitation_closed,
            InvitationRevoked: on_invitation_closed,
            InvitationExpired: on_invitation_closed,
        },
    ),
    Subscription(IDENTITY, {UserDeleted: on_user_deleted}),
)
