"""A mail: queued, handed over to a server, and sent, failed or withdrawn. What may have been sent is not sent again."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from services.notifications.events import (
    Failure,
    Kind,
    NotificationAttempted,
    NotificationDeferred,
    NotificationFailed,
    NotificationQueued,
    NotificationSent,
    NotificationWithdrawn,
    Withdrawal,
)
from shared.aggregate import Aggregate

# How long a mail waits after each attempt that failed for now: a server's pause, a restart, an evening, a day.
BACK_OFF = tuple(
    timedelta(seconds=seconds) for seconds in (10, 60, 5 * 60, 15 * 60, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
)
OUTCOME_UNKNOWN = "it is not known whether the server took it: resend the invitation if it did not arrive"

NotificationEvent = (
    NotificationQueued
    | NotificationAttempted
    | NotificationDeferred
    | NotificationSent
    | NotificationFailed
    | NotificationWithdrawn
)


def stream_of(notification_id: str) -> str:
    """The stream of one mail's events."""
    return f"notification-{notification_id}"


class Status(Enum):
    ABSENT, QUEUED, HANDED_OVER, SENT, FAILED, UNKNOWN, WITHDRAWN = range(7)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a mail is about, and to whom."""

    id: str
    kind: Kind
    user_id: str
    ref: str
    generation: int


NOBODY = Subject(id="", kind="invitation", user_id="", ref="", generation=0)


@dataclass(frozen=True, slots=True)
class Notification:
    """``attempts`` counts those that failed, and the one that is under way."""

    status: Status = Status.ABSENT
    subject: Subject = NOBODY
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class QueueNotification:
    subject: Subject
    now: datetime


@dataclass(frozen=True, slots=True)
class HandOver:
    """Nothing decided means no: somebody else has it in hand, or it is wanted no more."""

    now: datetime


@dataclass(frozen=True, slots=True)
class ReportSent:
    now: datetime


@dataclass(frozen=True, slots=True)
class ReportTrouble:
    """The server has not taken it: ``for_good`` if it said that it never will."""

    error: str
    for_good: bool
    now: datetime


@dataclass(frozen=True, slots=True)
class ReportLost:
    """Nobody will say any more what became of the attempt."""

    now: datetime


@dataclass(frozen=True, slots=True)
class WithdrawNotification:
    reason: Withdrawal
    now: datetime


NotificationCommand = QueueNotification | HandOver | ReportSent | ReportTrouble | ReportLost | WithdrawNotification


def decide(  # noqa: PLR0911 - the table of contents
    notification: Notification, command: NotificationCommand
) -> list[NotificationEvent]:
    """Nobody is refused here, for nobody asks but events and time: what no longer fits decides nothing."""
    match command, notification.status:
        case QueueNotification(), Status.ABSENT:
            return [_queued(command)]
        case HandOver(now), Status.QUEUED:
            attempt = notification.attempts + 1
            return [NotificationAttempted(id=notification.subject.id, attempt=attempt, attempted_at=now)]
        case ReportSent(now), Status.HANDED_OVER | Status.UNKNOWN:
            return [_sent(notification, now)]
        case ReportTrouble(), Status.QUEUED:
            return [_trouble(notification, notification.attempts + 1, command)]
        case ReportTrouble(), Status.HANDED_OVER:
            return [_trouble(notification, notification.attempts, command)]
        case ReportLost(now), Status.HANDED_OVER:
            return [_failed(notification, notification.attempts, "outcome_unknown", OUTCOME_UNKNOWN, now)]
        case WithdrawNotification(reason, now), Status.QUEUED:
            return [NotificationWithdrawn(id=notification.subject.id, reason=reason, withdrawn_at=now)]
        case _:
            return []


def _queued(command: QueueNotification) -> NotificationQueued:
    subject = command.subject
    return NotificationQueued(
        id=subject.id,
        kind=subject.kind,
        user_id=subject.user_id,
        ref=subject.ref,
        generation=subject.generation,
        queued_at=command.now,
    )


def _sent(notification: Notification, now: datetime) -> NotificationSent:
    subject = notification.subject
    return NotificationSent(
        id=subject.id,
        kind=subject.kind,
        user_id=subject.user_id,
        ref=subject.ref,
        generation=subject.generation,
        attempts=notification.attempts,
        sent_at=now,
    )


def _trouble(notification: Notification, attempt: int, command: ReportTrouble) -> NotificationEvent:
    if command.for_good:
        return _failed(notification, attempt, "refused", command.error, command.now)
    if attempt > len(BACK_OFF):
        return _failed(notification, attempt, "given_up", command.error, command.now)
    return NotificationDeferred(
        id=notification.subject.id,
        attempt=attempt,
        error=command.error,
        deferred_at=command.now,
        due_at=command.now + BACK_OFF[attempt - 1],
    )


def _failed(
    notification: Notification, attempts: int, reason: Failure, error: str, now: datetime
) -> NotificationFailed:
    subject = notification.subject
    return NotificationFailed(
        id=subject.id,
        kind=subject.kind,
        user_id=subject.user_id,
        ref=subject.ref,
        generation=subject.generation,
        attempts=attempts,
        reason=reason,
        error=error,
        failed_at=now,
    )


def evolve(notification: Notification, event: NotificationEvent) -> Notification:  # noqa: PLR0911 - a line an event
    """What is known after one event more."""
    match event:
        case NotificationQueued():
            subject = Subject(event.id, event.kind, event.user_id, event.ref, event.generation)
            return Notification(Status.QUEUED, subject)
        case NotificationAttempted():
            return replace(notification, status=Status.HANDED_OVER, attempts=event.attempt)
        case NotificationDeferred():
            return replace(notification, status=Status.QUEUED, attempts=event.attempt)
        case NotificationSent():
            return replace(notification, status=Status.SENT)
        case NotificationFailed(reason="outcome_unknown"):
            return replace(notification, status=Status.UNKNOWN)
        case NotificationFailed():
            return replace(notification, status=Status.FAILED, attempts=event.attempts)
        case NotificationWithdrawn():
            return replace(notification, status=Status.WITHDRAWN)


NOTIFICATION = Aggregate(Notification(), decide, evolve)
