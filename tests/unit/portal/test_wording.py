"""How amounts, moments and durations are said."""

from decimal import Decimal

import pytest

from services.portal import wording


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0", "$0.00"),
        ("5", "$5.00"),
        ("0.5", "$0.50"),
        ("1234.5", "$1,234.50"),
        ("12.3456", "$12.35"),
        ("0.0003", "$0.0003"),
        ("0.00005", "$0.00005"),
        ("0.012345", "$0.0123"),
        ("0.000000001", "$0.000000001"),
        ("0.9999", "$1.00"),
        ("1000000000", "$1,000,000,000.00"),
        ("5E+2", "$500.00"),
    ],
)
def test_an_amount_has_cents_or_as_many_decimals_as_it_needs(amount: str, said: str) -> None:
    assert wording.usd(Decimal(amount)) == said


def test_a_moment_is_said_in_utc_whatever_zone_it_came_in() -> None:
    assert wording.moment("2026-11-24T12:47:14.583000Z") == "24 Nov 2026, 12:47 UTC"
    assert wording.moment("2026-03-01T00:30:00+02:00") == "28 Feb 2026, 22:30 UTC"


@pytest.mark.parametrize(
    ("duration", "said"),
    [("1d", "day"), ("24h", "day"), ("30d", "month"), ("1mo", "month"), ("12h", "12 hours"), ("90d", "90 days")],
)
def test_a_window_is_said_by_the_calendar_it_follows(duration: str, said: str) -> None:
    assert wording.window(duration) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (61, "2 minutes"), (300, "5 minutes")]
)
def test_a_wait_is_never_said_too_short(seconds: int, said: str) -> None:
    assert wording.wait(seconds) == said


def test_a_message_of_the_api_becomes_a_sentence() -> None:
    assert wording.sentence("max_budget is over the upper bound: 5 > 1") == "Max_budget is over the upper bound: 5 > 1."
    assert wording.sentence("Done.") == "Done."
