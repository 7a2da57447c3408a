"""What is done with mails: an async function a command. Looks up, stamps, executes; decides nothing."""

from collections.abc import Iterable
from datetime import timedelta

from services.notifications import read_model
from services.notifications.domain import (
    NOTIFICATION,
    HandOver,
    NotificationCommand,
    QueueNotification,
    ReportLost,
    ReportSent,
    ReportTrouble,
    Subject,
    WithdrawNotification,
    stream_of,
)
from services.notifications.events import Withdrawal
from services.notifications.read_model import NotificationRow
from shared.errors import Refused
from shared.event_store import Transaction
from shared.trace import Trace


class NotificationNotFound(Refused):
    reason = "not_found"


async def queue_notification(tx: Transaction, subject: Subject) -> None:
    await _execute(tx, subject.id, QueueNotification(subject, tx.now))


async def hand_over(tx: Transaction, notification_id: str) -> bool:
    """Whether the mail may be handed over to the server now, by who asks and nobody else."""
    return await _execute(tx, notification_id, HandOver(tx.now))


async def report_sent(tx: Transaction, notification_id: str) -> None:
    await _execute(tx, notification_id, ReportSent(tx.now))


async def report_trouble(tx: Transaction, notification_id: str, *, error: str, for_good: bool) -> None:
    await _execute(tx, notification_id, ReportTrouble(error, for_good, tx.now))


async def report_lost(tx: Transaction, notification_id: str) -> None:
    await _execute(tx, notification_id, ReportLost(tx.now))


async def story_of(tx: Transaction, notification_id: str) -> Trace:
    """What is done about a mail later belongs to the story of the request that wanted it."""
    return await tx.story_of(stream_of(notification_id))


async def give_up_the_lost(tx: Transaction, *, after: timedelta) -> None:
    """Whoever handed these over has gone without a word."""
    for notification_id in await read_model.list_handed_over_before(tx, tx.now - after):
        tx.trace = await story_of(tx, notification_id)
        await report_lost(tx, notification_id)


async def withdraw_notification(tx: Transaction, notification_id: str, reason: Withdrawal) -> None:
    await _execute(tx, notification_id, WithdrawNotification(reason, tx.now))


async def withdraw_about(
    tx: Transaction, ref: str, reason: Withdrawal, *, before_generation: int | None = None
) -> None:
    """What is not sent yet about an invitation, or about its links before a generation, is wanted no more."""
    await _withdraw(tx, await read_model.list_queued_about(tx, ref=ref, before_generation=before_generation), reason)


async def withdraw_to(tx: Transaction, user_id: str) -> None:
    await _withdraw(tx, await read_model.list_queued_about(tx, user_id=user_id), "user_deleted")


async def _withdraw(tx: Transaction, ids: Iterable[str], reason: Withdrawal) -> None:
    for notification_id in ids:
        await withdraw_notification(tx, notification_id, reason)


async def get_notification(tx: Transaction, notification_id: str) -> NotificationRow:
    row = await read_model.find_notification(tx, notification_id)
    if row is None:
        raise NotificationNotFound("id: there is no such notification", param="id")
    return row


async def _execute(tx: Transaction, notification_id: str, command: NotificationCommand) -> bool:
    return bool(await tx.execute(stream_of(notification_id), NOTIFICATION, command))
