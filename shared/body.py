"""Reading a request: its body strictly as JSON, and what is wrong with it as the contract's refusals (§1.3, §1.4)."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, ClassVar, NamedTuple, get_args, get_origin

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from shared.errors import REASONS, Refused
from shared.idempotency import HEADER, Idempotent, answer_once
from shared.values import is_storable, sift

LIMIT_BYTES = 1024 * 1024
DEPTH_MAX = 32
# More of them would take seconds to read, in which nobody else is answered. No provider takes an embedding of so many
# tokens; what is honestly large is a few long strings.
VALUES_MAX = 500_000

_SHOWN_LENGTH_MAX = 64
_EXTREME_DIGITS = 309  # as many as the largest double has before the point
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = bytes.maketrans(b"[{]}", b"(())")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# pydantic's own faults that are about how much, not about what.
_FAULTS_OF_RANGE = """
    greater_than greater_than_equal less_than less_than_equal multiple_of finite_number int_parsing_size too_short
    too_long string_too_short string_too_long string_pattern_mismatch value_error assertion_error
"""
_OUT_OF_RANGE = frozenset(_FAULTS_OF_RANGE.split())
_NO_OBJECT = frozenset(["model_type", "model_attributes_type", "dict_type"])
_TYPE_NAMES = frozenset(["str", "int", "float", "bool", "none", "dict", "list"])


class JsonMalformed(Refused):
    """Not JSON, not UTF-8, not an object, a name twice, or too deep."""

    reason = "json_malformed"


class NumberTooLarge(Refused):
    """A number that no double can hold, such as ``1e400``."""

    reason = "out_of_range"


class BodyTooLarge(Refused):
    """More bytes than the route takes."""

    reason = "body_too_large"


class MediaTypeWrong(Refused):
    """Something else than uncompressed JSON in UTF-8."""

    reason = "media_type"


class StrictRoute(APIRoute):
    """A route whose body is read by ``read_json``, and whose faults of body, query and path are ``Refused``.

    Query parameters that no dependency of the route declares are refused as unknown, and a second value for one that
    takes a single value as of the wrong type; a subclass with ``open_query`` lets them through (``/v1/*``).
    One that is ``Idempotent`` answers the same request under the same ``Idempotency-Key`` once.
    """

    limit_bytes: ClassVar[int] = LIMIT_BYTES
    open_query: ClassVar[bool] = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        query = list(_query_parameters(self.dependant))
        once = self.openapi_extra if isinstance(self.openapi_extra, Idempotent) else None

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as invalid:
                # Their places begin with "body", "query" or "path".
                raise refused_from([{**fault, "loc": fault["loc"][1:]} for fault in invalid.errors()]) from None

        async def strict(request: Request) -> Response:
            _check_path(request)
            if not self.open_query:
                _check_query(request, query)
            read = await self._read(request)
            if once is None or HEADER not in request.headers:
                return await answer(read)
            body = read.data if isinstance(read, _ReadRequest) else {}
            return await answer_once(once.service, read, body, lambda: answer(read))

        return strict

    async def _read(self, request: Request) -> Request:
        if self.body_field is None or not (self.body_field.field_info.is_required() or _has_body(request)):
            return request
        raw = await _read_body(request, self.limit_bytes)
        return _ReadRequest(request, raw, parse_json(raw))


class _ReadRequest(Request):
    """A request whose body has been read already, for FastAPI to ask."""

    def __init__(self, request: Request, raw: bytes, data: dict[str, Any]) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self.data = data

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> Any:
        return self.data


async def read_json(request: Request, limit_bytes: int) -> dict[str, Any]:
    """The JSON object that is the request's body; see ``parse_json``. Raises the 413, 415 and 400 of §1.4."""
    return parse_json(await _read_body(request, limit_bytes))


def parse_json(raw: bytes) -> dict[str, Any]:
    """The object that ``raw`` is, read strictly: UTF-8, at most 32 deep, no name twice, no number beyond a double.

    At most ``VALUES_MAX`` values or names, as bytes alone do not bound how long reading takes. Integers become ``int``,
    all other numbers (and integers of some 309 digits) ``Decimal``. Raises a ``Refused``.
    """
    _check_shape(raw)
    extremes: list[str] = []
    data = _decode(raw, extremes.append)
    if not isinstance(data, dict):
        raise JsonMalformed("the body is not a JSON object")
    if extremes or _SURROGATE_ESCAPE.search(raw):
        _check_values(data, ())
    return data


def refused_from(invalid: ValidationError | Sequence[Mapping[str, Any]]) -> Refused:
    """The first of pydantic's faults as the contract's refusal: its reason, and the dotted field as ``param``."""
    fault = invalid.errors(include_url=False)[0] if isinstance(invalid, ValidationError) else invalid[0]
    field = str((fault.get("ctx") or {}).get("field") or "")
    places = [str(place) for place in fault["loc"] if not _is_type_name(place)]
    param = _dotted([*places, *(field.split(".") if field else [])])
    return Refused(f"{param or 'the body'} {_sentence(fault)}", reason=_reason(fault), param=param or None)


def _reason(fault: Mapping[str, Any]) -> str:
    match fault["type"]:
        case reason if reason in REASONS:
            return str(reason)
        case "missing":
            return "field_missing"
        case "extra_forbidden":
            return "field_unknown"
        case kind if kind in _OUT_OF_RANGE:
            return "out_of_range"
        case "literal_error" | "enum" if isinstance(fault.get("input"), str):
            return "out_of_range"
        case _:
            return "wrong_type"


def _sentence(fault: Mapping[str, Any]) -> str:
    """What is wrong, to stand after the field's name. Never the value: it may be a secret."""
    kind, message = fault["type"], str(fault["msg"])
    if kind in REASONS:
        return message
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not known here"
    if kind in _NO_OBJECT:
        return "should be an object"
    _, should, rest = message.partition(" should ")
    return f"should {rest}" if should else f"is wrong: {message}"


def _is_type_name(place: object) -> bool:
    """Whether pydantic put it into a fault's place to tell a union's member: ``str``, ``TeamRef``, ``list[str]``."""
    text = str(place)
    return text in _TYPE_NAMES or text[:1].isupper() or "[" in text or text.startswith("constrained-")


def _check_path(request: Request) -> None:
    for name, value in request.path_params.items():
        if isinstance(value, str) and not is_storable(value):
            raise Refused(f"{name} holds a character that can't be stored", reason="out_of_range", param=name)


def _check_query(request: Request, declared: Sequence["_Parameter"]) -> None:
    sent = {name: request.query_params.getlist(name) for name in request.query_params}
    known = {parameter.name: parameter for parameter in declared}
    try:
        single_or_all = {name: values if len(values) > 1 else values[0] for name, values in sent.items()}
        sift(single_or_all, known, frozenset().union(*(parameter.later for parameter in declared)))
    except PydanticCustomError as fault:
        raise refused_from([{"type": fault.type, "loc": (), "msg": fault.message(), "ctx": fault.context}]) from None
    for name, values in sent.items():
        if len(values) > 1 and name in known and not known[name].repeatable:
            raise Refused(f"{name} takes one value, and is given {len(values)}", reason="wrong_type", param=name)


class _Parameter(NamedTuple):
    """A query parameter that a route declares."""

    name: str
    repeatable: bool
    later: frozenset[str]


def _query_parameters(dependant: Dependant) -> Iterator[_Parameter]:
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            later: frozenset[str] = getattr(model, "later", frozenset())
            for name, info in model.model_fields.items():
                yield _Parameter(info.alias or name, _takes_list(info), later)
        else:
            yield _Parameter(field.alias, _takes_list(field.field_info), frozenset())
    for inner in dependant.dependencies:
        yield from _query_parameters(inner)


def _takes_list(info: FieldInfo) -> bool:
    kinds = (info.annotation, *get_args(info.annotation))  # list[str], or list[str] | None
    return any(get_origin(kind) in (list, tuple, set, frozenset) for kind in map(_bare, kinds))


def _bare(kind: object) -> object:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in request.headers


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > limit_bytes):
        raise _too_large(limit_bytes)
    _check_media_type(request)
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > limit_bytes:
                raise _too_large(limit_bytes)
    except ClientDisconnect as fault:
        raise JsonMalformed("the body ended early") from fault
    return bytes(raw)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is over the limit of {limit_bytes} bytes")


def _check_media_type(request: Request) -> None:
    media_type, *parameters = request.headers.get("content-type", "").lower().split(";")
    charsets = [value for name, _, value in (p.strip().partition("=") for p in parameters) if name == "charset"]
    if media_type.strip() != "application/json" or any(value.strip('"') not in ("utf-8", "utf8") for value in charsets):
        raise MediaTypeWrong("Content-Type is not application/json in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaTypeWrong("Content-Encoding is not identity: bodies are taken uncompressed")


def _check_shape(raw: bytes) -> None:
    """Looks before the parser does, which is recursive: strings out, then the innermost pairs, a level at a time."""
    bare, strings = _STRING.subn(b"", raw, count=VALUES_MAX + 1)
    brackets = bare.translate(_BRACKETS, _ALL_BUT_BRACKETS)
    if max(strings, bare.count(b","), len(brackets) // 2) > VALUES_MAX:
        raise BodyTooLarge(f"the body has more than {VALUES_MAX} values or names")
    for _ in range(DEPTH_MAX):
        brackets = brackets.replace(b"()", b"")
    if brackets:
        raise JsonMalformed(f"the body's brackets do not match, or are more than {DEPTH_MAX} deep")


def _decode(raw: bytes, on_extreme: Callable[[str], None]) -> object:
    """What ``raw`` says; ``on_extreme`` is told of numbers that may be beyond a double."""

    def integer(text: str) -> int | Decimal:
        if len(text) < _EXTREME_DIGITS:
            return int(text)
        on_extreme(text)
        return Decimal(text)  # int would refuse to read thousands of digits

    def number(text: str) -> Decimal:
        value = _decimal(text)
        if not value.is_finite() or value.adjusted() >= _EXTREME_DIGITS - 1:
            on_extreme(text)
        return value

    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_int=integer, parse_float=number, parse_constant=_refuse_constant
    )
    try:
        return decoder.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as fault:
        raise JsonMalformed("the body is not UTF-8") from fault
    except json.JSONDecodeError as fault:
        raise JsonMalformed(f"the body is not JSON: {fault.msg} (line {fault.lineno}, column {fault.colno})") from fault


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits or more
        return Decimal("Infinity")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise JsonMalformed(f"the body has the name {name[:_SHOWN_LENGTH_MAX]!r} twice in one object")
    return data


def _refuse_constant(text: str) -> None:
    raise JsonMalformed(f"the body is not JSON: it holds {text}")


def _check_values(value: object, path: tuple[str, ...]) -> None:
    match value:
        case dict():
            for name, item in value.items():
                _check_text(name, path)
                _check_values(item, (*path, name))
        case list():
            for number, item in enumerate(value):
                _check_values(item, (*path, str(number)))
        case str():
            _check_text(value, path)
        case int() | Decimal() as number if not -sys.float_info.max <= number <= sys.float_info.max:
            raise NumberTooLarge(f"{_dotted(path)} is a number beyond what a double can hold", param=_dotted(path))


def _check_text(text: str, path: tuple[str, ...]) -> None:
    if _SURROGATE.search(text):
        raise JsonMalformed("the body holds half of a surrogate pair", param=_dotted(path) or None)


def _dotted(path: Iterable[str]) -> str:
    """A field's place, as far as it can be shown: clients choose names, and may put anything into them, or nothing."""
    return ".".join(_UNSHOWABLE.sub("\ufffd", name[:_SHOWN_LENGTH_MAX]) or '""' for name in path)
