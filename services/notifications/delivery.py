"""A mail's way to the server: looked up, put into words, and handed over once.

What is committed before the mail is handed over is that it will be; and after, what became of it. Who dies between the
two leaves a mail that may have been sent, and that is therefore not tried again (ADR 10).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import EmailMessage

import structlog
from jinja2 import Environment

from services.notifications import handlers, read_model
from services.notifications.content import Needless, load_templates, open_content
from services.notifications.message import AddressUnusable, make_message
from services.notifications.read_model import NotificationRow
from services.notifications.settings import NotificationsSettings
from services.notifications.smtp import MailServer, NotTaken, OutcomeUnknown, conversation, hand_over, server_of
from shared.errors import Refused
from shared.service import Running
from shared.trace import tracing

log = structlog.get_logger()

# Long after whoever handed a mail over has given up waiting for the server's word, or is gone.
LOST_AFTER = timedelta(minutes=5)


@dataclass(slots=True)
class Post:
    """What notifications keeps while it runs. ``in_hand`` are the mails that a lane of ours is at."""

    templates: Environment
    server: MailServer | None
    in_hand: set[str] = field(default_factory=set)


@asynccontextmanager
async def post(running: Running[NotificationsSettings]) -> AsyncIterator[Post]:
    yield Post(load_templates(), server_of(running.settings))


async def send_next(running: Running[NotificationsSettings], server: MailServer) -> bool:
    """Try the mail that is due and in nobody's hand. False if there is none."""
    in_hand = running.own.in_hand
    row = await running.run(read_model.find_due, without=tuple(in_hand))
    if row is None:
        return False
    if row.id not in in_hand:  # another lane may have been faster
        in_hand.add(row.id)
        try:
            with tracing(await running.run(handlers.story_of, row.id)):
                await _send(running, server, row)
        finally:
            in_hand.remove(row.id)
    return True


async def _send(running: Running[NotificationsSettings], server: MailServer, row: NotificationRow) -> None:
    try:
        await _try(running, server, row)
    except Needless as needless:
        await running.run(handlers.withdraw_notification, row.id, needless.reason)
    except AddressUnusable as fault:
        await running.run(handlers.report_trouble, row.id, error=str(fault), for_good=True)
    except NotTaken as fault:
        log.warning("notification.not_taken", id=row.id, error=fault.error, for_good=fault.for_good)
        await running.run(handlers.report_trouble, row.id, error=fault.error, for_good=fault.for_good)
    except OutcomeUnknown:
        log.warning("notification.outcome_unknown", id=row.id)
        await running.run(handlers.report_lost, row.id)


async def _try(running: Running[NotificationsSettings], server: MailServer, row: NotificationRow) -> None:
    message = await _put_into_words(running, server, row)
    async with conversation(server, message) as client:
        # Since it was put into words it may have become needless: what others have committed by now is heard first.
        await running.fence({"invitations", "identity"})
        if await running.run(handlers.hand_over, row.id):
            await hand_over(client, message, seconds=server.taking_seconds)
            await running.run(handlers.report_sent, row.id)


async def _put_into_words(
    running: Running[NotificationsSettings], server: MailServer, row: NotificationRow
) -> EmailMessage:
    """What will be sent. Whatever nobody foresaw about this one is its own trouble, and keeps no other waiting."""
    try:
        content = await open_content(running, row)
        return make_message(content, sender=server.sender, notification_id=row.id, now=running.clock())
    except (Needless, AddressUnusable, Refused):
        raise
    except Exception as fault:
        log.exception("notification.not_worded", id=row.id)
        raise NotTaken("it could not be put into words") from fault
