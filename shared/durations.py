"""Durations, and the budget windows that they name (§4.6)."""

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

ACCEPTED = "30s, 15m, 12h, 30d, 1w, 1mo, 1y"
NEVER = "-1"


class Unit(StrEnum):
    """A unit as it is written; ``min`` and ``hr`` are read as ``m`` and ``h``."""

    SECOND = "s"
    MINUTE = "m"
    HOUR = "h"
    DAY = "d"
    WEEK = "w"
    MONTH = "mo"
    YEAR = "y"


_SPELLINGS = {unit.value: unit for unit in Unit} | {"min": Unit.MINUTE, "hr": Unit.HOUR}
_WORDS = {"hourly": "1h", "daily": "1d", "weekly": "7d", "monthly": "30d"}
_SHAPE = re.compile(r"([1-9][0-9]{0,6})(s|min|mo|m|hr|h|d|w|y)")
_ELAPSED = {
    Unit.SECOND: timedelta(seconds=1),
    Unit.MINUTE: timedelta(minutes=1),
    Unit.HOUR: timedelta(hours=1),
    Unit.DAY: timedelta(days=1),
    Unit.WEEK: timedelta(weeks=1),
}
_MONTHS = {Unit.MONTH: 1, Unit.YEAR: 12}
# Ten years hold two or three leap days, so 3652 days are at most ten years from wherever they are counted.
_DAYS_MAX = timedelta(days=3652)
_MONTHS_MAX = 120


class DurationMalformed(ValueError):
    """Text that is no duration, or one of more than ten years; says what is wrong with "it"."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time as somebody wrote it."""

    count: int
    unit: Unit
    text: str

    def after(self, instant: datetime) -> datetime:
        """Where this length ends, in UTC; months and years by the calendar, clamped to the month's last day."""
        start = instant.astimezone(UTC)
        if self.unit in _MONTHS:
            return _months_after(start, self.count * _MONTHS[self.unit])
        return start + self.count * _ELAPSED[self.unit]


class Window(NamedTuple):
    """From ``start``, which is in it, to ``end``, which is not; both in UTC."""

    start: datetime
    end: datetime


def parse_duration(text: str) -> Duration:
    """The duration that ``text`` writes. Raises ``DurationMalformed``, a ``ValueError``."""
    shape = _SHAPE.fullmatch(_WORDS.get(text, text))
    if shape is None:
        raise DurationMalformed(f"is not a duration ({ACCEPTED})")
    duration = Duration(int(shape[1]), _SPELLINGS[shape[2]], text)
    if _over_ten_years(duration):
        raise DurationMalformed("is too long for a duration (at most 10 years)")
    return duration


def longer(a: Duration, b: Duration, now: datetime) -> bool:
    """Whether ``a``, counted from ``now``, ends later than ``b``."""
    return a.after(now) > b.after(now)


def window_of(duration: Duration, now: datetime, set_at: datetime, zone: ZoneInfo) -> Window:  # noqa: PLR0911 - a row a return
    """The window that ``now`` falls in, for a budget whose duration was set at ``set_at``: the table of §4.6.

    Windows of one duration follow each other without gap or overlap, before ``set_at`` too. Days and months begin at
    midnight in ``zone``; where its clock skips midnight, at the instant it does.
    """
    first, today = set_at.astimezone(zone).date(), now.astimezone(zone).date()
    match duration.unit, duration.count:
        case (Unit.DAY, 1) | (Unit.HOUR, 24):
            return _days(1, today, today, now, zone)
        case (Unit.DAY, 7) | (Unit.WEEK, 1):
            return _days(7, today - timedelta(days=today.weekday()), today, now, zone)
        case (Unit.DAY, 30) | (Unit.MONTH, 1):
            return _months(1, today, today, now, zone)
        case Unit.YEAR, 1:
            return _months(12, date(today.year, 1, 1), today, now, zone)
        case (Unit.MONTH | Unit.YEAR) as unit, count:
            return _months(count * _MONTHS[unit], first, today, now, zone)
        case (Unit.DAY | Unit.WEEK) as unit, count:
            return _days(count * _ELAPSED[unit].days, first, today, now, zone)
        case unit, count:
            return _elapsed(count * _ELAPSED[unit], _midnight(first, zone), now)


def _over_ten_years(duration: Duration) -> bool:
    if duration.unit in _MONTHS:
        return duration.count * _MONTHS[duration.unit] > _MONTHS_MAX
    return duration.count * _ELAPSED[duration.unit] > _DAYS_MAX


def _months_after(start: datetime, months: int) -> datetime:
    year, month = _year_and_month(start.year * 12 + start.month - 1 + months)
    return start.replace(year=year, month=month, day=min(start.day, monthrange(year, month)[1]))


def _year_and_month(months: int) -> tuple[int, int]:
    return months // 12, months % 12 + 1


def _days(every: int, first: date, today: date, now: datetime, zone: ZoneInfo) -> Window:
    def boundary(number: int) -> datetime:
        return _midnight(first + timedelta(days=number * every), zone)

    return _around(now, (today - first).days // every, boundary)


def _months(every: int, first: date, today: date, now: datetime, zone: ZoneInfo) -> Window:
    first_month, this_month = (day.year * 12 + day.month - 1 for day in (first, today))

    def boundary(number: int) -> datetime:
        return _midnight(date(*_year_and_month(first_month + number * every), 1), zone)

    return _around(now, (this_month - first_month) // every, boundary)


def _elapsed(length: timedelta, first: datetime, now: datetime) -> Window:
    start = first + (now.astimezone(UTC) - first) // length * length
    return Window(start, start + length)


def _around(now: datetime, guess: int, boundary: Callable[[int], datetime]) -> Window:
    """The window with ``now`` in it. The local date only guesses its number: clocks are also set across midnight."""
    number = guess
    while boundary(number) > now:
        number -= 1
    while boundary(number + 1) <= now:
        number += 1
    return Window(boundary(number), boundary(number + 1))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The day's midnight, the first if two; ``fold=0`` reads a skipped one by the offset before, as the skip itself."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def _checked(text: str) -> str:
    try:
        parse_duration(text)
    except DurationMalformed as fault:
        raise PydanticCustomError("duration_malformed", "{fault}", {"fault": str(fault)}) from fault
    return text


def _checked_life(text: str) -> str:
    return text if text == NEVER else _checked(text)


DurationText = Annotated[str, AfterValidator(_checked), WithJsonSchema({"type": "string", "examples": ["30d"]})]
"""A duration of a request or a setting, kept as it was sent."""

LifeText = Annotated[str, AfterValidator(_checked_life), WithJsonSchema({"type": "string", "examples": ["30d", "-1"]})]
"""A key's ``duration``: as ``DurationText``, or ``-1``, which is for ever."""
