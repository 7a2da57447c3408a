"""What others may ask identity now."""

from datetime import datetime

from pydantic import BaseModel

from services.identity.events import Role
from shared.requests import Found, Question


class FindUser(Question):
    """Who is this user now?"""

    user_id: str


class FoundUser(Found):
    """A user as the gateway needs them. ``exists`` is false for one unknown or deleted; then the rest is empty.

    ``position`` is identity's last position when it looked.
    """

    user_id: str
    role: Role | None = None
    models: tuple[str, ...] = ()
    max_budget_nano_usd: int | None = None


class FindSession(Question):
    """Whose session has this hash? Asking counts as having been seen."""

    token: str


class FoundSession(Found):
    """``exists`` is false for a session unknown, ended or expired."""

    session_id: str = ""
    user_id: str = ""
    expires_at: datetime | None = None
    idle_until: datetime | None = None


class OpenEmails(Question):
    """What are these users' e-mail addresses? For showing, never for keeping."""

    user_ids: tuple[str, ...]


class OpenedEmails(BaseModel):
    """By user id; users without an address, or unknown, are left out."""

    emails: dict[str, str]
