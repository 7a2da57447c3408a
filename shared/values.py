"""The kinds of values that a request may hold, and the three classes of its fields (§1.3)."""

import difflib
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, ClassVar, LiteralString, get_args

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from shared.money import MONEY_VALIDATOR

INTEGER_MAX = 2**53 - 1
TEXT_LENGTH_MAX = 255
EMAIL_LENGTH_MIN, EMAIL_LENGTH_MAX = 3, 254
LIST_ITEMS_MAX = 500
METADATA_BYTES_MAX = 16 * 1024
METADATA_DEPTH_MAX = 8

# LiteLLM's fields that Keystead does not implement: accepted while they say nothing, refused once they do (D4).
_LITELLM_ONLY = """
    access_group_ids agent_id aliases allowed_cache_controls allowed_passthrough_routes allowed_routes
    allowed_vector_store_indexes auto_rotate budget_fallbacks config default_estimated_output_tokens
    default_estimated_output_tokens_per_model default_team_member_models denied_passthrough_routes
    disable_global_guardrails enable_prompt_caching end_user_budget_id enforced_params guardrails mcp_rpm_limit
    model_aliases model_max_budget model_rpm_limit model_tpm_limit object_permission organization_id
    organization_ids organizations permissions policies project_id prompts require_trace_id rotation_interval
    router_settings rpm_limit_type secret_manager_settings tag_rpm_limit temp_budget_expiry temp_budget_increase
    throttle_on_budget_exceeded tpd_limit tpm_limit_type
"""
UNSUPPORTED = frozenset(_LITELLM_ONLY.split())
# The defaults among them that are neither null, empty nor false.
_UNSUPPORTED_DEFAULTS = {"rpm_limit_type": "best_effort_throughput", "tpm_limit_type": "best_effort_throughput"}

_SHOWN_LENGTH_MAX = 64
_INTEGER = re.compile(r"-?[0-9]+")
_INTEGER_LENGTH_MAX = 40
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9:]{8})(?:\.([0-9]{1,6})[0-9]*)?([Zz]|[+-][0-9]{2}:[0-9]{2})")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Body(BaseModel):
    """The base of request bodies. ``model_fields_set`` tells a null from an absent field.

    Types are strict, as JSON's are: no text for a boolean, no boolean for a number.
    ``later`` names the contract's fields that this version refuses as ``field_unsupported`` once they say something.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _sift(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        fields = sift(data, names_of(cls), cls.later)
        for name, kinds in _kinds_of(cls).items():
            if name in fields:
                fields[name] = _before_strictness(name, fields[name], kinds)
        return fields


class Query(BaseModel):
    """The base of query parameters: fields as a ``Body``'s, but their values are text and read as the field's type."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _sift(cls, data: object) -> object:
        return sift(data, names_of(cls), cls.later) if isinstance(data, dict) else data


