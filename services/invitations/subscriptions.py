"""What comes in over NATS: what invitations hears of users, and what identity asks while it serves a claim."""

from typing import Any

from services.identity.events import CATALOG as IDENTITY
from services.identity.events import UserCreated, UserDeleted
from services.invitations import handlers
from services.invitations.domain import stream_of
from services.invitations.requests import (
    AcceptedInvitation,
    AcceptInvitation,
    CheckInvitation,
    MadeLink,
    MakeLink,
    OpenInvitation,
)
from services.notifications.events import CATALOG as NOTIFICATIONS
from shared.event_store import Transaction
from shared.events import Recorded
from shared.service import Running
from shared.subscriptions import Subscription


async def on_user_created(tx: Transaction, recorded: Recorded) -> None:
    """A user may come with an invitation, which identity has promised already (§3.2)."""
    match recorded.event:
        case UserCreated(user_id=user_id, invitation=wanted) if wanted is not None:
            await handlers.create_invitation(
                tx, user_id=user_id, duration=None, send_email=wanted.send_email, ref=wanted.ref
            )


async def on_user_deleted(tx: Transaction, recorded: Recorded) -> None:
    """Nobody is there to accept it (§5.8)."""
    match recorded.event:
        case UserDeleted(user_id=user_id):
            await handlers.revoke_invitations(tx, user_id=user_id, by=recorded.actor)


SUBSCRIPTIONS = [
    Subscription(IDENTITY, {UserCreated: on_user_created, UserDeleted: on_user_deleted}),
    Subscription(NOTIFICATIONS),
]


async def check_invitation(running: Running[Any], question: CheckInvitation) -> OpenInvitation:
    return await running.run(handlers.check_invitation, id_hash=question.id_hash)


async def make_link(running: Running[Any], question: MakeLink) -> MadeLink:
    return await running.run(handlers.make_link, ref=question.ref, generation=question.generation)


async def accept_invitation(running: Running[Any], question: AcceptInvitation) -> AcceptedInvitation:
    ref = await running.run(
        handlers.accept_invitation, id_hash=question.id_hash, user_id=question.user_id, claim_id=question.claim_id
    )
    # Nothing follows InvitationAccepted on its stream, so the stream's end is where it stands, now and whenever asked.
    position = await running.run(lambda tx: tx.last_position([stream_of(ref)]))
    return AcceptedInvitation(ref=ref, position=position)
