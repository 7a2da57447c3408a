"""A window's row: what moves in it, what it tells, and which one holds now."""

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from services.budgets.domain.budget import Budget
from services.budgets.domain.window import (
    Window,
    prove,
    set_aside,
    set_limit,
    settle,
    tell,
    window_at,
    write_off,
)
from services.budgets.events import BudgetExhausted, BudgetThresholdReached
from tests.support.budgets import DAY, FOR_EVER, NOON, THIS_MONTH, TODAY, window

UTC_ZONE = ZoneInfo("UTC")
SHARES = (0.5, 0.8, 0.95)


def test_a_hold_is_set_aside() -> None:
    assert set_aside(window(100, spent=40), 60) == window(100, spent=40, leased=60)


def test_what_is_not_free_is_never_set_aside() -> None:
    with pytest.raises(ValueError, match="can't be set aside"):
        set_aside(window(100, spent=40), 61)


def test_a_free_call_sets_nothing_aside_where_nothing_is_free() -> None:
    assert set_aside(window(5, spent=10), 0) == window(5, spent=10)


def test_settling_gives_the_rest_back() -> None:
    assert settle(window(100, leased=60), held=60, charged=25) == window(100, spent=25)


def test_nothing_is_charged_beyond_the_hold() -> None:
    with pytest.raises(ValueError, match="can't be charged"):
        settle(window(100, leased=60), held=60, charged=61)


def test_what_is_written_off_is_spent_as_presumed() -> None:
    assert write_off(window(100, leased=60), held=60) == window(100, spent=60, presumed=60)


def test_what_is_proven_is_recorded_and_the_rest_given_back() -> None:
    assert prove(window(100, spent=70, presumed=60), held=60, charged=25) == window(100, spent=35)


def test_a_hold_can_not_end_twice() -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        settle(window(100), held=60, charged=0)
    with pytest.raises(ValueError, match="less than nothing"):
        prove(window(100, spent=70), held=60, charged=25)


# Limits


def test_a_raised_limit_is_the_ceiling() -> None:
    assert set_limit(window(100, spent=40), 200) == window(200, spent=40)


def test_a_lowered_limit_stops_admission_at_once_and_waits_for_the_holds() -> None:
    lowered = set_limit(window(100, spent=40, leased=50), 60)
    assert (lowered.limit, lowered.ceiling, lowered.pending) == (60, 90, True)
    assert lowered.free < 0


def test_a_ceiling_falls_with_what_made_it_necessary_down_to_the_limit() -> None:
    lowered = set_limit(window(100, spent=40, leased=50), 60)
    settled = settle(lowered, held=20, charged=0)
    assert (settled.ceiling, settled.pending) == (70, True)
    settled = settle(settled, held=30, charged=5)
    assert (settled.ceiling, settled.pending) == (60, False)


def test_a_limit_below_what_is_spent_is_in_force_once_no_hold_is_open() -> None:
    lowered = set_limit(window(100, spent=80), 60)
    assert (lowered.ceiling, lowered.pending) == (80, False)


def test_without_a_limit_there_is_no_ceiling() -> None:
    unlimited = set_limit(window(100, spent=40), None)
    assert (unlimited.limit, unlimited.ceiling) == (None, None)
    assert set_limit(unlimited, 100) == window(100, spent=40)


# News


def news(told: Window, thresholds: tuple[float, ...] = SHARES) -> list[float | str]:
    _, events = tell(told, thresholds, NOON)
    return [e.threshold if isinstance(e, BudgetThresholdReached) else "exhausted" for e in events]


def test_a_threshold_is_told_when_recorded_spend_reaches_it() -> None:
    assert news(window(100, spent=49, leased=51)) == []
    assert news(window(100, spent=50)) == [0.5]
    assert news(window(100, spent=96)) == [0.5, 0.8, 0.95]


def test_a_threshold_is_told_once() -> None:
    told, _ = tell(window(100, spent=85), SHARES, NOON)
    assert news(told) == []
    assert news(replace(told, spent=96)) == [0.95]


def test_nothing_left_is_told_once() -> None:
    told, events = tell(window(100, spent=100), (), NOON)
    assert events == [
        BudgetExhausted(
            scope="key:k1", window_start=FOR_EVER[0], limit_nano_usd=100, spent_nano_usd=100, exhausted_at=NOON
        )
    ]
    assert news(told, ()) == []


def test_a_limit_of_nothing_and_no_limit_have_no_thresholds() -> None:
    assert news(window(0)) == []
    assert news(window(None, spent=10**12)) == []


def test_a_share_that_no_float_is_exactly_is_reached_exactly() -> None:
    assert news(window(1000, spent=949), (0.95,)) == []
    assert news(window(1000, spent=950), (0.95,)) == [0.95]


# Which window


def test_a_budget_without_duration_has_one_window_for_ever() -> None:
    key = window_at("key:k1", Budget(5), NOON, UTC_ZONE)
    assert (key.start, key.end) == FOR_EVER
    assert window().resets_at is None


@pytest.mark.parametrize(("duration", "bounds"), [("1d", TODAY), ("30d", THIS_MONTH), ("1mo", THIS_MONTH)])
def test_a_duration_names_the_window_that_holds_now(duration: str, bounds: object) -> None:
    key = window_at("key:k1", Budget(5, duration, NOON - 40 * DAY), NOON, UTC_ZONE)
    assert (key.start, key.end) == bounds


def test_windows_begin_at_midnight_in_the_zone_of_the_settings() -> None:
    key = window_at("key:k1", Budget(5, "1d", NOON), NOON, ZoneInfo("Asia/Tokyo"))
    assert key.start.isoformat() == "2026-11-23T15:00:00+00:00"
