"""Identity's commands: what is looked up, drawn and stamped before a decision; for routes, events and time."""

import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.identity import credentials, read_model, sealing
from services.identity.domain.session import SESSION, Ending, EndSession, Method, StartSession
from services.identity.domain.session import stream_of as session_stream
from services.identity.domain.user import (
    DEFAULT_USER_ID,
    USER,
    CreateUser,
    DeleteUser,
    SetPassword,
    UpdateUser,
    UserExists,
    UserUnknown,
)
from services.identity.domain.user import stream_of as user_stream
from services.identity.events import FirstKey, Role, UserLimits, WantedInvitation
from services.identity.settings import IdentitySettings
from shared import session_token
from shared.durations import parse_duration
from shared.errors import Refused
from shared.event_store import Transaction
from shared.secret import draw_session

# How often "last seen" is written down, at most: often enough for an idle time of hours.
SEEN_EVERY = timedelta(seconds=30)
USER_AGENT_LENGTH_MAX = 512


class DuplicateEmail(Refused):
    reason = "duplicate_email"


class ClaimOvertaken(Refused):
    reason = "invitation_used"


class CredentialsWrong(Refused):
    reason = "credentials_wrong"


def credentials_wrong() -> Refused:
    """One answer for an unknown name and a wrong password."""
    return CredentialsWrong("the user name or the password is wrong", param="invalid_credentials")


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made, defaults filled in."""

    user_id: str
    role: Role
    email: str | None
    alias: str | None
    limits: UserLimits
    metadata: dict[str, Any] = field(default_factory=dict)
    first_key: FirstKey | None = None
    invitation: WantedInvitation | None = None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Where a log-in comes from. ``source``: what it counts on if it fails; None if it counts on nothing."""

    ip: str | None
    user_agent: str | None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class StartedSession:
    """``secret`` is the session itself: it is in the answer that made it, and nowhere else."""

    secret: str
    session_id: str
    user_id: str
    role: str
    email: str | None
    expires_at: datetime


async def create_user(tx: Transaction, user: NewUser) -> None:
    """Make a user. It is answered when those have been who make what comes with them: a first key, an invitation."""
    settings: IdentitySettings = tx.settings
    tx.carried_out_by |= {"keys"} if user.first_key else set()
    tx.carried_out_by |= {"invitations"} if user.invitation else set()
    # Without one there is such a user already: the decision refuses, and nothing is sealed.
    key = await sealing.make_key(tx, settings.keyring, user.user_id)
    claims = _email_claims(settings, user.email)
    await tx.execute(
        user_stream(user.user_id),
        USER,
        CreateUser(
            user_id=user.user_id,
            role=user.role,
            sealed_email=sealing.seal(key, user.email, "email") if key else None,
            sealed_alias=sealing.seal(key, user.alias, "alias") if key else None,
            limits=user.limits,
            metadata=user.metadata,
            first_key=user.first_key,
            now=tx.now,
            invitation=user.invitation,
        ),
        claims=claims,
    )


async def ensure_default_user(tx: Transaction) -> None:
    """The master key's user exists from the first start (D11)."""
    if await read_model.find_user(tx, DEFAULT_USER_ID) is None:
        with suppress(UserExists):  # another replica, started at the same moment, was first
            await create_user(tx, NewUser(DEFAULT_USER_ID, "proxy_admin", None, None, UserLimits()))


async def update_user(
    tx: Transaction,
    user_id: str,
    *,
    role: Role,
    email: str | None,
    alias: str | None,
    limits: UserLimits,
    metadata: dict[str, Any],
) -> None:
    """Bring a user to what is given; what is as it was is left alone."""
    settings: IdentitySettings = tx.settings
    before = await read_model.find_user(tx, user_id)
    if before is None:
        raise UserUnknown("user_id: there is no such user", param="user_id")
    state, _ = await tx.load(user_stream(user_id), USER)
    key = await sealing.find_key(tx, settings.keyring, user_id)
    assert key is not None, "a user that is there has a sealing key"
    changed = email != before.email
    tx.barriers.add(user_stream(user_id))
    await tx.execute(
        user_stream(user_id),
        USER,
        UpdateUser(
            user_id=user_id,
            role=role,
            sealed_email=sealing.seal(key, email, "email") if changed else state.sealed_email,
            sealed_alias=sealing.seal(key, alias, "alias") if alias != before.alias else state.sealed_alias,
            limits=limits,
            metadata=metadata,
            now=tx.now,
        ),
        claims=_email_claims(settings, email) if changed else {},
        releases=list(_email_claims(settings, before.email)) if changed else [],
    )


async def delete_user(tx: Transaction, user_id: str) -> None:
    """Delete a user, and at once their sessions, credentials, keys and open invitations. Their spend stays."""
    settings: IdentitySettings = tx.settings
    user = await read_model.find_user_to_change(tx, user_id=user_id)
    tx.barriers.add(user_stream(user_id))
    tx.carried_out_by |= {"invitations", "keys"}
    if user is None:
        raise UserUnknown(f"user_ids: there is no user {user_id!r}", param="user_ids")
    releases = list(_email_claims(settings, user.email))
    await tx.execute(user_stream(user_id), USER, DeleteUser(user_id, tx.now), releases=releases)
    await end_sessions(tx, user_id, "user_deleted")
    await credentials.drop(tx, user_id)


