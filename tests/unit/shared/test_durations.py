"""Durations are read, compared and cut into windows as §4.6 says."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from shared.durations import (
    Duration,
    DurationMalformed,
    DurationText,
    LifeText,
    Unit,
    Window,
    longer,
    parse_duration,
    window_of,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
# Clocks that skip or repeat midnight, move by half an hour, or have lost or doubled a whole day.
ODD_ZONES = [
    "Africa/Cairo",
    "America/Havana",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
]
ZONES = st.one_of(st.sampled_from(ODD_ZONES), st.sampled_from(sorted(available_timezones()))).map(ZoneInfo)
INSTANTS = st.datetimes(datetime(1975, 1, 1), datetime(2120, 1, 1), timezones=st.just(UTC))
DURATIONS = st.one_of(
    st.sampled_from(["1d", "24h", "7d", "1w", "30d", "1mo", "1y", "1h", "hourly", "daily", "weekly", "monthly"]),
    st.builds("{}{}".format, st.integers(1, 120), st.sampled_from(["h", "m", "d", "w", "mo"])),
    st.builds("{}{}".format, st.integers(1, 10), st.just("y")),
    st.builds("{}s".format, st.integers(1, 9_999_999)),
).map(parse_duration)


class Asked(BaseModel):
    budget_duration: DurationText | None = None
    duration: LifeText | None = None


def at(text: str, zone: ZoneInfo = UTC_ZONE) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def window(duration: str, now: datetime = NOON, set_at: datetime = NOON, zone: ZoneInfo = UTC_ZONE) -> Window:
    return window_of(parse_duration(duration), now, set_at, zone)


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [
        ("30s", 30, Unit.SECOND),
        ("15m", 15, Unit.MINUTE),
        ("15min", 15, Unit.MINUTE),
        ("12h", 12, Unit.HOUR),
        ("12hr", 12, Unit.HOUR),
        ("30d", 30, Unit.DAY),
        ("1w", 1, Unit.WEEK),
        ("1mo", 1, Unit.MONTH),
        ("1y", 1, Unit.YEAR),
        ("9999999s", 9_999_999, Unit.SECOND),
        ("hourly", 1, Unit.HOUR),
        ("daily", 1, Unit.DAY),
        ("weekly", 7, Unit.DAY),
        ("monthly", 30, Unit.DAY),
    ],
)
def test_a_duration_is_a_count_and_a_unit_or_a_word(text: str, count: int, unit: Unit) -> None:
    assert parse_duration(text) == Duration(count, unit, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0d",
        "01d",
        "-1d",
        "+1d",
        "1",
        "d",
        "30x",
        "1D",
        "1MO",
        "1 d",
        " 1d",
        "1d ",
        "1d\n",
        "1.5d",
        "1e3s",
        "1d1h",
        "10000000s",
        "yearly",
        "-1",
        "1mon",
        "1hrs",
        "\u0661d",
        "1\u0000d",
        "\ud800",
        "1months",
        "Daily",
    ],
)
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(DurationMalformed, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["10y", "120mo", "3652d", "521w", "87648h", "5258880m"])
def test_ten_years_are_a_duration(text: str) -> None:
    assert parse_duration(text).after(NOON) <= parse_duration("10y").after(NOON)


@pytest.mark.parametrize("text", ["11y", "121mo", "3654d", "522w", "87720h", "9999999m", "9999999d", "9999999y"])
def test_more_than_ten_years_is_too_long(text: str) -> None:
    with pytest.raises(DurationMalformed, match="is too long"):
        parse_duration(text)


@given(st.text(alphabet="0123456789smhdwoyinr+- ", max_size=12))
def test_any_text_is_a_duration_of_its_own_or_malformed(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert duration.text == text
    assert NOON < duration.after(NOON) <= parse_duration("10y").after(NOON)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("90s", "2026-11-24T12:00:00", "2026-11-24T12:01:30"),
        ("1d", "2026-11-24T12:00:00", "2026-11-25T12:00:00"),
        ("30d", "2026-01-31T12:00:00", "2026-03-02T12:00:00"),
        ("1mo", "2026-01-31T12:00:00.000001", "2026-02-28T12:00:00.000001"),
        ("1mo", "2028-01-31T12:00:00", "2028-02-29T12:00:00"),
        ("2mo", "2026-12-31T00:00:00", "2027-02-28T00:00:00"),
        ("1y", "2028-02-29T00:00:00", "2029-02-28T00:00:00"),
        ("4y", "2028-02-29T00:00:00", "2032-02-29T00:00:00"),
    ],
)
def test_a_length_ends_by_elapsed_time_or_by_the_calendar(text: str, start: str, end: str) -> None:
    assert parse_duration(text).after(at(start)) == at(end)


def test_months_are_counted_in_utc() -> None:
    """The first of March in Auckland is still February in UTC."""
    auckland = datetime(2026, 3, 1, 6, tzinfo=timezone(timedelta(hours=13)))
    assert parse_duration("1mo").after(auckland) == at("2026-03-28T17:00:00")
    assert parse_duration("1mo").after(auckland).tzinfo is UTC


@pytest.mark.parametrize(
    ("a", "b", "now", "longer_"),
    [
        ("31d", "1mo", "2026-02-01T00:00:00", True),
        ("31d", "1mo", "2026-01-01T00:00:00", False),
        ("30d", "1mo", "2026-01-01T00:00:00", False),
        ("1y", "365d", "2028-01-01T00:00:00", True),
        ("1y", "365d", "2026-01-01T00:00:00", False),
        ("7d", "1w", "2026-01-01T00:00:00", False),
        ("25h", "1d", "2026-01-01T00:00:00", True),
    ],
)
def test_lengths_are_compared_by_where_they_end(a: str, b: str, now: str, longer_: bool) -> None:
    assert longer(parse_duration(a), parse_duration(b), at(now)) is longer_


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("1d", "2026-11-24", "2026-11-25"),
        ("24h", "2026-11-24", "2026-11-25"),
        ("daily", "2026-11-24", "2026-11-25"),
        ("7d", "2026-11-23", "2026-11-30"),
        ("1w", "2026-11-23", "2026-11-30"),
        ("weekly", "2026-11-23", "2026-11-30"),
        ("30d", "2026-11-01", "2026-12-01"),
        ("1mo", "2026-11-01", "2026-12-01"),
        ("monthly", "2026-11-01", "2026-12-01"),
        ("1y", "2026-01-01", "2027-01-01"),
        ("2mo", "2026-11-01", "2027-01-01"),
        ("12mo", "2026-11-01", "2027-11-01"),
        ("2y", "2026-11-01", "2028-11-01"),
        ("3d", "2026-11-24", "2026-11-27"),
        ("2w", "2026-11-24", "2026-12-08"),
        ("14d", "2026-11-24", "2026-12-08"),
        ("1h", "2026-11-24T12:00", "2026-11-24T13:00"),
        ("hourly", "2026-11-24T12:00", "2026-11-24T13:00"),
        ("5h", "2026-11-24T10:00", "2026-11-24T15:00"),
        ("90m", "2026-11-24T12:00", "2026-11-24T13:30"),
        ("48h", "2026-11-24", "2026-11-26"),
        ("86400s", "2026-11-24", "2026-11-25"),
    ],
)
def test_windows_of_a_budget_set_on_24_november(text: str, start: str, end: str) -> None:
    assert window(text) == Window(at(start), at(end))


@pytest.mark.parametrize(
    ("text", "now", "start", "end"),
    [
        ("2mo", "2027-01-01T00:00:00", "2027-01-01", "2027-03-01"),
        ("2mo", "2026-12-31T23:59:59.999999", "2026-11-01", "2027-01-01"),
        ("3d", "2026-11-27T00:00:00", "2026-11-27", "2026-11-30"),
        ("5h", "2026-11-25T00:30:00", "2026-11-24T20:00", "2026-11-25T01:00"),
        ("2y", "2029-06-01T00:00:00", "2028-11-01", "2030-11-01"),
        ("3d", "2026-11-23T12:00:00", "2026-11-21", "2026-11-24"),
        ("2mo", "2026-10-31T12:00:00", "2026-09-01", "2026-11-01"),
        ("5h", "2026-11-23T23:00:00", "2026-11-23T19:00", "2026-11-24T00:00"),
    ],
)
def test_later_and_earlier_windows_keep_to_the_day_it_was_set(text: str, now: str, start: str, end: str) -> None:
    assert window(text, now=at(now)) == Window(at(start), at(end))


@pytest.mark.parametrize(
    ("text", "now", "start", "end"),
    [
        ("1d", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
        ("1d", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
        ("1mo", "2026-10-31T22:59", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("1mo", "2026-10-31T23:00", "2026-10-31T23:00", "2026-11-30T23:00"),
        ("1y", "2026-12-31T23:00", "2026-12-31T23:00", "2027-12-31T23:00"),
        ("1h", "2026-10-25T00:30", "2026-10-25T00:00", "2026-10-25T01:00"),
    ],
)
def test_windows_begin_at_the_zones_own_midnight(text: str, now: str, start: str, end: str) -> None:
    assert window(text, now=at(now), set_at=at("2026-03-01T12:00"), zone=BERLIN) == Window(at(start), at(end))


def test_an_hour_begins_on_the_zones_own_hour() -> None:
    kathmandu = ZoneInfo("Asia/Kathmandu")  # 5 hours 45 ahead
    assert window("1h", zone=kathmandu) == Window(at("2026-11-24T11:15"), at("2026-11-24T12:15"))


def test_the_day_of_setting_is_the_zones_own() -> None:
    """23:30 UTC on the 24th is the 25th in Berlin."""
    late = at("2026-11-24T23:30")
    assert window("3d", now=late, set_at=late, zone=BERLIN).start == at("2026-11-24T23:00")


def test_a_day_whose_midnight_is_skipped_begins_when_the_clock_does() -> None:
    """Cairo went from 24 April 2026 00:00 to 01:00."""
    cairo = ZoneInfo("Africa/Cairo")
    day = window("1d", now=at("2026-04-24T12:00"), zone=cairo)
    assert day == Window(at("2026-04-23T22:00"), at("2026-04-24T21:00"))
    assert day.start.astimezone(cairo).hour == 1


def test_a_day_with_two_midnights_begins_at_the_first() -> None:
    """Havana set its clock from 1 November 2026 01:00 back to 00:00."""
    havana = ZoneInfo("America/Havana")
    assert window("1d", now=at("2026-11-01T12:00"), zone=havana) == Window(
        at("2026-11-01T04:00"), at("2026-11-02T05:00")
    )


def test_a_day_that_a_zone_left_out_has_no_window() -> None:
    """Apia went from 29 to 31 December 2011."""
    apia = ZoneInfo("Pacific/Apia")
    before = window("1d", now=at("2011-12-30T09:59:59"), zone=apia)
    after = window("1d", now=at("2011-12-30T10:00:00"), zone=apia)
    assert before.end == after.start == at("2011-12-30T10:00")
    assert after.start.astimezone(apia).day == 31


@given(DURATIONS, INSTANTS, INSTANTS, ZONES)
@example(parse_duration("1d"), at("2011-12-30T09:59:59"), NOON, ZoneInfo("Pacific/Apia"))
@example(parse_duration("2d"), at("2011-12-30T10:00"), NOON, ZoneInfo("Pacific/Apia"))
@example(parse_duration("1h"), at("2026-10-25T00:30"), NOON, BERLIN)
def test_now_is_in_its_window_and_windows_tile(
    duration: Duration, now: datetime, set_at: datetime, zone: ZoneInfo
) -> None:
    this = window_of(duration, now, set_at, zone)
    assert this.start <= now < this.end
    assert this.start.tzinfo is UTC
    assert this.end.tzinfo is UTC
    assert window_of(duration, this.start, set_at, zone) == this
    assert window_of(duration, this.end - timedelta(microseconds=1), set_at, zone) == this
    assert window_of(duration, this.end, set_at, zone).start == this.end
    assert window_of(duration, this.start - timedelta(microseconds=1), set_at, zone).end == this.start


@given(DURATIONS, INSTANTS, INSTANTS, ZONES)
def test_the_window_does_not_depend_on_how_an_instant_is_written(
    duration: Duration, now: datetime, set_at: datetime, zone: ZoneInfo
) -> None:
    elsewhere = timezone(timedelta(hours=9))
    assert window_of(duration, now.astimezone(elsewhere), set_at.astimezone(elsewhere), zone) == window_of(
        duration, now, set_at, zone
    )


@given(DURATIONS, INSTANTS, ZONES)
def test_elapsed_windows_are_all_of_one_length(duration: Duration, now: datetime, zone: ZoneInfo) -> None:
    assume(
        duration.unit in (Unit.SECOND, Unit.MINUTE, Unit.HOUR) and (duration.unit, duration.count) != (Unit.HOUR, 24)
    )
    this = window_of(duration, now, NOON, zone)
    assert this.end == duration.after(this.start)


@pytest.mark.parametrize("text", ["30d", "monthly", "15min", "1mo"])
def test_a_requests_duration_is_kept_as_it_was_sent(text: str) -> None:
    assert Asked.model_validate({"budget_duration": text}).budget_duration == text


@pytest.mark.parametrize("value", ["30x", "", "-1", "11y"])
def test_a_requests_bad_duration_is_malformed(value: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Asked.model_validate({"budget_duration": value})
    assert [(fault["type"], fault["loc"]) for fault in refusal.value.errors()] == [
        ("duration_malformed", ("budget_duration",))
    ]


def test_minus_one_is_a_life_for_ever_and_nothing_else_is_negative() -> None:
    assert Asked.model_validate({"duration": "-1"}).duration == "-1"
    with pytest.raises(ValidationError, match="duration_malformed"):
        Asked.model_validate({"duration": "-2"})
