"""What a refusal is at the end that asked."""

import pytest

from shared import wire
from shared.errors import Refused, Unavailable


@pytest.mark.parametrize("code", ["unavailable", "budgets_unavailable"])
def test_what_is_away_behind_the_service_that_was_asked_is_away(code: str) -> None:
    refused = wire._refused({"code": code, "message": "the database can't be reached"})
    assert isinstance(refused, Unavailable)
    assert (refused.code, refused.message) == (code, "the database can't be reached")
    assert refused.headers == {"Retry-After": "1"}


def test_a_refusal_comes_over_as_it_was_made() -> None:
    made = {
        "code": "budget_exceeded",
        "message": "no",
        "param": "p",
        "type": "t",
        "headers": {"x-should-retry": "false"},
    }
    refused = wire._refused(made)
    assert type(refused) is Refused
    assert (refused.code, refused.message, refused.param, refused.type) == ("budget_exceeded", "no", "p", "t")
    assert refused.headers == {"x-should-retry": "false"}


def test_a_reason_that_nobody_here_knows_is_that_something_is_away() -> None:
    assert isinstance(wire._refused({"code": "from a later version", "message": "no"}), Unavailable)
