"""What notifications reads: each mail as it stands. Ids and times; no address, no link, no text."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Column, DateTime, Index, Integer, MetaData, Row, Select, Table, Text, and_, or_, select, tuple_

from services.notifications.events import (
    Kind,
    NotificationAttempted,
    NotificationDeferred,
    NotificationFailed,
    NotificationQueued,
    NotificationSent,
    NotificationWithdrawn,
)
from shared.event_store import Transaction
from shared.events import Event
from shared.projections import Projection, upsert

METADATA = MetaData()

Status = Literal["queued", "sent", "failed"]

notifications = Table(
    "notifications_1",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("user_id", Text, nullable=False, index=True),
    Column("ref", Text, nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Column("queued_at", DateTime(timezone=True), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    # Of those that are queued: when to try, or since when one is being handed over.
    Column("due_at", DateTime(timezone=True)),
    Column("handed_over_at", DateTime(timezone=True)),
)
_is_queued = notifications.c.status == "queued"
Index("notifications_1_by_age", notifications.c.queued_at, notifications.c.id)
Index("notifications_1_queued", notifications.c.due_at, postgresql_where=_is_queued)


async def project_notification(tx: Transaction, event: Event) -> None:
    """Only the row of the event's own stream changes."""
    match event:
        case NotificationQueued(id=id_, queued_at=at):
            about = {"kind": event.kind, "user_id": event.user_id, "ref": event.ref, "generation": event.generation}
            fresh = {"status": "queued", "attempts": 0, "error": None, "handed_over_at": None}
            times = {"queued_at": at, "at": at, "due_at": at}
            await tx.connection.execute(upsert(notifications, {"id": id_}, about | fresh | times))
        case NotificationAttempted(id=id_, attempted_at=at):
            await _change(tx, id_, {"attempts": event.attempt, "due_at": None, "handed_over_at": at, "at": at})
        case NotificationDeferred(id=id_, deferred_at=at, due_at=due_at):
            again = {"attempts": event.attempt, "due_at": due_at, "handed_over_at": None}
            await _change(tx, id_, again | {"error": event.error, "at": at})
        case NotificationSent(id=id_, sent_at=at):
            await _change(tx, id_, {"attempts": event.attempts, "error": None} | _ended("sent", at))
        case NotificationFailed(id=id_, failed_at=at):
            await _change(tx, id_, {"attempts": event.attempts, "error": event.error} | _ended("failed", at))
        case NotificationWithdrawn(id=id_, withdrawn_at=at):
            await _change(tx, id_, {"error": WITHDRAWN[event.reason]} | _ended("failed", at))
        case _:
            pass


WITHDRAWN = {
    "accepted": "not sent: the invitation was accepted before",
    "revoked": "not sent: the invitation was revoked before",
    "expired": "not sent: the invitation expired before",
    "resent": "not sent: the invitation was resent before, with another link",
    "unknown": "not sent: there is no such invitation",
    "user_deleted": "not sent: the user was deleted before",
    "no_address": "not sent: the user has no e-mail, or was deleted before",
}


def _ended(status: Status, at: datetime) -> dict[str, object]:
    return {"status": status, "at": at, "due_at": None, "handed_over_at": None}


async def _change(tx: Transaction, id_: str, values: dict[str, object]) -> None:
    await tx.connection.execute(notifications.update().where(notifications.c.id == id_).values(values))


NOTIFICATIONS = Projection("notifications", "notifications", (notifications,), project_notification)


@dataclass(frozen=True, slots=True)
class NotificationRow:
    """A mail as it stands."""

    id: str
    kind: Kind
    user_id: str
    ref: str
    generation: int
    status: Status
    attempts: int
    error: str | None
    queued_at: datetime
    at: datetime


async def find_notification(tx: Transaction, notification_id: str) -> NotificationRow | None:
    row = (await tx.connection.execute(_select().where(notifications.c.id == notification_id))).first()
    return None if row is None else _notification(row)


async def list_notifications(
    tx: Transaction, *, status: Status | None, user_id: str | None, after: tuple[datetime, str] | None, limit: int
) -> Sequence[NotificationRow]:
    """The newest first, from behind ``after`` (a mail's ``queued_at`` and id) on."""
    age = tuple_(notifications.c.queued_at, notifications.c.id)
    query = _select().order_by(notifications.c.queued_at.desc(), notifications.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(notifications.c.status == status)
    if user_id is not None:
        query = query.where(notifications.c.user_id == user_id)
    if after is not None:
        query = query.where(age < after)
    return [_notification(row) for row in await tx.connection.execute(query)]


async def find_due(tx: Transaction, *, without: Sequence[str]) -> NotificationRow | None:
    """The mail that has been due for longest, of those that nobody has in hand."""
    due = and_(_is_queued, notifications.c.due_at <= tx.now, notifications.c.id.not_in(without))
    row = (await tx.connection.execute(_select().where(due).order_by(notifications.c.due_at).limit(1))).first()
    return None if row is None else _notification(row)


async def list_handed_over_before(tx: Transaction, before: datetime) -> Sequence[str]:
    """Mails of which nobody has said for so long what became of them."""
    lost = and_(_is_queued, notifications.c.handed_over_at < before)
    return (await tx.connection.execute(select(notifications.c.id).where(lost).order_by("id"))).scalars().all()


async def list_queued_about(
    tx: Transaction, *, ref: str | None = None, user_id: str | None = None, before_generation: int | None = None
) -> Sequence[str]:
    """Mails not sent yet about an invitation (its links before a generation), or to a user."""
    about = or_(notifications.c.ref == ref, notifications.c.user_id == user_id)
    query = select(notifications.c.id).where(_is_queued, about).order_by(notifications.c.id)
    if before_generation is not None:
        query = query.where(notifications.c.generation < before_generation)
    return (await tx.connection.execute(query)).scalars().all()


def _select() -> Select[Any]:
    hidden = ("due_at", "handed_over_at")
    return select(*(column for column in notifications.c if column.name not in hidden))


def _notification(row: Row[Any]) -> NotificationRow:
    return NotificationRow(**row._mapping)
