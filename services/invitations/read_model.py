"""What invitations reads: each invitation as it stands, and of each user whether they have an e-mail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    exists,
    select,
    tuple_,
)

from services.identity.events import UserCreated, UserDeleted, UserUpdated
from services.invitations.events import (
    InvitationAccepted,
    InvitationCreated,
    InvitationExpired,
    InvitationResent,
    InvitationRevoked,
)
from services.notifications.events import NotificationSent
from shared.event_store import Transaction
from shared.events import Event
from shared.projections import Projection, upsert

METADATA = MetaData()

Status = Literal["open", "accepted", "expired", "revoked"]

invitations = Table(
    "invitations_1",
    METADATA,
    Column("ref", Text, primary_key=True),
    Column("user_id", Text, nullable=False, index=True),
    Column("id_hash", Text, nullable=False, unique=True),
    Column("generation", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("accepted_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("updated_by", Text, nullable=False),
)
_is_open = invitations.c.status == "open"
Index("invitations_1_by_age", invitations.c.created_at, invitations.c.ref)
Index("invitations_1_open", invitations.c.expires_at, postgresql_where=_is_open)

users = Table(
    "users_1",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("has_email", Boolean, nullable=False),
)

mailed = Table(
    "mailed_1",
    METADATA,
    Column("ref", Text, primary_key=True),
    Column("generation", Integer, primary_key=True),
)


async def project_invitation(tx: Transaction, event: Event) -> None:
    """Only rows of the event's own stream change."""
    match event:
        case InvitationCreated(ref=ref, created_at=at, created_by=by):
            values = {
                "user_id": event.user_id,
                "id_hash": event.id_hash,
                "generation": event.generation,
                "status": "open",
                "accepted_at": None,
                "expires_at": event.expires_at,
                "created_at": at,
                "created_by": by,
            }
            await tx.connection.execute(upsert(invitations, {"ref": ref}, values | _updated(at, by)))
        case InvitationResent(ref=ref, resent_at=at, resent_by=by):
            link = {"id_hash": event.id_hash, "generation": event.generation, "expires_at": event.expires_at}
            await _change(tx, ref, {"status": "open"} | link | _updated(at, by))
        case InvitationAccepted(ref=ref, accepted_at=at, user_id=by):
            await _change(tx, ref, {"status": "accepted", "accepted_at": at} | _updated(at, by))
        case InvitationRevoked(ref=ref, revoked_at=at, revoked_by=by):
            await _change(tx, ref, {"status": "revoked"} | _updated(at, by))
        case InvitationExpired(ref=ref):
            # Nobody did that, and by the clock it was so before: whoever reads the invitation sees no change.
            await _change(tx, ref, {"status": "expired"})
        case _:
            pass


def _updated(at: datetime, by: str) -> dict[str, object]:
    return {"updated_at": at, "updated_by": by}


async def _change(tx: Transaction, ref: str, values: dict[str, object]) -> None:
    await tx.connection.execute(invitations.update().where(invitations.c.ref == ref).values(values))


async def project_user(tx: Transaction, event: Event) -> None:
    """No row, no user: one that was deleted is as unknown as one that never was."""
    match event:
        case UserCreated() | UserUpdated():
            has_email = event.sealed_email is not None
            await tx.connection.execute(upsert(users, {"user_id": event.user_id}, {"has_email": has_email}))
        case UserDeleted():
            await tx.connection.execute(users.delete().where(users.c.user_id == event.user_id))
        case _:
            pass


async def project_mailed(tx: Transaction, event: Event) -> None:
    """In rows of their own: the two logs interleave as they please."""
    match event:
        case NotificationSent(kind="invitation"):
            key = {"ref": event.ref, "generation": event.generation}
            await tx.connection.execute(upsert(mailed, key, {}))
        case _:
            pass


INVITATIONS = Projection("invitations", "invitations", (invitations,), project_invitation)
USERS = Projection("users", "identity", (users,), project_user)
MAILED = Projection("mailed", "notifications", (mailed,), project_mailed)


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An invitation as it stands, its status by the clock of whoever looked."""

    ref: str
    user_id: str
    generation: int
    status: Status
    accepted_at: datetime | None
    expires_at: datetime
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    email_sent: bool


async def find_invitation(tx: Transaction, ref: str) -> InvitationRow | None:
    return await _find(tx, invitations.c.ref == ref)


async def find_invitation_by_link(tx: Transaction, id_hash: str) -> InvitationRow | None:
    """None, too, for a link that was taken back: it is as if it had never been (§3.5)."""
    return await _find(tx, and_(invitations.c.id_hash == id_hash, invitations.c.status != "revoked"))


async def list_invitations(
    tx: Transaction,
    *,
    status: Status | None,
    user_id: str | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> Sequence[InvitationRow]:
    """The newest first, from behind ``after`` (an invitation's ``created_at`` and ref) on."""
    age = tuple_(invitations.c.created_at, invitations.c.ref)
    query = _select_at(tx.now).order_by(invitations.c.created_at.desc(), invitations.c.ref.desc()).limit(limit)
    if status is not None:
        query = query.where(_status_at(tx.now) == status)
    if user_id is not None:
        query = query.where(invitations.c.user_id == user_id)
    if after is not None:
        query = query.where(age < after)
    return [_invitation(row) for row in await tx.connection.execute(query)]


async def list_open_refs(tx: Transaction, user_id: str) -> Sequence[str]:
    """The user's open invitations, some of which may be over by the clock; locked until the commit.

    Whoever changes several locks them in the order of their refs: so of two one waits, and not each for the other.
    """
    query = select(invitations.c.ref).where(invitations.c.user_id == user_id, _is_open).order_by(invitations.c.ref)
    return (await tx.connection.execute(query.with_for_update())).scalars().all()


async def list_due_refs(tx: Transaction, limit: int) -> Sequence[str]:
    """Those that have been over by the clock for longest and are by no event yet; in the order of their refs, too."""
    due = and_(_is_open, invitations.c.expires_at <= tx.now)
    query = select(invitations.c.ref).where(due).order_by(invitations.c.expires_at).limit(limit)
    return sorted((await tx.connection.execute(query)).scalars())


async def find_user(tx: Transaction, user_id: str) -> Row[Any] | None:
    """The user's row, locked for share: a deletion waits for us, and then finds what we made (design §3)."""
    rows = await tx.connection.execute(select(users).where(users.c.user_id == user_id).with_for_update(read=True))
    return rows.first()


async def _find(tx: Transaction, condition: ColumnElement[bool]) -> InvitationRow | None:
    row = (await tx.connection.execute(_select_at(tx.now).where(condition))).first()
    return None if row is None else _invitation(row)


def _status_at(now: datetime) -> ColumnElement[str]:
    over = and_(_is_open, invitations.c.expires_at <= now)
    return case((over, "expired"), else_=invitations.c.status)


def _select_at(now: datetime) -> Select[Any]:
    columns = [column for column in invitations.c if column.name not in ("status", "id_hash")]
    of_this_link = and_(mailed.c.ref == invitations.c.ref, mailed.c.generation == invitations.c.generation)
    return select(*columns, _status_at(now).label("status"), exists().where(of_this_link).label("email_sent"))


def _invitation(row: Row[Any]) -> InvitationRow:
    return InvitationRow(**row._mapping)
