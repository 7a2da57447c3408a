"""Money goes in rounded half-even to nine decimals and comes out exactly as it is stored (§1.3)."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from shared.money import (
    MAX_USD,
    NANO_PER_USD,
    Money,
    MoneyOutOfRange,
    NotMoney,
    Usd,
    UsdNumber,
    nano_ceil,
    parse_usd,
    usd_text,
)

NANO = st.integers(0, MAX_USD * NANO_PER_USD)
AMOUNTS = st.decimals(0, MAX_USD, allow_nan=False, allow_infinity=False)


class Asked(BaseModel):
    max_budget: Money | None = None


class Told(BaseModel):
    spend: Usd
    max_budget: Usd | None = None


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        (0, 0),
        (1, NANO_PER_USD),
        (Decimal("0.00005"), 50_000),
        ("0.00005", 50_000),
        ("100", 100 * NANO_PER_USD),
        ("1e2", 100 * NANO_PER_USD),
        (Decimal("1E+2"), 100 * NANO_PER_USD),
        (Decimal("-0"), 0),
        ("-0", 0),
        ("+1", NANO_PER_USD),
        (0.1, 100_000_000),
        (MAX_USD, MAX_USD * NANO_PER_USD),
        (Decimal("1e-400"), 0),
        pytest.param(Decimal("0." + "3" * 100_000), 333_333_333, id="100,000 decimals"),
    ],
)
def test_usd_is_read_as_nano_usd(value: object, nano: int) -> None:
    assert parse_usd(value) == nano


@pytest.mark.parametrize(
    ("value", "nano"),
    [("0.0000000005", 0), ("0.0000000015", 2), ("0.0000000025", 2), ("0.00000000050001", 1), ("0.0000000024", 2)],
)
def test_usd_is_rounded_half_even_to_nine_decimals(value: str, nano: int) -> None:
    assert parse_usd(value) == parse_usd(Decimal(value)) == nano


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        "",
        " 1",
        "1 ",
        "1,5",
        "1_000",
        "0x10",
        "NaN",
        "Infinity",
        "one",
        "\u0661",
        "1\n",
        ".",
        "1.",
        b"1",
        [],
        {},
        [1],
        object(),
        pytest.param("1" * 1_001, id="too long a text"),
    ],
)
def test_what_is_no_number_is_no_money(value: object) -> None:
    with pytest.raises(NotMoney):
        parse_usd(value)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        "-1",
        Decimal("-1e-30"),
        "1000000000.0000000001",
        MAX_USD + 1,
        10**400,
        "1e400",
        "1e999999999",
        "1e9999999999999999999999",
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        float("nan"),
        float("inf"),
        -0.1,
        Decimal("1E+999999"),
    ],
)
def test_money_that_is_negative_absurd_or_not_finite_is_out_of_range(value: object) -> None:
    with pytest.raises(MoneyOutOfRange):
        parse_usd(value)


@given(st.one_of(st.text(), st.floats(), st.booleans(), st.integers(), st.decimals(allow_nan=True), st.none()))
def test_anything_is_money_in_its_bounds_or_a_value_error(value: object) -> None:
    try:
        nano = parse_usd(value)
    except ValueError:
        return
    assert 0 <= nano <= MAX_USD * NANO_PER_USD


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (50_000, "0.00005"),
        (NANO_PER_USD, "1"),
        (10 * NANO_PER_USD, "10"),
        (1_500_000_000, "1.5"),
        (-1, "-0.000000001"),
        (-NANO_PER_USD, "-1"),
        (MAX_USD * NANO_PER_USD, "1000000000"),
    ],
)
def test_nano_usd_is_written_in_plain_decimals(nano: int, text: str) -> None:
    assert usd_text(nano) == text


@given(NANO)
def test_written_money_reads_as_itself(nano: int) -> None:
    assert parse_usd(usd_text(nano)) == nano
    assert Decimal(usd_text(nano)) * NANO_PER_USD == nano


@given(AMOUNTS)
def test_rounding_moves_an_amount_by_half_a_nano_usd_at_most(amount: Decimal) -> None:
    assert abs(Fraction(parse_usd(amount), NANO_PER_USD) - Fraction(amount)) <= Fraction(1, 2 * NANO_PER_USD)


@pytest.mark.parametrize(
    ("amount", "nano"),
    [
        ("0", 0),
        ("0.000000001", 1),
        ("0.0000000010000000000000000000000000000001", 2),
        ("1e-30", 1),
        ("1.5", 1_500_000_000),
    ],
)
def test_what_is_held_is_rounded_up(amount: str, nano: int) -> None:
    assert nano_ceil(Decimal(amount)) == nano


@given(AMOUNTS)
def test_a_held_amount_covers_its_cost_by_less_than_a_nano_usd(amount: Decimal) -> None:
    assert 0 <= nano_ceil(amount) - Fraction(amount) * NANO_PER_USD < 1


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity"])
def test_an_amount_that_is_not_finite_is_never_held(amount: str) -> None:
    with pytest.raises(MoneyOutOfRange):
        nano_ceil(Decimal(amount))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(True, "wrong_type"), ([], "wrong_type"), ("much", "wrong_type"), (-1, "out_of_range"), ("1e400", "out_of_range")],
)
def test_a_request_says_what_is_wrong_with_its_money(value: object, reason: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Asked.model_validate({"max_budget": value})
    assert [(fault["type"], fault["loc"]) for fault in refusal.value.errors()] == [(reason, ("max_budget",))]


def test_a_requests_money_may_be_null() -> None:
    assert Asked.model_validate({"max_budget": None}).max_budget is None


def test_money_of_an_answer_is_marked_for_exact_rendering() -> None:
    assert Told(spend=50_000).model_dump() == {"spend": UsdNumber(50_000), "max_budget": None}


def test_a_usd_number_equals_one_of_the_same_amount_only() -> None:
    assert UsdNumber(1) == UsdNumber(1)
    assert len({UsdNumber(1), UsdNumber(1), UsdNumber(2)}) == 2
    assert UsdNumber(1) != 1
    assert repr(UsdNumber(50_000)) == "UsdNumber(0.00005)"


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_money_is_a_number_in_the_openapi_schema(mode: str) -> None:
    assert Asked.model_json_schema(mode=mode)["properties"]["max_budget"]["anyOf"][0] == {"type": "number"}  # type: ignore[arg-type]
    assert Told.model_json_schema(mode=mode)["properties"]["spend"]["type"] == "number"  # type: ignore[arg-type]
