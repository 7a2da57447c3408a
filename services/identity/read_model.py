"""What identity reads: users in clear text (the only place where it is), their sessions, and their spend."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    MetaData,
    Row,
    Table,
    Text,
    case,
    column,
    func,
    or_,
    select,
    table,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import ColumnElement

from services.budgets.events import SpendTotalsPublished
from services.identity import sealing
from services.identity.events import (
    SessionEnded,
    SessionStarted,
    UserCreated,
    UserDeleted,
    UserLimits,
    UserRoleChanged,
    UserUpdated,
)
from shared.event_store import Transaction
from shared.events import Event
from shared.projections import Projection, upsert

METADATA = MetaData()

users = Table(
    "users_1",
    METADATA,
    Column("user_id", Text, primary_key=True),
    # That no two have the same is for the claims to see to: they can say so.
    Column("email", Text, index=True),
    Column("alias", Text),
    Column("role", Text, nullable=False),
    Column("limits", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, index=True),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

sessions = Table(
    "sessions_1",
    METADATA,
    Column("session_id", Text, primary_key=True),
    Column("user_id", Text, nullable=False, index=True),
    Column("token", Text, nullable=False, unique=True),
    Column("method", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("ended", Boolean, nullable=False),
)

# Where a session was started from, under the key of its user, while it lasts.
session_visitors = Table(
    "session_visitors_1",
    METADATA,
    Column("session_id", Text, primary_key=True),
    Column("sealed_ip", Text),
    Column("sealed_user_agent", Text),
)

# Not built from the log: using a session is no event.
activity = table("session_activity", column("session_id", Text), column("last_seen_at", DateTime(timezone=True)))

spend = Table(
    "spend_1",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("window_end", DateTime(timezone=True)),
    Column("window_spent_nano_usd", BigInteger, nullable=False),
    Column("total_spent_nano_usd", BigInteger, nullable=False),
)


async def project_user(tx: Transaction, event: Event) -> None:
    match event:
        case UserCreated():
            await tx.connection.execute(
                upsert(
                    users,
                    {"user_id": event.user_id},
                    await _clear(tx, event)
                    | {
                        "role": event.role,
                        "deleted": False,
                        "created_at": event.created_at,
                        "updated_at": event.created_at,
                    },
                )
            )
        case UserUpdated():
            changed = await _clear(tx, event) | {"updated_at": event.updated_at}
            await tx.connection.execute(users.update().where(users.c.user_id == event.user_id).values(changed))
        case UserRoleChanged():
            changed = {"role": event.role, "updated_at": event.updated_at}
            await tx.connection.execute(users.update().where(users.c.user_id == event.user_id).values(changed))
        case UserDeleted():
            # The address is free again; who it was stays under the id, sealed in the events.
            gone: dict[str, Any] = {"deleted": True, "email": None, "updated_at": event.deleted_at}
            await tx.connection.execute(users.update().where(users.c.user_id == event.user_id).values(gone))
        case _:
            pass


async def _clear(tx: Transaction, event: UserCreated | UserUpdated) -> dict[str, Any]:
    key = await sealing.find_key(tx, tx.settings.keyring, event.user_id)
    return {
        "email": sealing.unseal(key, event.sealed_email, "email"),
        "alias": sealing.unseal(key, event.sealed_alias, "alias"),
        "limits": event.limits.model_dump(mode="json"),
        "metadata": event.metadata,
    }


async def project_session(tx: Transaction, event: Event) -> None:
    match event:
        case SessionStarted():
            values = {
                "user_id": event.user_id,
                "token": event.token,
                "method": event.method,
                "started_at": event.started_at,
                "expires_at": event.expires_at,
                "ended": False,
            }
            await tx.connection.execute(upsert(sessions, {"session_id": event.session_id}, values))
            sealed = {"sealed_ip": event.sealed_ip, "sealed_user_agent": event.sealed_user_agent}
            await tx.connection.execute(upsert(session_visitors, {"session_id": event.session_id}, sealed))
        case SessionEnded():
            ended = sessions.update().where(sessions.c.session_id == event.session_id).values(ended=True)
            await tx.connection.execute(ended)
            visitor = session_visitors.c.session_id == event.session_id
            await tx.connection.execute(session_visitors.delete().where(visitor))
        case _:
            pass


async def project_spend(tx: Transaction, event: Event) -> None:
    if not isinstance(event, SpendTotalsPublished):
        return
    for total in event.totals:
        kind, _, user_id = total.scope.partition(":")
        if kind == "user":
            values = {
                "window_end": total.window_end,
                "window_spent_nano_usd": total.window_spent_nano_usd,
                "total_spent_nano_usd": total.total_spent_nano_usd,
            }
            await tx.connection.execute(upsert(spend, {"user_id": user_id}, values))


USERS = Projection("users", "identity", (users,), project_user)
SESSIONS = Projection("sessions", "identity", (sessions, session_visitors), project_session)
SPEND = Projection("spend", "budgets", (spend,), project_spend)


def limits_of(row: Row[Any]) -> UserLimits:
    return UserLimits.model_validate(row.limits)


_user_with_spend = select(users, spend.c.window_end, spend.c.window_spent_nano_usd, spend.c.total_spent_nano_usd).join(
    spend, spend.c.user_id == users.c.user_id, isouter=True
)


async def find_user(tx: Transaction, user_id: str, *, lock: bool = False) -> Row[Any] | None:
    """A user that is not deleted. ``lock``: a deletion waits for us, and then finds what we started (design §3)."""
    query = _user_with_spend.where(users.c.user_id == user_id, ~users.c.deleted)
    rows = await tx.connection.execute(query.with_for_update(read=True, of=users) if lock else query)
    return rows.first()


async def find_user_to_change(
    tx: Transaction, *, user_id: str | None = None, email: str | None = None
) -> Row[Any] | None:
    """A user that is not deleted, by id or else by address, who stays as they are until we have changed them.

    What is kept of a user is decided here, before their stream is loaded: its version alone would not tell.
    """
    named = users.c.email == email if user_id is None else users.c.user_id == user_id
    query = _user_with_spend.where(named, ~users.c.deleted)
    return (await tx.connection.execute(query.with_for_update(key_share=True, of=users))).first()


async def find_user_by_email(tx: Transaction, email: str) -> Row[Any] | None:
    rows = await tx.connection.execute(_user_with_spend.where(users.c.email == email, ~users.c.deleted))
    return rows.first()


async def list_users(
    tx: Transaction,
    *,
    role: str | None,
    user_ids: Sequence[str],
    email_part: str | None,
    search: str | None,
    sort_by: str,
    descending: bool,
    page: int,
    page_size: int,
) -> tuple[Sequence[Row[Any]], int]:
    """One page, and how many there are in all."""
    conditions: list[ColumnElement[bool]] = [~users.c.deleted]
    if role is not None:
        conditions.append(users.c.role == role)
    if user_ids:
        conditions.append(users.c.user_id.in_(user_ids))
    if email_part is not None:
        conditions.append(users.c.email.contains(email_part.lower(), autoescape=True))
    if search is not None:
        part = search.lower()
        conditions.append(
            or_(
                func.lower(users.c.user_id).contains(part, autoescape=True),
                users.c.email.contains(part, autoescape=True),
            )
        )
    in_window = or_(spend.c.window_end.is_(None), spend.c.window_end > tx.now)
    column: ColumnElement[Any] = {
        "created_at": users.c.created_at,
        "user_id": users.c.user_id,
        "user_email": users.c.email,
        "spend": case((in_window, func.coalesce(spend.c.window_spent_nano_usd, 0)), else_=0),
    }[sort_by]
    order = column.desc().nulls_last() if descending else column.asc().nulls_last()
    total = (await tx.connection.execute(select(func.count()).select_from(users).where(*conditions))).scalar_one()
    rows = await tx.connection.execute(
        _user_with_spend.where(*conditions)
        .order_by(order, users.c.user_id)
        .limit(page_size)
        .offset((page - 1) * page_size)
    )
    return rows.all(), total


async def emails_of(tx: Transaction, user_ids: Sequence[str]) -> dict[str, str]:
    rows = await tx.connection.execute(
        select(users.c.user_id, users.c.email).where(users.c.user_id.in_(user_ids), users.c.email.is_not(None))
    )
    return {row.user_id: row.email for row in rows}


async def active_sessions(tx: Transaction, user_id: str) -> Sequence[str]:
    rows = await tx.connection.execute(
        select(sessions.c.session_id).where(sessions.c.user_id == user_id, ~sessions.c.ended).order_by("session_id")
    )
    return [row.session_id for row in rows]


async def find_session(tx: Transaction, token: str) -> Row[Any] | None:
    """A session that was not ended; it may have expired."""
    rows = await tx.connection.execute(select(sessions).where(sessions.c.token == token, ~sessions.c.ended))
    return rows.first()


async def find_session_by_id(tx: Transaction, session_id: str) -> Row[Any] | None:
    """A session by what it is known as; it may have ended."""
    rows = await tx.connection.execute(select(sessions).where(sessions.c.session_id == session_id))
    return rows.first()


_last_seen_at = func.coalesce(activity.c.last_seen_at, sessions.c.started_at).label("last_seen_at")


async def list_sessions(
    tx: Transaction, *, idle_since: datetime, user_id: str | None, after: tuple[datetime, str] | None, limit: int
) -> Sequence[Row[Any]]:
    """Those that go on, the newest first, from behind ``after`` (a start and an id) on."""
    query = (
        select(sessions, _last_seen_at, session_visitors.c.sealed_ip, session_visitors.c.sealed_user_agent)
        .join(activity, activity.c.session_id == sessions.c.session_id, isouter=True)
        .join(session_visitors, session_visitors.c.session_id == sessions.c.session_id, isouter=True)
        .where(~sessions.c.ended, sessions.c.expires_at > tx.now, _last_seen_at > idle_since)
        .order_by(sessions.c.started_at.desc(), sessions.c.session_id.desc())
        .limit(limit)
    )
    if user_id is not None:
        query = query.where(sessions.c.user_id == user_id)
    if after is not None:
        query = query.where(tuple_(sessions.c.started_at, sessions.c.session_id) < after)
    return (await tx.connection.execute(query)).all()


async def sessions_over(tx: Transaction, *, idle_since: datetime, limit: int) -> Sequence[str]:
    """Sessions past their end, or not used since ``idle_since``, whose end is no event yet."""
    idle = select(activity.c.session_id).where(activity.c.last_seen_at <= idle_since)
    rows = await tx.connection.execute(
        select(sessions.c.session_id)
        .where(~sessions.c.ended, or_(sessions.c.expires_at <= tx.now, sessions.c.session_id.in_(idle)))
        .order_by(sessions.c.session_id)
        .limit(limit)
    )
    return [row.session_id for row in rows]
