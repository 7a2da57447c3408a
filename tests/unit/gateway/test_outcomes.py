"""What /health tells of the last five minutes' calls, without calling anybody (§1.6)."""

from datetime import UTC, datetime, timedelta

from services.gateway.outcomes import Outcomes
from shared.errors import Refused
from tests.support.calls import deployment


class Clock:
    """The instant, as a test sets it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


ONE, TWO = deployment("one", id="d1"), deployment("two", id="d2")
FAILED = Refused("it failed", reason="upstream_failed")
LATE = Refused("too late", reason="upstream_timeout")
REJECTED = Refused("bad temperature", reason="upstream_rejected")


def test_nothing_is_known_of_what_nobody_called() -> None:
    assert Outcomes(Clock()).report() == {
        "healthy_endpoints": [],
        "unhealthy_endpoints": [],
        "healthy_count": 0,
        "unhealthy_count": 0,
    }


def test_a_deployment_is_as_its_last_call_was() -> None:
    outcomes = Outcomes(Clock())
    outcomes.note(ONE, FAILED)
    outcomes.note(TWO, None)
    outcomes.note(ONE, None)
    outcomes.note(TWO, LATE)
    assert outcomes.report() == {
        "healthy_endpoints": [{"model": "openai/one", "model_id": "d1"}],
        "unhealthy_endpoints": [{"model": "openai/two", "model_id": "d2", "error": "upstream_timeout"}],
        "healthy_count": 1,
        "unhealthy_count": 1,
    }


def test_a_call_that_the_provider_found_malformed_says_nothing_against_it() -> None:
    outcomes = Outcomes(Clock())
    outcomes.note(ONE, REJECTED)
    assert (outcomes.report()["healthy_count"], outcomes.report()["unhealthy_count"]) == (1, 0)


def test_what_is_older_than_five_minutes_is_forgotten() -> None:
    clock = Clock()
    outcomes = Outcomes(clock)
    outcomes.note(ONE, FAILED)
    clock.now += timedelta(minutes=5)
    assert outcomes.report()["unhealthy_count"] == 1
    clock.now += timedelta(microseconds=1)
    assert outcomes.report()["unhealthy_count"] == 0