def sift(data: Mapping[str, Any], known: Iterable[str], later: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What is left of ``data`` when fields that say nothing are dropped.

    Raises a ``PydanticCustomError`` whose type is the refusal's reason and whose context names the field, for a field
    that is unknown or not supported, and for text that can't be stored.
    """
    known = frozenset(known)
    fields = drop_unset_unsupported(data, known, later)
    for name in fields:
        if name not in known:
            raise _refuse_field(name, known, later)
    unstorable = _path_of_unstorable(fields)
    if unstorable is not None:
        raise _fault("out_of_range", "holds a character that can't be stored", ".".join(unstorable))
    return fields


def drop_unset_unsupported(
    data: Mapping[str, Any], known: Iterable[str], later: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """``data`` without its fields that are unsupported, not in ``known``, and null, empty, false or the default."""
    dropped = (UNSUPPORTED | later).difference(known)
    return {name: value for name, value in data.items() if name not in dropped or not _says_nothing(name, value)}


@functools.cache
def names_of(model: type[BaseModel]) -> frozenset[str]:
    """The names by which a client sends the model's fields."""
    return frozenset(info.alias or name for name, info in model.model_fields.items())


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can keep ``text``: it has no NUL and no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def _says_nothing(name: str, value: object) -> bool:
    if value is None or value is False or value in ("", "false", [], {}):
        return True
    return name in _UNSUPPORTED_DEFAULTS and value == _UNSUPPORTED_DEFAULTS[name]


def _refuse_field(name: str, known: frozenset[str], later: frozenset[str]) -> PydanticCustomError:
    shown = name[:_SHOWN_LENGTH_MAX] or '""'
    if name in UNSUPPORTED or name in later:
        return _fault("field_unsupported", "is not supported here: leave it out, null or empty", shown)
    nearest = difflib.get_close_matches(shown, sorted(known), n=1, cutoff=0.0)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    return _fault("field_unknown", f"is not known here{hint}", shown)


def _path_of_unstorable(value: object) -> tuple[str, ...] | None:
    match value:
        case str():
            return None if is_storable(value) else ()
        case dict():
            items: Iterable[tuple[str, Any]] = value.items()
        case list():
            items = ((str(number), item) for number, item in enumerate(value))
        case _:
            return None
    for name, item in items:
        if not is_storable(name):
            return ()
        inner = _path_of_unstorable(item)
        if inner is not None:
            return (name, *inner)
    return None


@functools.cache
def _kinds_of(model: type[BaseModel]) -> dict[str, tuple[object, ...]]:
    """Each field's type, or the types of its union."""
    return {
        info.alias or name: (get_args(info.annotation) if NoneType in get_args(info.annotation) else (info.annotation,))
        for name, info in model.model_fields.items()
    }


def _before_strictness(name: str, value: object, kinds: Sequence[object]) -> object:
    """What strict types can't take but the contract does: an enumeration's text, and ``""`` for no money."""
    if not isinstance(value, str):
        return value
    if value == "" and NoneType in kinds and any(_is_money(kind) for kind in kinds):
        return None
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return _member(kind, name, value)
    return value


def _is_money(kind: object) -> bool:
    return MONEY_VALIDATOR in getattr(kind, "__metadata__", ())


def _member(kind: type[StrEnum], name: str, value: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise _fault("out_of_range", f"is not one of {', '.join(kind)}", name) from None


def _fault(reason: LiteralString, message: str, field: str = "") -> PydanticCustomError:
    """A fault that ``shared.body`` turns into a refusal; ``message`` goes on after the field's name."""
    return PydanticCustomError(reason, "{fault}", {"fault": message, "field": field})


def _checked_integer(value: object) -> int:
    number = _number(value)
    if not 0 <= number <= INTEGER_MAX:
        raise _fault("out_of_range", f"is not an integer from 0 to {INTEGER_MAX}")
    if number != int(number):
        raise _fault("wrong_type", "is not an integer")
    return int(number)


def _number(value: object) -> int | float | Decimal:
    match value:
        case bool():
            raise _fault("wrong_type", "is not an integer")
        case int():
            return value
        case Decimal() | float() if math.isfinite(value):
            return value
        case Decimal() | float():
            return -1
        case str() if _INTEGER.fullmatch(value):
            return int(value) if len(value) <= _INTEGER_LENGTH_MAX else -1
        case _:
            raise _fault("wrong_type", "is not an integer")


def _checked_text(text: str) -> str:
    if not is_storable(text):
        raise _fault("out_of_range", "holds a character that can't be stored")
    return text


def _checked_name(name: str) -> str:
    if not 1 <= len(name) <= TEXT_LENGTH_MAX:
        raise _fault("out_of_range", f"is not 1 to {TEXT_LENGTH_MAX} characters long")
    if _CONTROL.search(name) or not is_storable(name):
        raise _fault("out_of_range", "holds a control character")
    return name


def _checked_id(identifier: str) -> str:
    if _checked_name(identifier) != identifier.strip():
        raise _fault("out_of_range", "begins or ends with white space")
    return identifier


def _checked_email(text: str) -> str:
    email = text.strip().lower()
    if not EMAIL_LENGTH_MIN <= len(email) <= EMAIL_LENGTH_MAX:
        raise _fault("out_of_range", f"is not {EMAIL_LENGTH_MIN} to {EMAIL_LENGTH_MAX} characters long")
    if email.count("@") != 1 or email[0] == "@" or email[-1] == "@":
        raise _fault("out_of_range", "is not an e-mail address: one @ with something on both sides")
    if re.search(r"\s", email) or _CONTROL.search(email) or not is_storable(email):
        raise _fault("out_of_range", "holds white space or a control character")
    return email


def _checked_metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fault("wrong_type", "is not an object")
    metadata: dict[str, Any] = _plain(value, METADATA_DEPTH_MAX)
    if len(orjson.dumps(metadata)) > METADATA_BYTES_MAX:
        raise _fault("out_of_range", f"is over {METADATA_BYTES_MAX} bytes of JSON")
    return metadata


def _plain(value: object, depth_left: int) -> Any:
    """``value`` with its Decimals as what JSON's reader elsewhere makes of them, so that it goes out as it came in."""
    match value:
        case dict() | list() if depth_left == 0:
            raise _fault("out_of_range", f"is deeper than {METADATA_DEPTH_MAX} levels")
        case dict():
            return {_plain_text(name): _plain(item, depth_left - 1) for name, item in value.items()}
        case list():
            return [_plain(item, depth_left - 1) for item in value]
        case str():
            return _plain_text(value)
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case Decimal() | float() if math.isfinite(float(value)):
            return float(value)
        case int() | Decimal() | float():
            raise _fault("out_of_range", "holds a number that is too large")
        case _:
            raise _fault("wrong_type", "holds something that is not JSON")


def _plain_text(text: object) -> str:
    if not isinstance(text, str):
        raise _fault("wrong_type", "holds a name that is not text")
    return _checked_text(text)


def _checked_time(value: object) -> datetime:
    if not isinstance(value, str):
        raise _fault("wrong_type", "is not a time in text")
    parts = _TIME.fullmatch(value)
    try:
        if parts is None:
            raise ValueError
        day, clock, fraction, zone = parts.groups()
        microseconds = (fraction or "").ljust(6, "0")
        return datetime.fromisoformat(f"{day}T{clock}.{microseconds}{zone.upper()}").astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        raise _fault("time_malformed", "is not a time with zone (2026-11-24T12:47:14Z)") from fault


def _checked_day(value: object) -> date:
    if not isinstance(value, str):
        raise _fault("wrong_type", "is not a date in text")
    try:
        if not _DAY.fullmatch(value):
            raise ValueError
        return date.fromisoformat(value)
    except ValueError as fault:
        raise _fault("time_malformed", "is not a date (2026-11-24)") from fault


_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH_MAX}

LimitInt = Annotated[
    int,
    PlainValidator(_checked_integer),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": INTEGER_MAX}),
]
"""An integer limit: also ``10.0`` and ``"10"``, 0 to 2^53 - 1."""

Text = Annotated[str, AfterValidator(_checked_text)]
"""Any text that can be stored."""

Name = Annotated[str, AfterValidator(_checked_name), WithJsonSchema(_TEXT_SCHEMA)]
"""An alias or a name: 1 to 255 characters, no control characters."""

Id = Annotated[str, AfterValidator(_checked_id), WithJsonSchema(_TEXT_SCHEMA)]
"""An id of a user, team or budget: a name without white space at its ends."""

Email = Annotated[
    str,
    AfterValidator(_checked_email),
    WithJsonSchema({"type": "string", "format": "email", "minLength": EMAIL_LENGTH_MIN, "maxLength": EMAIL_LENGTH_MAX}),
]
"""An e-mail address, trimmed and lower-case."""

Metadata = Annotated[dict[str, Any], PlainValidator(_checked_metadata), WithJsonSchema({"type": "object"})]
"""An object of up to 16 KiB of JSON and eight levels, kept as sent."""

StringList = Annotated[list[Name], Field(max_length=LIST_ITEMS_MAX)]
"""Up to 500 names."""

Time = Annotated[datetime, PlainValidator(_checked_time), WithJsonSchema({"type": "string", "format": "date-time"})]
"""An instant: RFC 3339 with zone, read into UTC."""

Day = Annotated[date, PlainValidator(_checked_day), WithJsonSchema({"type": "string", "format": "date"})]
"""A date, ``2026-11-24``."""
