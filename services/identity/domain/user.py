"""A user: created once, changed by admins (the alias by themselves), deleted for good."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from services.identity.events import (
    FirstKey,
    PasswordSet,
    Role,
    UserCreated,
    UserDeleted,
    UserLimits,
    UserRoleChanged,
    UserUpdated,
    WantedInvitation,
)
from shared.aggregate import Aggregate
from shared.errors import Refused

# The master key's user. It is there from the first start, has no e-mail, and its role is what the master key is for.
DEFAULT_USER_ID = "default_user_id"

UserEvent = UserCreated | UserUpdated | UserRoleChanged | UserDeleted | PasswordSet


class Life(Enum):
    ABSENT, ACTIVE, DELETED = range(3)


@dataclass(frozen=True, slots=True)
class User:
    """What deciding needs to know. E-mail and alias are sealed here too: equal only if they were left alone."""

    life: Life = Life.ABSENT
    role: Role = "internal_user_viewer"
    sealed_email: str | None = None
    sealed_alias: str | None = None
    limits: UserLimits = field(default_factory=UserLimits)
    metadata: dict[str, Any] = field(default_factory=dict)
    claim_ids: frozenset[str] = frozenset()


class UserExists(Refused):
    reason = "duplicate_user_id"


class UserUnknown(Refused):
    reason = "not_found"


class UserHasNoEmail(Refused):
    reason = "user_has_no_email"


class DefaultUserIsFixed(Refused):
    reason = "out_of_range"


@dataclass(frozen=True, slots=True)
class CreateUser:
    user_id: str
    role: Role
    sealed_email: str | None
    sealed_alias: str | None
    limits: UserLimits
    metadata: dict[str, Any]
    first_key: FirstKey | None
    now: datetime
    invitation: WantedInvitation | None = None


@dataclass(frozen=True, slots=True)
class UpdateUser:
    """Everything of a user as it is to be."""

    user_id: str
    role: Role
    sealed_email: str | None
    sealed_alias: str | None
    limits: UserLimits
    metadata: dict[str, Any]
    now: datetime


@dataclass(frozen=True, slots=True)
class DeleteUser:
    user_id: str
    now: datetime


@dataclass(frozen=True, slots=True)
class SetPassword:
    """``claim_id`` names an accepted invitation's claim: that one sets a password once."""

    user_id: str
    claim_id: str | None
    now: datetime


UserCommand = CreateUser | UpdateUser | DeleteUser | SetPassword


def decide(user: User, command: UserCommand) -> Sequence[UserEvent]:
    match command:
        case CreateUser():
            return _create(user, command)
        case DeleteUser(user_id=user_id) if user_id == DEFAULT_USER_ID:
            raise DefaultUserIsFixed("user_ids: the master key's user can't be deleted", param="user_ids")
        case DeleteUser() if user.life is Life.DELETED:
            return []
        case SetPassword(claim_id=claim_id) if claim_id is not None and claim_id in user.claim_ids:
            return []
        case _ if user.life is not Life.ACTIVE:
            raise UserUnknown("user_id: there is no such user", param="user_id")
        case DeleteUser(user_id, now):
            return [UserDeleted(user_id=user_id, deleted_at=now)]
        case SetPassword(user_id, claim_id, now):
            return [PasswordSet(user_id=user_id, claim_id=claim_id, set_at=now)]
        case UpdateUser():
            return _update(user, command)


def _create(user: User, command: CreateUser) -> Sequence[UserEvent]:
    if user.life is not Life.ABSENT:
        raise UserExists("user_id: there is such a user already, or was", param="user_id")
    if command.invitation is not None and command.sealed_email is None:
        raise UserHasNoEmail("user_email: who is to be invited needs one to log in with", param="user_email")
    return [
        UserCreated(
            user_id=command.user_id,
            sealed_email=command.sealed_email,
            sealed_alias=command.sealed_alias,
            role=command.role,
            limits=command.limits,
            metadata=command.metadata,
            first_key=command.first_key,
            created_at=command.now,
            invitation=command.invitation,
        )
    ]


def _update(user: User, command: UpdateUser) -> Sequence[UserEvent]:
    events: list[UserEvent] = []
    as_it_is = (user.sealed_email, user.sealed_alias, user.limits, user.metadata)
    if (command.sealed_email, command.sealed_alias, command.limits, command.metadata) != as_it_is:
        events.append(
            UserUpdated(
                user_id=command.user_id,
                sealed_email=command.sealed_email,
                sealed_alias=command.sealed_alias,
                limits=command.limits,
                metadata=command.metadata,
                updated_at=command.now,
            )
        )
    if command.role != user.role:
        if command.user_id == DEFAULT_USER_ID:
            raise DefaultUserIsFixed("user_role: the master key's user stays proxy_admin", param="user_role")
        events.append(UserRoleChanged(user_id=command.user_id, role=command.role, updated_at=command.now))
    return events


def evolve(user: User, event: UserEvent) -> User:
    match event:
        case UserCreated():
            return User(Life.ACTIVE, event.role, event.sealed_email, event.sealed_alias, event.limits, event.metadata)
        case UserUpdated():
            return replace(
                user,
                sealed_email=event.sealed_email,
                sealed_alias=event.sealed_alias,
                limits=event.limits,
                metadata=event.metadata,
            )
        case UserRoleChanged():
            return replace(user, role=event.role)
        case PasswordSet():
            return replace(user, claim_ids=user.claim_ids | ({event.claim_id} if event.claim_id else set()))
        case UserDeleted():
            return replace(user, life=Life.DELETED)


USER = Aggregate(User(), decide, evolve)


def stream_of(user_id: str) -> str:
    return f"user-{user_id}"