async def start_session(
    tx: Transaction, user_id: str, *, role: str, email: str | None, method: Method, visitor: Visitor
) -> StartedSession:
    settings: IdentitySettings = tx.settings
    secret, session_id = draw_session(), str(uuid.uuid4())
    expires_at = parse_duration(settings.session_duration).after(tx.now)
    key = await sealing.find_key(tx, settings.keyring, user_id)
    assert key is not None, "a user that is there has a sealing key"
    agent = visitor.user_agent[:USER_AGENT_LENGTH_MAX] if visitor.user_agent else None
    await tx.execute(
        session_stream(session_id),
        SESSION,
        StartSession(
            session_id=session_id,
            user_id=user_id,
            token=session_token.hash_of(secret),
            method=method,
            sealed_ip=sealing.seal(key, visitor.ip, "ip"),
            sealed_user_agent=sealing.seal(key, agent, "user_agent"),
            expires_at=expires_at,
            now=tx.now,
        ),
    )
    await mark_seen(tx, session_id)
    return StartedSession(secret, session_id, user_id, role, email, expires_at)


async def end_session(tx: Transaction, session_id: str, reason: Ending) -> None:
    tx.barriers.add(session_stream(session_id))
    await _end(tx, session_id, reason)


async def end_sessions(tx: Transaction, user_id: str, reason: Ending) -> None:
    for session_id in await read_model.active_sessions(tx, user_id):
        await end_session(tx, session_id, reason)


async def _end(tx: Transaction, session_id: str, reason: Ending) -> None:
    await tx.execute(session_stream(session_id), SESSION, EndSession(session_id, reason, tx.now))
    await tx.connection.exec_driver_sql("delete from session_activity where session_id = $1", (session_id,))


async def log_in(
    tx: Transaction, user_id: str, *, password_hash: str | None, method: Method, visitor: Visitor
) -> StartedSession:
    """Start a session for a user whose password was found right, if it still is the one that was checked."""
    user = await read_model.find_user(tx, user_id, lock=True)
    if user is None:
        raise credentials_wrong()
    if password_hash is not None and await credentials.find_hash(tx, user_id, lock=True) != password_hash:
        raise credentials_wrong()
    return await start_session(tx, user_id, role=user.role, email=user.email, method=method, visitor=visitor)


async def activate_password(tx: Transaction, claim_id: str, user_id: str, accepted_position: int) -> None:
    """An invitation was accepted: its password is in force, once, and everything the user had open is ended."""
    user = await read_model.find_user(tx, user_id, lock=True)
    if user is None or not await credentials.activate(tx, claim_id, accepted_position):
        return
    await tx.execute(user_stream(user_id), USER, SetPassword(user_id, claim_id, tx.now))
    await end_sessions(tx, user_id, "password_set")


async def claim(
    tx: Transaction, *, claim_id: str, user_id: str, accepted_position: int, visitor: Visitor
) -> StartedSession:
    """The invited's own answer: the password in force, and a session.

    Not for one who is so late that another invitation was accepted since: that ended all that came before it.
    """
    await activate_password(tx, claim_id, user_id, accepted_position)
    user = await read_model.find_user(tx, user_id, lock=True)
    if user is None or await credentials.find_accepted_position(tx, user_id) != accepted_position:
        raise ClaimOvertaken("another invitation was accepted since, or the user was deleted")
    return await start_session(tx, user_id, role=user.role, email=user.email, method="invitation", visitor=visitor)


async def mark_seen(tx: Transaction, session_id: str) -> None:
    await tx.connection.exec_driver_sql(
        "insert into session_activity (session_id, last_seen_at) values ($1, $2) on conflict (session_id)"
        " do update set last_seen_at = excluded.last_seen_at where session_activity.last_seen_at < $3",
        (session_id, tx.now, tx.now - SEEN_EVERY),
    )


async def idle_until(tx: Transaction, session_id: str, started_at: datetime) -> datetime:
    """When an unused session ends."""
    row = await tx.connection.exec_driver_sql(
        "select last_seen_at from session_activity where session_id = $1", (session_id,)
    )
    settings: IdentitySettings = tx.settings
    return parse_duration(settings.session_idle_timeout).after(row.scalar() or started_at)


def idle_since(settings: IdentitySettings, now: datetime) -> datetime:
    """Sessions that were last seen then are over."""
    return now - (parse_duration(settings.session_idle_timeout).after(now) - now)


async def expire_sessions(tx: Transaction, limit: int) -> int:
    """Say of sessions whose time is over, or that nobody uses, that they ended. The clock refuses them before that."""
    over = await read_model.sessions_over(tx, idle_since=idle_since(tx.settings, tx.now), limit=limit)
    for session_id in over:
        await _end(tx, session_id, "expired")
    return len(over)


def _email_claims(settings: IdentitySettings, email: str | None) -> dict[str, Refused]:
    if email is None:
        return {}
    taken = DuplicateEmail("user_email: there is a user with this address already", param="user_email")
    return {sealing.email_claim(settings.keyring, email): taken}
