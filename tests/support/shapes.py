"""The shape of an answer: its members, none more, and the JSON type of each; numbers as they stand in the text.

A shape is a type, a compiled pattern for text, a function that says whether, a list of one shape, a dict of shapes by
member, or ``Exactly`` a value. ``maybe`` is one that may be null.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

Shape = Any
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
HASH = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
# §1.3: a JSON number that is exactly the stored nano-USD: no exponent, no more than nine decimals, no noise.
_MONEY = re.compile(r"(0|[1-9]\d*)(\.\d{0,8}[1-9])?")


class Number(str):
    """A number with a fraction or an exponent, as it is written."""

    __slots__ = ()


@dataclass(frozen=True)
class Exactly:
    value: Any


@dataclass(frozen=True)
class Maybe:
    shape: Shape


def exactly(value: Any) -> Exactly:
    return Exactly(value)


def maybe(shape: Shape) -> Maybe:
    return Maybe(shape)


def money(value: Any) -> bool:
    """An amount in USD."""
    return type(value) in (int, Number) and _MONEY.fullmatch(str(value)) is not None


def number(value: Any) -> bool:
    """Any number that JSON has."""
    return type(value) in (int, Number)


def read(text: str) -> Any:
    """JSON, its fractions kept as text."""
    return json.loads(text, parse_float=Number)


def amount(value: Any) -> Decimal:
    return Decimal(str(value))


def check(shape: Shape, value: Any, place: str = "answer") -> None:
    """An AssertionError at the first place where ``value`` is not of that shape; the text "None" is of none."""
    assert value != "None", f"{place} is the text None"
    match shape:
        case Exactly(value=wanted):
            assert value == wanted and type(value) is type(wanted), f"{place} is {value!r}, not {wanted!r}"
        case Maybe(shape=inner):
            if value is not None:
                check(inner, value, place)
        case Mapping():
            _check_members(shape, value, place)
        case [inner]:
            assert isinstance(value, list), f"{place} is no list: {value!r}"
            for index, item in enumerate(value):
                check(inner, item, f"{place}[{index}]")
        case re.Pattern():
            assert isinstance(value, str) and shape.fullmatch(value), f"{place} is {value!r}, not {shape.pattern}"
            if shape is TIME:
                datetime.fromisoformat(value)
        case type():
            assert type(value) is shape, f"{place} is {value!r}, no {shape.__name__}"
        case _:
            _check_by(shape, value, place)


def _check_members(shape: Mapping[str, Shape], value: Any, place: str) -> None:
    assert isinstance(value, dict), f"{place} is no object: {value!r}"
    missing, more = shape.keys() - value.keys(), value.keys() - shape.keys()
    assert not missing, f"{place} has no {', '.join(sorted(missing))}"
    assert not more, f"{place} has {', '.join(sorted(more))} too"
    for name, inner in shape.items():
        check(inner, value[name], f"{place}.{name}")


def _check_by(is_so: Callable[[Any], bool], value: Any, place: str) -> None:
    assert is_so(value), f"{place} is {value!r}, no {is_so.__name__}"
