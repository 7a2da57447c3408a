"""What a client is told when something is refused: the contract's reasons, each with its status and type (§1.4)."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple


class Answer(NamedTuple):
    """How a reason looks on the wire."""

    status: int
    type: str


INVALID = "invalid_request_error"
AUTH = "auth_error"

# One row a reason, and no reason without a row: a test walks the table.
REASONS: Mapping[str, Answer] = {
    "credentials_missing": Answer(401, AUTH),
    "key_unknown": Answer(401, "token_not_found_in_db"),
    "key_expired": Answer(401, "expired_key"),
    "key_blocked": Answer(401, AUTH),
    "jwt_invalid": Answer(401, AUTH),
    "role_not_allowed": Answer(403, AUTH),
    "not_yours": Answer(403, AUTH),
    "key_type_not_allowed": Answer(403, AUTH),
    "csrf": Answer(403, AUTH),
    "model_not_allowed": Answer(403, "key_model_access_denied"),
    "price_unknown": Answer(403, "model_cost_map_missing"),
    "json_malformed": Answer(400, INVALID),
    "wrong_type": Answer(400, INVALID),
    "field_missing": Answer(400, INVALID),
    "field_unknown": Answer(400, INVALID),
    "field_unsupported": Answer(400, INVALID),
    "field_read_only": Answer(400, INVALID),
    "out_of_range": Answer(400, INVALID),
    "duration_malformed": Answer(400, INVALID),
    "time_malformed": Answer(400, INVALID),
    "range_malformed": Answer(400, INVALID),
    "over_upper_bound": Answer(400, INVALID),
    "over_own_limit": Answer(400, INVALID),
    "model_unknown": Answer(400, INVALID),
    "parameter_unpriced": Answer(400, INVALID),
    "override_not_allowed": Answer(400, INVALID),
    "upstream_rejected": Answer(400, INVALID),
    "invitation_closed": Answer(400, INVALID),
    "user_has_no_email": Answer(400, INVALID),
    "duplicate_key": Answer(400, "bad_request_error"),
    "duplicate_key_alias": Answer(400, "bad_request_error"),
    "password_policy": Answer(400, "validation_error"),
    "duplicate_email": Answer(409, INVALID),
    "duplicate_user_id": Answer(409, INVALID),
    "version_conflict": Answer(409, INVALID),
    "in_use": Answer(409, INVALID),
    "idempotency_in_progress": Answer(409, INVALID),
    "idempotency_mismatch": Answer(422, INVALID),
    "invitation_not_resendable": Answer(409, INVALID),
    "not_found": Answer(404, "not_found_error"),
    "route_unknown": Answer(404, "not_found_error"),
    "method_not_allowed": Answer(405, INVALID),
    "invitation_unknown": Answer(401, AUTH),
    "invitation_used": Answer(401, AUTH),
    "invitation_expired": Answer(401, AUTH),
    "credentials_wrong": Answer(401, AUTH),
    "login_throttled": Answer(429, "rate_limit_error"),
    "body_too_large": Answer(413, INVALID),
    "media_type": Answer(415, INVALID),
    "budget_exceeded": Answer(429, "budget_exceeded"),
    "budget_held": Answer(429, "budget_exceeded"),
    "upstream_rate_limited": Answer(429, "rate_limit_error"),
    "upstream_failed": Answer(502, "upstream_error"),
    "upstream_timeout": Answer(504, "upstream_error"),
    "unavailable": Answer(503, "service_unavailable_error"),
    "budgets_unavailable": Answer(503, "service_unavailable_error"),
}


class Refused(Exception):
    """A command, a request or a call that is refused.

    ``message`` is one English sentence that names the field and the limit and holds no secret and no other person's
    data; ``param`` is the dotted field. Domains subclass it, once each, for what their tests tell apart.
    """

    reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        param: str | None = None,
        type: str | None = None,  # noqa: A002 - the wire's name
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = reason or self.reason
        self.param = param
        self.headers = dict(headers or {})
        self._type = type

    @property
    def status(self) -> int:
        return REASONS[self.code].status

    @property
    def type(self) -> str:
        return self._type or REASONS[self.code].type


class Unavailable(Refused):
    """The database, NATS or a service is away or lags: nothing is known to be wrong with the request."""

    reason = "unavailable"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason, headers={"Retry-After": "1"})
