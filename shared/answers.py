"""Answers: JSON with exact money and one form of time, and refusals in the contract's two shapes (§1.3, §1.4)."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from shared.errors import Refused
from shared.money import NANO_PER_USD, UsdNumber, usd_text

_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_MONEY_PREFIX = "usd:"
_TEXT_PREFIX = "text:"
_INTEGERS = range(-(2**63), 2**64)  # orjson's
_RECORDED_401 = frozenset(["key_blocked", "key_expired"])


class Answer(BaseModel):
    """The base of answer models. Money is ``Usd``, times are aware ``datetime``s; what is not there is null (D21)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JsonAnswer(Response):
    """A model, or anything of dicts and lists with models in it, as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_bytes(content)


class ProblemAnswer(JsonAnswer):
    """A refusal on an own route (RFC 9457)."""

    media_type = "application/problem+json"


def json_bytes(content: object) -> bytes:
    """JSON in UTF-8: ``UsdNumber`` and ``Decimal`` as exact numbers, instants in UTC with six decimals and ``Z``."""
    try:
        return orjson.dumps(content, default=_plain, option=_OPTIONS)
    except orjson.JSONEncodeError:
        # orjson writes neither integers of more than 64 bits nor half a surrogate pair, and asks nobody about them.
        return orjson.dumps(_writable(content), default=_plain, option=_OPTIONS)


def error_answer(
    refused: Refused, *, own_route: bool, request_id: str | None = None, call_id: str | None = None
) -> Response:
    """What the client of a refused request is told: on own routes a problem (RFC 9457), else LiteLLM's ``error``.

    ``call_id`` is shown where the refusal can be asked about later (§3.9).
    """
    recorded = call_id if refused.status in (403, 429) or refused.code in _RECORDED_401 else None
    headers = _headers(refused, request_id, recorded)
    if own_route:
        return ProblemAnswer(_problem(refused, recorded), refused.status, headers)
    return JsonAnswer({"error": _error(refused)}, refused.status, headers)


def to_wire(content: object) -> Any:
    """An answer, or a part of one, for another service to show: plain JSON, and ``from_wire`` gives its money back.

    Money is decimal text after ``usd:``; other text that begins like that is marked as text, so nobody can forge money.
    """
    plain = content.model_dump() if isinstance(content, BaseModel) else content
    match plain:
        case dict():
            return {name: to_wire(item) for name, item in plain.items()}
        case list() | tuple():
            return [to_wire(item) for item in plain]
        case UsdNumber():
            return f"{_MONEY_PREFIX}{usd_text(plain.nano)}"
        case str() if plain.startswith((_MONEY_PREFIX, _TEXT_PREFIX)):
            return f"{_TEXT_PREFIX}{plain}"
        case date():
            return _plain(plain)
        case _:
            return plain


def from_wire(content: object) -> Any:
    """What ``to_wire`` made, ready for a ``JsonAnswer``; instants stay the text that they became."""
    match content:
        case dict():
            return {name: from_wire(item) for name, item in content.items()}
        case list():
            return [from_wire(item) for item in content]
        case str() if content.startswith(_MONEY_PREFIX):
            return UsdNumber(int(Fraction(content.removeprefix(_MONEY_PREFIX)) * NANO_PER_USD))
        case str():
            return content.removeprefix(_TEXT_PREFIX)
        case _:
            return content


def _error(refused: Refused) -> dict[str, Any]:
    return {
        "message": refused.message,
        "type": refused.type,
        "param": refused.param,
        "code": str(refused.status),
        "reason": refused.code,
    }


def _problem(refused: Refused, recorded_call_id: str | None) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "type": f"urn:keystead:problem:{refused.code}",
        "title": refused.code.replace("_", " ").capitalize(),
        "status": refused.status,
        "detail": refused.message,
    }
    if recorded_call_id is not None:
        problem["instance"] = f"/keystead/v1/refusals/{recorded_call_id}"
    if refused.param is not None:
        problem["param"] = refused.param
    return problem


def _headers(refused: Refused, request_id: str | None, recorded_call_id: str | None) -> Mapping[str, str]:
    headers = {"Cache-Control": "no-store", **refused.headers}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if request_id is not None:
        headers["x-request-id"] = request_id
    if recorded_call_id is not None:
        headers["x-litellm-call-id"] = recorded_call_id
    return headers


def _plain(value: object) -> Any:
    match value:
        case UsdNumber():
            return orjson.Fragment(usd_text(value.nano))
        case BaseModel():
            return value.model_dump()
        case datetime():
            return _instant(value)
        case date():
            return value.isoformat()
        case Decimal() if value.is_finite():
            return orjson.Fragment(str(value))
        case _:
            raise TypeError(f"{type(value).__name__} has no place in an answer")


def _instant(value: datetime) -> str:
    """UTC, six decimals, ``Z`` (D20)."""
    if value.tzinfo is None:
        raise TypeError("a time without zone has no place in an answer")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _writable(content: object) -> Any:
    match content:
        case BaseModel():
            return _writable(content.model_dump())
        case dict():
            return {_writable(name): _writable(item) for name, item in content.items()}
        case list() | tuple():
            return [_writable(item) for item in content]
        case str():
            return content.encode("utf-8", "replace").decode("utf-8")
        case int() if content not in _INTEGERS:
            return orjson.Fragment(str(content))
        case _:
            return content
