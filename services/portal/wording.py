"""How amounts, moments and durations are said to a person. Times are UTC."""

import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

# Budget windows follow the calendar: these are a day, a week, a month and a year (§4.6).
_CALENDAR = {
    **dict.fromkeys(("1d", "24h", "daily"), "day"),
    **dict.fromkeys(("1w", "7d", "weekly"), "week"),
    **dict.fromkeys(("1mo", "30d", "monthly"), "month"),
    "1y": "year",
    **dict.fromkeys(("1h", "hourly"), "hour"),
}
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "hr": "hours", "d": "days"}
_UNITS |= {"w": "weeks", "mo": "months", "y": "years"}
_DURATION = re.compile(r"([0-9]+)([a-z]+)")


def usd(amount: Decimal | int) -> str:
    """``$1,234.50``, ``$0.0003``: cents, or below a dollar as many decimals as three digits need."""
    value = Decimal(amount)
    decimals = 2 if value >= 1 or not value else min(9, max(2, 2 - value.adjusted()))
    rounded = value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    whole, _, fraction = f"{rounded:,f}".partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


def moment(text: str) -> str:
    """``24 Nov 2026, 12:47 UTC`` for a time of the API's."""
    at = datetime.fromisoformat(text).astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def window(duration: str) -> str:
    """What follows "every" in the sentence about a budget: ``day``, ``90 days``."""
    if duration in _CALENDAR:
        return _CALENDAR[duration]
    found = _DURATION.fullmatch(duration)
    return f"{found[1]} {_UNITS.get(found[2], found[2])}" if found else duration


def wait(seconds: int) -> str:
    """How long to wait, rounded up: ``20 seconds``, ``5 minutes``."""
    amount, unit = (seconds, "second") if seconds < 60 else (-(-seconds // 60), "minute")
    return f"{amount} {unit}{'' if amount == 1 else 's'}"


def sentence(message: str) -> str:
    """A message of the API's, as a page says it."""
    return message[:1].upper() + message[1:].rstrip(".") + "."
