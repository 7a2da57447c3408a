"""Who may do what: one table, which the edge asks, the docs are made from, and a test walks cell by cell.

A wider cell is a security change.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import NamedTuple

from shared.errors import Refused


class Role(StrEnum):
    PROXY_ADMIN = "proxy_admin"
    PROXY_ADMIN_VIEWER = "proxy_admin_viewer"
    INTERNAL_USER = "internal_user"
    INTERNAL_USER_VIEWER = "internal_user_viewer"


class Reach(IntEnum):
    """How far a cell reaches; a larger one includes a smaller."""

    NONE = 0
    OWN = 1
    ANY = 2


class Kind(StrEnum):
    """What an operation does, as far as a key's type narrows it; ``open`` needs no credential of the table's kind."""

    OPEN = "open"
    READS = "reads"
    CHANGES = "changes"
    CALLS_A_MODEL = "calls a model"


class Operation(StrEnum):
    USER_NEW = "user:new"
    USER_INFO = "user:info"
    USER_LIST = "user:list"
    ROLES = "role:list"
    USER_UPDATE = "user:update"
    USER_DELETE = "user:delete"
    LOG_IN = "session:log-in"
    LOG_OUT = "session:log-out"
    SESSION_LOG_OUT = "session:revoke"
    SESSION_LIST = "session:list"
    SESSION_END = "session:end"
    JWKS = "jwks:read"
    OPENAPI = "openapi:read"
    ME = "me:read"
    ONBOARDING = "onboarding:claim"
    INVITATION_NEW = "invitation:new"
    INVITATION_INFO = "invitation:info"
    INVITATION_UPDATE = "invitation:update"
    INVITATION_DELETE = "invitation:delete"
    INVITATION_LIST = "invitation:list"
    INVITATION_RESEND = "invitation:resend"
    NOTIFICATION_LIST = "notification:list"
    NOTIFICATION_CONTENT = "notification:content"
    KEY_GENERATE = "key:generate"
    KEY_INFO = "key:info"
    KEY_LIST = "key:list"
    KEY_UPDATE = "key:update"
    KEY_DELETE = "key:delete"
    KEY_BLOCK = "key:block"
    MODEL_LIST = "model:list"
    MODEL_CALL = "model:call"
    SPEND_LOGS = "spend:logs"
    BUDGET_READ = "budget:read"
    HEALTH_PROBE = "health:probe"
    HEALTH = "health:read"
    METRICS = "metrics:read"
    PORTAL = "portal:page"
    VERIFY = "credential:verify"


class Row(NamedTuple):
    """One row of the contract's table (§2.2). Its columns are the roles; ``note`` is the row's condition in words."""

    kind: Kind
    proxy_admin: Reach
    proxy_admin_viewer: Reach
    internal_user: Reach
    internal_user_viewer: Reach
    note: str = ""

    def cell(self, role: Role) -> Reach:
        reach: Reach = getattr(self, role.value)
        return reach


_NONE, _OWN, _ANY = Reach.NONE, Reach.OWN, Reach.ANY


def _open(note: str = "") -> Row:
    return Row(Kind.OPEN, _ANY, _ANY, _ANY, _ANY, note)


PERMISSIONS: Mapping[Operation, Row] = {
    Operation.USER_NEW: Row(Kind.CHANGES, _ANY, _NONE, _NONE, _NONE),
    Operation.USER_INFO: Row(Kind.READS, _ANY, _ANY, _OWN, _OWN),
    Operation.USER_LIST: Row(Kind.READS, _ANY, _ANY, _NONE, _NONE),
    Operation.ROLES: Row(Kind.READS, _ANY, _ANY, _ANY, _ANY),
    Operation.USER_UPDATE: Row(Kind.CHANGES, _ANY, _NONE, _OWN, _NONE, "own: user_alias only"),
    Operation.USER_DELETE: Row(Kind.CHANGES, _ANY, _NONE, _NONE, _NONE),
    Operation.LOG_IN: _open(),
    Operation.LOG_OUT: _open("works without a session"),
    Operation.SESSION_LOG_OUT: Row(Kind.CHANGES, _OWN, _OWN, _OWN, _OWN, "a session only"),
    Operation.SESSION_LIST: Row(Kind.READS, _ANY, _ANY, _OWN, _OWN),
    Operation.SESSION_END: Row(Kind.CHANGES, _ANY, _OWN, _OWN, _OWN),
    Operation.JWKS: _open(),
    Operation.OPENAPI: _open(),
    Operation.ME: Row(Kind.READS, _OWN, _OWN, _OWN, _OWN),
    Operation.ONBOARDING: _open("the link's secret"),
    Operation.INVITATION_NEW: Row(Kind.CHANGES, _ANY, _NONE, _NONE, _NONE),
    Operation.INVITATION_INFO: Row(Kind.READS, _ANY, _NONE, _NONE, _NONE),
    Operation.INVITATION_UPDATE: Row(Kind.CHANGES, _ANY, _NONE, _NONE, _NONE),
    Operation.INVITATION_DELETE: Row(Kind.CHANGES, _ANY, _NONE, _NONE, _NONE),
    Operation.INVITATION_LIST: Row(Kind.READS, _ANY, _ANY, _NONE, _NONE),
    Operation.INVITATION_RESEND: Row(Kind.CHANGES, _ANY, _NONE, _NONE, _NONE),
    Operation.NOTIFICATION_LIST: Row(Kind.READS, _ANY, _ANY, _NONE, _NONE),
    # It shows an open invitation's link: a key that may only read must not let anybody in.
    Operation.NOTIFICATION_CONTENT: Row(
        Kind.CHANGES, _ANY, _NONE, _NONE, _NONE, "not for a key of type read_only: it shows what lets somebody in"
    ),
    Operation.KEY_GENERATE: Row(
        Kind.CHANGES,
        _ANY,
        _NONE,
        _OWN,
        _NONE,
        "own: not key, blocked; max_budget within the user's; within the key used",
    ),
    Operation.KEY_INFO: Row(Kind.READS, _ANY, _ANY, _OWN, _OWN),
    Operation.KEY_LIST: Row(Kind.READS, _ANY, _ANY, _OWN, _OWN),
    Operation.KEY_UPDATE: Row(
        Kind.CHANGES, _ANY, _NONE, _OWN, _NONE, "own: only a key the caller generated, and not its budget or owner"
    ),
    Operation.KEY_DELETE: Row(Kind.CHANGES, _ANY, _NONE, _OWN, _NONE),
    Operation.KEY_BLOCK: Row(Kind.CHANGES, _ANY, _NONE, _NONE, _NONE),
    Operation.MODEL_LIST: Row(Kind.READS, _ANY, _ANY, _OWN, _OWN, "own: the models the credential may call"),
    Operation.MODEL_CALL: Row(Kind.CALLS_A_MODEL, _ANY, _ANY, _ANY, _ANY, "with a key"),
    Operation.SPEND_LOGS: Row(Kind.READS, _ANY, _ANY, _OWN, _OWN),
    Operation.BUDGET_READ: Row(Kind.READS, _ANY, _ANY, _OWN, _OWN),
    Operation.HEALTH_PROBE: _open(),
    Operation.HEALTH: Row(Kind.READS, _ANY, _ANY, _NONE, _NONE),
    Operation.METRICS: Row(Kind.READS, _ANY, _ANY, _NONE, _NONE),
    Operation.PORTAL: _open("pages; their data comes by the other rows"),
    Operation.VERIFY: _open("the credential that is asked about"),
}

# What a key of each type may do at all, of what its user may (§2.2).
_KINDS_OF_KEY_TYPE: Mapping[str, frozenset[Kind]] = {
    "default": frozenset(Kind),
    "llm_api": frozenset({Kind.CALLS_A_MODEL}),
    "management": frozenset({Kind.READS, Kind.CHANGES}),
    "read_only": frozenset({Kind.READS}),
}
# ... and what a key for model calls may besides: see what it can call, and itself.
_ALSO_OF_KEY_TYPE: Mapping[str, frozenset[Operation]] = {
    "llm_api": frozenset({Operation.MODEL_LIST, Operation.KEY_INFO}),
}


class RoleNotAllowed(Refused):
    reason = "role_not_allowed"


class NotYours(Refused):
    reason = "not_yours"


class KeyTypeNotAllowed(Refused):
    reason = "key_type_not_allowed"


def reach_of(operation: Operation, role: Role | None) -> Reach:
    """How far ``role`` reaches in ``operation``; raises ``RoleNotAllowed`` where it does not reach at all."""
    reach = PERMISSIONS[operation].cell(role) if role is not None else Reach.NONE
    if reach is Reach.NONE:
        raise RoleNotAllowed(f"the role {role or 'none'} does not allow {operation}")
    return reach


def check_key_type(operation: Operation, key_type: str) -> None:
    """Raises ``KeyTypeNotAllowed`` where a key of that type may not, whatever its user may."""
    kind = PERMISSIONS[operation].kind
    if kind is Kind.OPEN or kind in _KINDS_OF_KEY_TYPE[key_type] or operation in _ALSO_OF_KEY_TYPE.get(key_type, ()):
        return
    raise KeyTypeNotAllowed(f"a key of type {key_type} does not allow {operation}")
