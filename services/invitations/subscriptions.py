"""What comes in over NATS: what invitations hears of users, and what identity asks while it serves a claim."""

from typing import Any

from services.identity.events import CATALOG as IDENTITY
from services.identity.events import UserDeleted
from services.invitations import handlers
from services.invitations.domain import stream_of
from services.invitations.requests import AcceptedInvitation, AcceptInvitation, CheckInvitation, OpenInvitation
from shared.event_store import Transaction
from shared.events import Recorded
from shared.service import Running
from shared.subscriptions import Subscription


async def on_user_deleted(tx: Transaction, recorded: Recorded) -> None:
    """Nobody is there to accept it (§5.8)."""
    match recorded.event:
        case UserDeleted(user_id=user_id):
            await handlers.revoke_invitations(tx, user_id=user_id, by=recorded.actor)


SUBSCRIPTIONS = [Subscription(IDENTITY, {UserDeleted: on_user_deleted})]


async def check_invitation(running: Running[Any], question: CheckInvitation) -> OpenInvitation:
    return await running.run(handlers.check_invitation, id_hash=question.id_hash)


async def accept_invitation(running: Running[Any], question: AcceptInvitation) -> AcceptedInvitation:
    ref = await running.run(
        handlers.accept_invitation, id_hash=question.id_hash, user_id=question.user_id, claim_id=question.claim_id
    )
    # Nothing follows InvitationAccepted on its stream, so the stream's end is where it stands, now and whenever asked.
    position = await running.run(lambda tx: tx.last_position([stream_of(ref)]))
    return AcceptedInvitation(ref=ref, position=position)
