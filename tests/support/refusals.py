"""What a refusal must look like (contract §1.4), written out from the contract and not read from the code."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.support.installation import MASTER_KEY, Installation

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
OWN_ROUTES = "/keystead/v1/"
# A sentence is of letters: no control characters, and none that turn the direction of what follows.
UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MESSAGE_MAX = 3000  # 32 levels of names, shortened, are the longest place that it names

# reason: status, type. A reason that the contract's table has no row for is an invalid_request_error (§1.1).
REASONS: Mapping[str, tuple[int, str]] = {
    "credentials_missing": (401, "auth_error"),
    "key_unknown": (401, "token_not_found_in_db"),
    "key_expired": (401, "expired_key"),
    "key_blocked": (401, "auth_error"),
    "jwt_invalid": (401, "auth_error"),
    "role_not_allowed": (403, "auth_error"),
    "not_yours": (403, "auth_error"),
    "key_type_not_allowed": (403, "auth_error"),
    "csrf": (403, "auth_error"),
    "model_not_allowed": (403, "key_model_access_denied"),
    "json_malformed": (400, "invalid_request_error"),
    "wrong_type": (400, "invalid_request_error"),
    "field_missing": (400, "invalid_request_error"),
    "field_unknown": (400, "invalid_request_error"),
    "field_unsupported": (400, "invalid_request_error"),
    "field_read_only": (400, "invalid_request_error"),
    "out_of_range": (400, "invalid_request_error"),
    "duration_malformed": (400, "invalid_request_error"),
    "time_malformed": (400, "invalid_request_error"),
    "range_malformed": (400, "invalid_request_error"),
    "over_upper_bound": (400, "invalid_request_error"),
    "over_own_limit": (400, "invalid_request_error"),
    "model_unknown": (400, "invalid_request_error"),
    "duplicate_email": (409, "invalid_request_error"),
    "duplicate_user_id": (409, "invalid_request_error"),
    "duplicate_key_alias": (400, "bad_request_error"),
    "duplicate_key": (400, "bad_request_error"),
    "password_policy": (400, "validation_error"),
    "not_found": (404, "not_found_error"),
    "route_unknown": (404, "not_found_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "invitation_unknown": (401, "auth_error"),
    "invitation_used": (401, "auth_error"),
    "invitation_expired": (401, "auth_error"),
    "invitation_closed": (400, "invalid_request_error"),
    "invitation_not_resendable": (409, "invalid_request_error"),
    "user_has_no_email": (400, "invalid_request_error"),
    "credentials_wrong": (401, "auth_error"),
    "login_throttled": (429, "rate_limit_error"),
    "body_too_large": (413, "invalid_request_error"),
    "media_type": (415, "invalid_request_error"),
    "version_conflict": (409, "invalid_request_error"),
    "idempotency_in_progress": (409, "invalid_request_error"),
    "idempotency_mismatch": (422, "invalid_request_error"),
    "budget_exceeded": (429, "budget_exceeded"),
    "budget_held": (429, "budget_exceeded"),
    "price_unknown": (403, "model_cost_map_missing"),
    "parameter_unpriced": (400, "invalid_request_error"),
    "override_not_allowed": (400, "invalid_request_error"),
    "upstream_rejected": (400, "invalid_request_error"),
    "upstream_rate_limited": (429, "rate_limit_error"),
    "upstream_failed": (502, "upstream_error"),
    "upstream_timeout": (504, "upstream_error"),
    "unavailable": (503, "service_unavailable_error"),
    "budgets_unavailable": (503, "service_unavailable_error"),
}
# "key_model_access_denied, team_…, user_…": by whose list it is.
MODEL_TYPES = frozenset({"key_model_access_denied", "user_model_access_denied"})
# §3.9: refusals that can be asked about later, on top of every 403 and 429.
ALSO_RECORDED = frozenset({"key_blocked", "key_expired"})


class Refusal(NamedTuple):
    """What tests tell refusals apart by."""

    status: int
    reason: str
    param: str | None
    message: str
    type: str


def read_refusal(path: str, status: int, answer: Any, headers: Mapping[str, str]) -> Refusal:
    """The refusal that an answer is; an AssertionError unless all of it is as the contract says."""
    refusal = _problem(answer, headers) if path.startswith(OWN_ROUTES) else _error(answer, headers)
    expected_status, expected_type = REASONS[refusal.reason]
    assert status == refusal.status == expected_status, (refusal, status)
    if refusal.reason == "model_not_allowed":
        assert refusal.type in MODEL_TYPES | {""}, refusal
    else:
        assert refusal.type in (expected_type, ""), refusal
    assert refusal.message and len(refusal.message) < MESSAGE_MAX, refusal
    assert not UNSHOWABLE.search(refusal.message + (refusal.param or "")), refusal
    _check_headers(refusal, headers)
    return refusal


def _error(answer: Any, headers: Mapping[str, str]) -> Refusal:
    assert headers["Content-Type"] == "application/json", answer
    assert isinstance(answer, dict) and answer.keys() == {"error"}, answer
    error = answer["error"]
    assert error.keys() == {"message", "type", "param", "code", "reason"}, answer
    assert isinstance(error["code"], str) and isinstance(error["message"], str), answer
    assert error["param"] is None or (isinstance(error["param"], str) and error["param"]), answer
    return Refusal(int(error["code"]), error["reason"], error["param"], error["message"], error["type"])


def _problem(answer: Any, headers: Mapping[str, str]) -> Refusal:
    """RFC 9457, on Keystead's own routes. It has no type of LiteLLM's."""
    assert headers["Content-Type"] == "application/problem+json", answer
    assert (
        {"type", "title", "status", "detail"}
        <= answer.keys()
        <= {
            "type",
            "title",
            "status",
            "detail",
            "instance",
            "param",
        }
    ), answer
    kind, _, reason = answer["type"].rpartition(":")
    assert kind == "urn:keystead:problem" and answer["title"], answer
    assert isinstance(answer["status"], int) and isinstance(answer.get("param", ""), str), answer
    recorded = answer["status"] in (403, 429) or reason in ALSO_RECORDED
    assert ("instance" in answer) == recorded, answer
    if recorded and answer["status"] in (403, 429):
        assert answer["instance"] == f"/keystead/v1/refusals/{headers['x-litellm-call-id']}", answer
    return Refusal(answer["status"], reason, answer.get("param"), answer["detail"], "")


def _check_headers(refusal: Refusal, headers: Mapping[str, str]) -> None:
    assert headers["x-request-id"] and headers["x-keystead-version"], headers
    assert headers["X-Content-Type-Options"] == "nosniff", headers
    assert headers["Cache-Control"] == "no-store", headers
    assert headers.get("WWW-Authenticate") == ("Bearer" if refusal.status == 401 else None), headers
    assert ("Allow" in headers) == (refusal.status == 405), headers
    if refusal.status in (403, 429):
        assert UUID.fullmatch(headers["x-litellm-call-id"]), headers
    if refusal.status == 503 or refusal.reason in ("budget_held", "upstream_rate_limited"):
        assert int(headers["Retry-After"]) > 0, headers


async def refused(it: Installation, method: str, path: str, body: Any = None, **options: Any) -> Refusal:
    """How a request is refused."""
    status, answer, headers = await it.request(method, path, body, **options)
    assert status >= 400, (method, path, body, answer)
    return read_refusal(path, status, answer, headers)


async def refused_raw(
    it: Installation, path: str, data: Any, *, key: str | None = MASTER_KEY, headers: Mapping[str, str] | None = None
) -> Refusal:
    """How a POST of these bytes is refused; an iterator's go in chunks."""
    status, answer, answered = await send_raw(it, path, data, key=key, headers=headers)
    return read_refusal(path, status, answer, answered)


async def send_raw(
    it: Installation, path: str, data: Any, *, key: str | None = MASTER_KEY, headers: Mapping[str, str] | None = None
) -> tuple[int, Any, Mapping[str, str]]:
    """A POST of these bytes as JSON, unless ``headers`` say that it is something else."""
    sent = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
        **(headers or {}),
    }
    async with it.http.post(it.url + path, data=data, headers={k: v for k, v in sent.items() if v}) as response:
        text = await response.text()
        return response.status, (json.loads(text) if text.startswith("{") else text), response.headers
