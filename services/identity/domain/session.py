"""A session: started by a log-in or a claimed invitation, ended once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.identity.events import SessionEnded, SessionStarted
from shared.aggregate import Aggregate

SessionEvent = SessionStarted | SessionEnded
Method = Literal["password", "invitation", "sso"]
Ending = Literal["logged_out", "expired", "password_set", "user_deleted", "ended_by_admin"]


@dataclass(frozen=True, slots=True)
class Session:
    user_id: str = ""
    token: str = ""
    active: bool = False


@dataclass(frozen=True, slots=True)
class StartSession:
    session_id: str
    user_id: str
    token: str
    method: Method
    sealed_ip: str | None
    sealed_user_agent: str | None
    expires_at: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class EndSession:
    session_id: str
    reason: Ending
    now: datetime


def decide(session: Session, command: StartSession | EndSession) -> Sequence[SessionEvent]:
    match command:
        case StartSession() if session.token:
            return []  # started is started, and one that ended stays so
        case StartSession():
            return [
                SessionStarted(
                    session_id=command.session_id,
                    user_id=command.user_id,
                    token=command.token,
                    method=command.method,
                    sealed_ip=command.sealed_ip,
                    sealed_user_agent=command.sealed_user_agent,
                    started_at=command.now,
                    expires_at=command.expires_at,
                )
            ]
        case EndSession() if not session.active:
            return []  # ended twice is ended
        case EndSession(session_id, reason, now):
            return [
                SessionEnded(
                    session_id=session_id, user_id=session.user_id, token=session.token, reason=reason, ended_at=now
                )
            ]


def evolve(session: Session, event: SessionEvent) -> Session:
    match event:
        case SessionStarted():
            return Session(event.user_id, event.token, active=True)
        case SessionEnded():
            return Session(session.user_id, session.token, active=False)


SESSION = Aggregate(Session(), decide, evolve)


def stream_of(session_id: str) -> str:
    return f"session-{session_id}"
