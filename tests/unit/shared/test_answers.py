"""Answers are exact in money and of one form in time; refusals have the contract's two shapes (§1.3, §1.4)."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field

from shared.answers import Answer, JsonAnswer, error_answer, from_wire, json_bytes, to_wire
from shared.errors import REASONS, Refused, Unavailable
from shared.money import NANO_PER_USD, Usd, UsdNumber, usd_text

INSTANT = datetime(2026, 11, 24, 12, 47, 14, 583_000, tzinfo=UTC)
SHOWABLE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.integers().map(UsdNumber),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


class Role(StrEnum):
    ADMIN = "proxy_admin"


class Budget(Answer):
    max_budget: Usd | None


class Key(Answer):
    spend: Usd
    expires: datetime | None = None
    budget: Budget | None = None
    budgets: tuple[Budget, ...] = ()
    role: Role = Role.ADMIN
    metadata: dict[str, Any] = Field(default_factory=dict)
    extra: Any = None


def rendered(content: object) -> str:
    return json_bytes(content).decode()


def test_a_model_is_rendered_field_by_field() -> None:
    key = Key(
        spend=50_000,
        expires=INSTANT,
        budget=Budget(max_budget=NANO_PER_USD),
        budgets=(Budget(max_budget=None),),
        metadata={"a": 0.1},
    )
    assert rendered(key) == (
        '{"spend":0.00005,"expires":"2026-11-24T12:47:14.583000Z","budget":{"max_budget":1},'
        '"budgets":[{"max_budget":null}],"role":"proxy_admin","metadata":{"a":0.1},"extra":null}'
    )


def test_models_may_stand_in_lists_and_dicts() -> None:
    assert (
        rendered({"data": [Budget(max_budget=1)], "next": None}) == '{"data":[{"max_budget":0.000000001}],"next":null}'
    )


@pytest.mark.parametrize(
    ("nano", "number"),
    [
        (0, "0"),
        (50_000, "0.00005"),
        (1, "0.000000001"),
        (NANO_PER_USD, "1"),
        (10**18, "1000000000"),
        (-1, "-0.000000001"),
    ],
)
def test_money_is_the_exact_number(nano: int, number: str) -> None:
    assert rendered(Budget(max_budget=nano)) == f'{{"max_budget":{number}}}'


@given(st.integers(-(10**18), 10**18))
def test_money_that_is_read_back_exactly_is_what_was_stored(nano: int) -> None:
    number = json.loads(rendered(Budget(max_budget=nano)), parse_float=Decimal)["max_budget"]
    assert number * NANO_PER_USD == nano


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (INSTANT, "2026-11-24T12:47:14.583000Z"),
        (INSTANT.replace(microsecond=0), "2026-11-24T12:47:14.000000Z"),
        (INSTANT.astimezone(timezone(timedelta(hours=-8))), "2026-11-24T12:47:14.583000Z"),
        (date(2026, 11, 24), "2026-11-24"),
    ],
)
def test_times_are_utc_with_six_decimals(instant: date, text: str) -> None:
    assert rendered({"at": instant}) == f'{{"at":"{text}"}}'


@pytest.mark.parametrize("content", [datetime(2026, 11, 24), object(), Decimal("NaN"), {1, 2}, b"bytes"])
def test_what_has_no_form_is_an_error_of_ours(content: object) -> None:
    with pytest.raises(TypeError):
        json_bytes({"a": content})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (Decimal("0.1000"), "0.1000"),
        (Decimal("1E+2"), "1E+2"),
        (10**30, "1" + "0" * 30),
        ([-(2**63) - 1, 2**64], "[-9223372036854775809,18446744073709551616]"),
        (
            {"a": {"b": [2**64, Budget(max_budget=1), INSTANT]}},
            '{"a":{"b":[18446744073709551616,{"max_budget":0.000000001},"2026-11-24T12:47:14.583000Z"]}}',
        ),
        (True, "true"),
    ],
)
def test_other_numbers_are_exact_too(content: object, text: str) -> None:
    assert rendered(content) == text


def test_half_a_surrogate_pair_is_shown_as_a_question_mark() -> None:
    assert rendered({"a\ud800": ["\udfff"]}) == '{"a?":["?"]}'


@given(SHOWABLE)
def test_whatever_may_be_shown_is_rendered(content: Any) -> None:
    json.loads(json_bytes(content))


def test_an_answer_is_json() -> None:
    answer = JsonAnswer(Budget(max_budget=None), 201, {"Location": "/keystead/v1/budgets/a"})
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == "/keystead/v1/budgets/a"
    assert answer.body == b'{"max_budget":null}'


def test_an_answer_has_no_field_but_its_own() -> None:
    with pytest.raises(ValueError, match="extra"):
        Budget(max_budget=None, min_budget=1)  # type: ignore[call-arg]


def test_a_compatible_routes_refusal_is_litellms_error() -> None:
    refused = Refused("max_budget is over the upper bound: 100000 > 100", reason="over_upper_bound", param="max_budget")
    answer = error_answer(refused, own_route=False, request_id="r-1")
    assert answer.status_code == 400
    assert json.loads(bytes(answer.body)) == {
        "error": {
            "message": "max_budget is over the upper bound: 100000 > 100",
            "type": "invalid_request_error",
            "param": "max_budget",
            "code": "400",
            "reason": "over_upper_bound",
        }
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"] == "r-1"


def test_an_own_routes_refusal_is_a_problem() -> None:
    answer = error_answer(Refused("there is no such budget", reason="not_found"), own_route=True)
    assert answer.status_code == 404
    assert json.loads(bytes(answer.body)) == {
        "type": "urn:keystead:problem:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "there is no such budget",
    }
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-request-id" not in answer.headers


def test_a_problem_names_its_field_and_its_record() -> None:
    refused = Refused("it is not yours", reason="not_yours", param="scope")
    problem = json.loads(bytes(error_answer(refused, own_route=True, call_id="c-1").body))
    assert problem["param"] == "scope"
    assert problem["instance"] == "/keystead/v1/refusals/c-1"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("not_yours", True),
        ("budget_exceeded", True),
        ("key_blocked", True),
        ("key_expired", True),
        ("key_unknown", False),
        ("not_found", False),
        ("unavailable", False),
    ],
)
@pytest.mark.parametrize("own_route", [True, False])
def test_the_call_id_is_shown_where_the_refusal_can_be_asked_about(reason: str, shown: bool, own_route: bool) -> None:
    answer = error_answer(Refused("no", reason=reason), own_route=own_route, call_id="c-1")
    assert answer.headers.get("x-litellm-call-id") == ("c-1" if shown else None)
    assert ("instance" in json.loads(bytes(answer.body))) is (shown and own_route)


@pytest.mark.parametrize("reason", sorted(REASONS))
@pytest.mark.parametrize("own_route", [True, False])
def test_every_reason_has_its_answer(reason: str, own_route: bool) -> None:
    answer = error_answer(Refused("no", reason=reason), own_route=own_route, request_id="r", call_id="c")
    assert answer.status_code == REASONS[reason].status
    assert (answer.headers.get("www-authenticate") == "Bearer") is (answer.status_code == 401)
    assert answer.headers["cache-control"] == "no-store"


def test_a_refusals_own_headers_are_sent() -> None:
    answer = error_answer(Refused("GET", reason="method_not_allowed", headers={"Allow": "GET"}), own_route=False)
    assert answer.headers["allow"] == "GET"
    assert error_answer(Unavailable("later"), own_route=False).headers["retry-after"] == "1"


def test_a_refusals_own_type_is_told() -> None:
    refused = Refused("no", reason="model_not_allowed", type="user_model_access_denied", param="model")
    assert json.loads(bytes(error_answer(refused, own_route=False).body))["error"]["type"] == "user_model_access_denied"


def test_an_answer_for_another_service_is_plain_json() -> None:
    key = Key(spend=50_000, expires=INSTANT, budget=Budget(max_budget=None), metadata={"a": "b"})
    wire = to_wire(key)
    assert json.loads(json.dumps(wire)) == wire
    assert wire["spend"] == "usd:0.00005"
    assert wire["expires"] == "2026-11-24T12:47:14.583000Z"
    assert json_bytes(from_wire(wire)) == json_bytes(key)


def test_money_can_not_be_forged_on_the_wire() -> None:
    key = Key(spend=0, metadata={"note": "usd:1000000", "other": "text:usd:1"})
    assert json.loads(json_bytes(from_wire(to_wire(key))))["metadata"] == {"note": "usd:1000000", "other": "text:usd:1"}


@given(SHOWABLE)
@example(UsdNumber(10**40 + 1))
def test_what_goes_over_the_wire_is_shown_as_it_would_have_been(content: Any) -> None:
    assert json_bytes(from_wire(json.loads(json.dumps(to_wire(content))))) == json_bytes(content)


def test_a_wire_answer_may_stand_in_a_model() -> None:
    shown = Key(spend=1, extra=[from_wire(to_wire(Budget(max_budget=50_000)))])
    assert json.loads(rendered(shown))["extra"] == [{"max_budget": 0.00005}]
    assert f'"max_budget":{usd_text(50_000)}' in rendered(shown)
