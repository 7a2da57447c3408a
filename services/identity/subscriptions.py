"""What identity hears: accepted invitations and spend. And what others ask it."""

from typing import Any

from services.budgets.events import CATALOG as BUDGETS
from services.identity import handlers, read_model
from services.identity.requests import (
    FindSession,
    FindUser,
    FoundSession,
    FoundUser,
    OpenedEmails,
    OpenEmails,
)
from services.invitations.events import CATALOG as INVITATIONS
from services.invitations.events import InvitationAccepted
from shared.event_store import Transaction
from shared.events import Recorded
from shared.service import Running
from shared.subscriptions import Subscription


async def on_invitation_accepted(tx: Transaction, recorded: Recorded) -> None:
    """Whoever claimed may have been cut short: what was accepted is finished here."""
    accepted = recorded.event
    assert isinstance(accepted, InvitationAccepted)
    await handlers.activate_password(tx, accepted.claim_id, accepted.user_id, recorded.position)


SUBSCRIPTIONS = (
    Subscription(INVITATIONS, {InvitationAccepted: on_invitation_accepted}),
    Subscription(BUDGETS),
)


async def find_user(running: Running[Any], question: FindUser) -> FoundUser:
    async def look(tx: Transaction) -> FoundUser:
        position = await tx.last_position()
        user = await read_model.find_user(tx, question.user_id)
        if user is None:
            return FoundUser(position=position, exists=False, user_id=question.user_id)
        limits = read_model.limits_of(user)
        return FoundUser(
            position=position,
            exists=True,
            user_id=user.user_id,
            role=user.role,
            models=limits.models,
            max_budget_nano_usd=limits.max_budget_nano_usd,
        )

    return await running.run(look)


async def find_session(running: Running[Any], question: FindSession) -> FoundSession:
    async def look(tx: Transaction) -> FoundSession:
        position = await tx.last_position()
        session = await read_model.find_session(tx, question.token)
        if session is None or session.expires_at <= tx.now:
            return FoundSession(position=position, exists=False)
        idle_until = await handlers.idle_until(tx, session.session_id, session.started_at)
        if idle_until <= tx.now:
            return FoundSession(position=position, exists=False)
        await handlers.mark_seen(tx, session.session_id)
        return FoundSession(
            position=position,
            exists=True,
            session_id=session.session_id,
            user_id=session.user_id,
            expires_at=session.expires_at,
            idle_until=idle_until,
        )

    return await running.run(look)


async def open_emails(running: Running[Any], question: OpenEmails) -> OpenedEmails:
    return OpenedEmails(emails=await running.run(read_model.emails_of, question.user_ids))
