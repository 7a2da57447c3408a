"""Money: integer nano-USD inside, USD on the wire (§1.3, §3)."""

import math
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

NANO_PER_USD = 1_000_000_000
MAX_USD = 1_000_000_000

_NANO = Decimal("1e-9")
# Wide enough for MAX_USD with nine decimals; the thread's own context is somebody else's.
_CONTEXT = Context(prec=40, rounding=ROUND_HALF_EVEN)
_DECIMAL_TEXT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DECIMAL_TEXT_LENGTH_MAX = 1_000


class NotMoney(ValueError):
    """No number at all: a boolean, a list, or text that is no decimal number."""


class MoneyOutOfRange(ValueError):
    """A number, but negative, not finite or above ``MAX_USD``."""


def parse_usd(value: object) -> int:
    """USD as nano-USD, 0 to 1,000,000,000 USD, rounded half-even to nine decimals (§1.3).

    Takes an int, a ``Decimal`` or a decimal string; a float too, read as its shortest decimal, because YAML files hold
    them (JSON bodies never do). Raises ``NotMoney`` or ``MoneyOutOfRange``, both ``ValueError``.
    """
    amount = _decimal(value)
    if not amount.is_finite() or not 0 <= amount <= MAX_USD:
        raise MoneyOutOfRange("not from 0 to 1,000,000,000 USD")
    return int(amount.quantize(_NANO, context=_CONTEXT).scaleb(9, context=_CONTEXT))


def usd_text(nano: int) -> str:
    """Nano-USD as USD in plain decimal notation, exact: ``0.00005``, ``1``, ``0``."""
    whole, fraction = divmod(abs(nano), NANO_PER_USD)
    decimals = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{'-' if nano < 0 else ''}{whole}{decimals}"


def nano_ceil(amount: Decimal) -> int:
    """A USD amount as nano-USD, rounded up: what is held or charged is never less than what it costs (design §6)."""
    if not amount.is_finite():
        raise MoneyOutOfRange("not a finite amount")
    return math.ceil(Fraction(amount) * NANO_PER_USD)  # a Decimal product would round by the thread's context first


class UsdNumber:
    """Marks nano-USD in an answer: shared.answers writes it as an exact JSON number.

    A plain class on purpose: pydantic and orjson would take a dataclass or a named tuple apart.
    """

    __slots__ = ("nano",)

    def __init__(self, nano: int) -> None:
        self.nano = nano

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UsdNumber) and self.nano == other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __repr__(self) -> str:
        return f"UsdNumber({usd_text(self.nano)})"


def _decimal(value: object) -> Decimal:
    match value:
        case bool():
            raise NotMoney("a boolean is no amount")
        case int() | Decimal():
            return Decimal(value)
        case float():
            return Decimal(repr(value))
        case str():
            return _decimal_of_text(value)
        case _:
            raise NotMoney("not a number")


def _decimal_of_text(text: str) -> Decimal:
    if len(text) > _DECIMAL_TEXT_LENGTH_MAX or not _DECIMAL_TEXT.fullmatch(text):
        raise NotMoney("not a decimal number")
    try:
        return Decimal(text)
    except InvalidOperation as fault:
        raise MoneyOutOfRange("not a finite amount") from fault


def _requested(value: object) -> int:
    try:
        return parse_usd(value)
    except NotMoney as fault:
        raise PydanticCustomError("wrong_type", "is not a number or a decimal string (USD)") from fault
    except MoneyOutOfRange as fault:
        raise PydanticCustomError("out_of_range", "is not from 0 to 1,000,000,000 USD") from fault


MONEY_VALIDATOR = PlainValidator(_requested)

Money = Annotated[int, MONEY_VALIDATOR, WithJsonSchema({"type": "number"})]
"""Nano-USD of a request. ``Money | None`` in a ``Body`` takes ``""`` as null, too (§1.3)."""

Usd = Annotated[int, PlainSerializer(UsdNumber, return_type=Any), WithJsonSchema({"type": "number"})]
"""Nano-USD of an answer."""
