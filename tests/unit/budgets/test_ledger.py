"""The ledger's rows: what is stored of a call, and the digest that proves it."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from services.budgets.ledger import COLUMNS, INTEGER_MAX, canonical, digest, months_ahead, months_of, person_of, row_of
from services.budgets.requests import Usage
from tests.support.budgets import NOON, usage


def row(call: Usage | None = None, **more: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "hold_id": "h1",
        "admitted_at": NOON,
        "scopes": ["user:ada", "key:k1"],
        "held_nano_usd": 100,
        "billed_nano_usd": 51,
        "spend_nano_usd": 51,
    }
    return row_of(call or usage(), **(facts | more))


def test_a_row_has_every_column_and_nothing_that_identifies_a_person() -> None:
    stored = row(usage(ip="192.0.2.7", user_agent="curl/7.88.1", end_user="end-user-7"))
    assert tuple(stored) == COLUMNS
    for personal in ("192.0.2.7", "curl/7.88.1", "end-user-7"):
        assert personal not in str(stored)


def test_what_identifies_a_person_is_a_row_beside_it() -> None:
    call = usage(ip="192.0.2.7", user_agent="curl/7.88.1", end_user="end-user-7")
    assert person_of(call, row(call)) == {
        "admitted_at": "2026-11-24T12:00:00.000000+00:00",
        "hold_id": "h1",
        "user_id": "ada",
        "ip": "192.0.2.7",
        "user_agent": "curl/7.88.1",
        "end_user": "end-user-7",
    }


def test_scopes_are_in_their_order_and_times_in_utc() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))
    stored = row(admitted_at=elsewhere)
    assert stored["scopes"] == ["key:k1", "user:ada"]
    assert stored["admitted_at"] == "2026-11-24T12:00:00.000000+00:00"


def test_what_a_database_can_not_store_is_replaced() -> None:
    stored = row(usage(session_id="a\0b", request_tags=("t\0",), prompt_tokens=10**30, usage_object={"a": "\0"}))
    assert stored["session_id"] == "a\ufffdb"
    assert stored["request_tags"] == ["t\ufffd"]
    assert stored["prompt_tokens"] == INTEGER_MAX
    assert "\0" not in stored["usage_object"]


def test_a_digest_depends_on_every_column_and_not_on_the_order() -> None:
    first, second = row(), row(hold_id="h2")
    assert digest([first, second]) == digest([second, first])
    for name in COLUMNS:
        assert digest([first | {name: "another"}]) != digest([first])


def test_a_digest_is_the_sha_256_of_lines_of_json() -> None:
    assert digest([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest([{"hold_id": "h1", "b": None, "a": 1}]) == (
        "8faf5b35bdf121228e21740e73e96df895feedda4006d750ea9460a8cf530bb1"
    )


def test_a_stored_row_is_in_canonical_form_what_it_was_made_of() -> None:
    stored = row()
    read_back = stored | {
        name: datetime.fromisoformat(stored[name])
        for name in ("admitted_at", "started_at", "first_token_at", "ended_at")
    }
    assert canonical(read_back) == stored


def test_a_row_is_of_the_month_in_which_it_was_admitted() -> None:
    last = row(admitted_at=datetime(2026, 11, 30, 23, 59, tzinfo=UTC))
    first = row(admitted_at=datetime(2026, 12, 1, tzinfo=UTC))
    assert months_of([last, first]) == {date(2026, 11, 1), date(2026, 12, 1)}


def test_months_are_made_before_they_begin() -> None:
    assert months_ahead(NOON) == [date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1)]
