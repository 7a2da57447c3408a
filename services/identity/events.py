"""What identity publishes. These shapes are stored for ever: add a version, never change one.

What identifies a person is sealed (``sealed_…``) under a key of that user's own, which only identity holds.
"""

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from shared.events import Catalog, Event

Role = Literal["proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer"]


class FirstKey(BaseModel):
    """A key that keys makes for a new user: known by its hash; who answered the client drew it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    token: str
    key_name: str


class WantedInvitation(BaseModel):
    """An invitation that invitations makes for a new user, under the ``ref`` that the client was told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: str
    send_email: bool


class UserLimits(BaseModel):
    """What a user may spend and use with personal keys. Money in nano-USD; null is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] = ()
    max_budget_nano_usd: int | None = None
    budget_duration: str | None = None
    budget_set_at: datetime | None = None
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    max_parallel_requests: int | None = None


class UserCreated(Event):
    """A user, with what others are to make for them: a first key, an invitation."""

    schema_version: ClassVar[int] = 2

    user_id: str
    sealed_email: str | None
    sealed_alias: str | None
    role: Role
    limits: UserLimits
    metadata: dict[str, Any]
    first_key: FirstKey | None
    created_at: datetime
    invitation: WantedInvitation | None = None


class UserUpdated(Event):
    """Everything of a user but the role, as it is from now on."""

    user_id: str
    sealed_email: str | None
    sealed_alias: str | None
    limits: UserLimits
    metadata: dict[str, Any]
    updated_at: datetime


class UserRoleChanged(Event):
    """The role that holds from now on, for running sessions and keys too."""

    user_id: str
    role: Role
    updated_at: datetime


class UserDeleted(Event):
    """The user is gone, and all that was theirs goes with them."""

    user_id: str
    deleted_at: datetime


class PasswordSet(Event):
    """A password is in force. ``claim_id`` names the accepted invitation's claim; no hash is ever in an event."""

    user_id: str
    claim_id: str | None
    set_at: datetime


class SessionStarted(Event):
    """A session, known by ``session_id``; ``token`` is its hash. Address and user agent are sealed."""

    session_id: str
    user_id: str
    token: str
    method: Literal["password", "invitation", "sso"]
    sealed_ip: str | None
    sealed_user_agent: str | None
    started_at: datetime
    expires_at: datetime


class SessionEnded(Event):
    """The session opens nothing any more."""

    session_id: str
    user_id: str
    token: str
    reason: Literal["logged_out", "expired", "password_set", "user_deleted", "ended_by_admin"]
    ended_at: datetime


def _without_invitation(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 of UserCreated knew no invitations."""
    return {**data, "invitation": None}


CATALOG = Catalog(
    "identity",
    UserCreated,
    UserUpdated,
    UserRoleChanged,
    UserDeleted,
    PasswordSet,
    SessionStarted,
    SessionEnded,
    upcasters={("UserCreated", 1): _without_invitation},
)
