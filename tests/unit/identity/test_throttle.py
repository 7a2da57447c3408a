"""The rules of the throttle: ten failures at one name, a hundred from one source, and then silence (§5.6)."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from services.identity.domain.throttle import (
    PAIR_FAILURES_MAX,
    Counted,
    Failures,
    Limits,
    blocked_until,
    count,
    forgive,
    over_at,
    source_of,
)

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LIMITS = Limits(source_failures_max=100, window=60 * SECOND, block=300 * SECOND)
NONE = Failures()


def failed(number: int, since: datetime = NOON, every: timedelta = SECOND / 100) -> Failures:
    """So many failures, one after the other."""
    return Failures(tuple(since + each * every for each in range(number)))


def refused(counted: Counted) -> bool:
    return counted.refused_until is not None


# It decides


def test_an_attempt_counts_on_its_source_and_on_its_pair_before_it_is_looked_at() -> None:
    assert count(failed(3), failed(2), LIMITS, NOON + SECOND) == Counted(
        Failures((*failed(3).at, NOON + SECOND)), Failures((*failed(2).at, NOON + SECOND))
    )


def test_the_tenth_at_one_name_is_heard_and_the_eleventh_is_not() -> None:
    now = NOON + SECOND
    assert not refused(count(failed(9), failed(9), LIMITS, now))
    assert count(failed(10), failed(10), LIMITS, now) == Counted(
        failed(10), dataclasses.replace(failed(10), blocked_until=now + LIMITS.block), now + LIMITS.block
    )


def test_the_hundredth_of_one_source_is_heard_and_the_next_is_not_at_whatever_name() -> None:
    now = NOON + SECOND
    assert not refused(count(failed(99), NONE, LIMITS, now))
    assert count(failed(100), NONE, LIMITS, now) == Counted(
        dataclasses.replace(failed(100), blocked_until=now + LIMITS.block), NONE, now + LIMITS.block
    )


def test_how_many_a_source_may_have_is_given() -> None:
    few = dataclasses.replace(LIMITS, source_failures_max=2)
    assert not refused(count(failed(1), NONE, few, NOON + SECOND))
    assert refused(count(failed(2), NONE, few, NOON + SECOND))


def test_whoever_comes_all_at_once_is_counted_one_by_one() -> None:
    source, pair, heard = NONE, NONE, 0
    for _ in range(50):
        source, pair, until = dataclasses.astuple(count(source, pair, LIMITS, NOON))
        source, pair = Failures(*source), Failures(*pair)
        heard += until is None
    assert heard == PAIR_FAILURES_MAX
    assert len(source.at) == len(pair.at) == PAIR_FAILURES_MAX


# It refuses


@pytest.mark.parametrize("seconds", [0, 1, 299])
def test_who_is_blocked_is_refused_and_neither_counted_nor_blocked_for_longer(seconds: int) -> None:
    now, blocked = NOON + seconds * SECOND, Failures(failed(10).at, NOON + LIMITS.block)
    for source, pair in ((failed(10), blocked), (blocked, NONE), (blocked, blocked)):
        assert count(source, pair, LIMITS, now) == Counted(source, pair, NOON + LIMITS.block)


def test_who_is_blocked_twice_waits_for_the_later_end() -> None:
    sooner, later = Failures(blocked_until=NOON + SECOND), Failures(blocked_until=NOON + 2 * SECOND)
    assert blocked_until((sooner, later), NOON) == blocked_until((later, sooner), NOON) == NOON + 2 * SECOND
    assert blocked_until((sooner, later), NOON + SECOND) == NOON + 2 * SECOND


def test_eleven_are_too_many_in_any_sixty_seconds_wherever_a_minute_begins() -> None:
    slow = failed(10, every=6 * SECOND)  # the last at 54 s
    assert refused(count(slow, slow, LIMITS, NOON + 59 * SECOND))
    assert not refused(count(slow, slow, LIMITS, NOON + 60 * SECOND))


# It stays quiet


def test_a_failure_counts_no_longer_after_the_window() -> None:
    now = NOON + LIMITS.window
    assert count(failed(1), failed(1), LIMITS, now) == Counted(Failures((now,)), Failures((now,)))


def test_after_a_block_all_begins_anew() -> None:
    now = NOON + LIMITS.block
    longer = dataclasses.replace(LIMITS, window=2 * LIMITS.block)
    blocked = Failures(failed(10).at, now)
    assert count(NONE, blocked, longer, now) == Counted(Failures((now,)), Failures((now,)))


def test_nobody_is_blocked_for_what_another_did() -> None:
    assert blocked_until((), NOON) is None
    assert blocked_until((failed(9), failed(9)), NOON) is None
    assert blocked_until((Failures(blocked_until=NOON),), NOON) is None


# Who was right is forgiven


def test_who_was_right_did_not_fail() -> None:
    counted = count(failed(3), failed(3), LIMITS, NOON + SECOND)
    assert forgive(counted.pair, PAIR_FAILURES_MAX, NOON + SECOND) == failed(3)


def test_of_two_at_the_same_instant_one_is_forgiven() -> None:
    assert forgive(Failures((NOON, NOON)), PAIR_FAILURES_MAX, NOON) == Failures((NOON,))


def test_what_failed_before_is_not_forgiven() -> None:
    blocked = Failures(failed(10).at, NOON + LIMITS.block)
    assert forgive(blocked, PAIR_FAILURES_MAX, NOON - SECOND) == blocked


def test_a_block_that_came_of_counting_one_who_was_right_is_lifted() -> None:
    counted = count(failed(9), failed(9), LIMITS, NOON + SECOND)
    blocked = count(counted.source, counted.pair, LIMITS, NOON + SECOND).pair
    assert blocked.blocked_until is not None
    assert forgive(blocked, PAIR_FAILURES_MAX, NOON + SECOND) == failed(9)


def test_a_block_that_would_have_come_anyhow_stays() -> None:
    blocked = Failures(failed(11).at, NOON + LIMITS.block)
    assert forgive(blocked, PAIR_FAILURES_MAX, NOON).blocked_until == NOON + LIMITS.block


# When nothing is left of it


@pytest.mark.parametrize(
    ("failures", "end"),
    [
        (NONE, None),
        (Failures((NOON, NOON + SECOND)), NOON + SECOND + LIMITS.window),
        (Failures((NOON,), NOON + LIMITS.block), NOON + LIMITS.block),
        (Failures((), NOON + LIMITS.block), NOON + LIMITS.block),
        (Failures((NOON,), NOON + SECOND), NOON + LIMITS.window),
    ],
)
def test_failures_are_over_when_none_counts_and_nobody_is_blocked(failures: Failures, end: datetime | None) -> None:
    assert over_at(failures, LIMITS) == end


# Sources


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:C000:0207", "192.0.2.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:0:0:0:3", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_source_is_an_ipv4_address_or_64_bits_of_ipv6(address: str, source: str) -> None:
    assert source_of(address) == source
