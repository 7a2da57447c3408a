"""What a key may be given: upper bounds (§4.2), the owner's reach, and the key that it is made with (§2.2 *6, D44)."""

from datetime import timedelta
from typing import Any

import pytest

from services.keys.domain import KEY
from services.keys.events import KeyTerms
from services.keys.limits import Limits, ModelNotAllowed, ModelUnknown, OverOwnLimit, OverUpperBound
from tests.support.given import given
from tests.support.keys import NOON, USD, generate, generated, update, updated

MONTH = NOON + timedelta(days=30)
WEEK = NOON + timedelta(days=7)
UPPER = KeyTerms(
    max_budget_nano_usd=100 * USD,
    budget_duration="30d",
    duration="30d",
    expires_at=MONTH,
    tpm_limit=1_000_000,
    rpm_limit=100,
    max_parallel_requests=10,
)
FILLED: dict[str, Any] = UPPER.model_dump() | {"budget_set_at": NOON}
BOUNDED = Limits(upper=UPPER, known_models=frozenset({"fast", "priced"}))

MAKER = KeyTerms(
    max_budget_nano_usd=5 * USD,
    budget_duration="7d",
    budget_set_at=NOON,
    models=("fast",),
    duration="90d",
    expires_at=WEEK,
    rpm_limit=7,
)
WITH_KEY = Limits(maker=MAKER, known_models=frozenset({"fast", "priced"}))


def owned(*models: str, budget: int | None = None) -> Limits:
    """The owner may call ``models`` and has ``budget``."""
    return Limits(owner_models=models, owner_budget_nano_usd=budget, known_models=frozenset({"fast", "priced"}))


# The upper bounds.


def test_what_is_missing_is_set_to_the_upper_bound() -> None:
    given(KEY).when(generate(BOUNDED)).then(generated(**FILLED))


def test_a_key_may_have_all_of_the_upper_bounds() -> None:
    asked = generate(BOUNDED, max_budget_nano_usd=100 * USD, budget_duration="monthly", duration="30d")
    given(KEY).when(asked).then(generated(**FILLED | {"budget_duration": "monthly"}))


def test_what_is_within_the_upper_bounds_stays_as_it_was_asked_for() -> None:
    asked = generate(BOUNDED, max_budget_nano_usd=0, budget_duration="1d", duration="1w")
    terms = {"max_budget_nano_usd": 0, "budget_duration": "1d", "duration": "1w", "expires_at": WEEK}
    given(KEY).when(asked).then(generated(**FILLED | terms))


@pytest.mark.parametrize(
    ("asked", "param", "sentence"),
    [
        ({"max_budget_nano_usd": 100_000 * USD}, "max_budget", "max_budget is over the upper bound: 100000 > 100"),
        ({"budget_duration": "31d"}, "budget_duration", "budget_duration is over the upper bound: 31d > 30d"),
        ({"duration": "31d"}, "duration", "duration is over the upper bound: 31d > 30d"),
        ({"duration": "-1"}, "duration", "duration is over the upper bound: no limit > 30d"),
        ({"tpm_limit": 1_000_001}, "tpm_limit", "tpm_limit is over the upper bound: 1000001 > 1000000"),
        ({"rpm_limit": 101}, "rpm_limit", "rpm_limit is over the upper bound: 101 > 100"),
        (
            {"max_parallel_requests": 11},
            "max_parallel_requests",
            "max_parallel_requests is over the upper bound: 11 > 10",
        ),
    ],
)
def test_more_than_an_upper_bound_is_refused(asked: dict[str, Any], param: str, sentence: str) -> None:
    for command in (
        given(KEY).when(generate(BOUNDED, **asked)),
        given(KEY, generated()).when(update(BOUNDED, **asked)),
    ):
        refused = command.refused(OverUpperBound)
        assert (refused.param, refused.message, refused.status) == (param, sentence, 400)


@pytest.mark.parametrize(
    "field", ["max_budget_nano_usd", "budget_duration", "duration", "tpm_limit", "rpm_limit", "max_parallel_requests"]
)
def test_null_is_over_an_upper_bound_on_update(field: str) -> None:
    given(KEY, generated(**FILLED)).when(update(BOUNDED, **dict[str, Any]({field: None}))).refused(OverUpperBound)


def test_an_update_is_asked_only_about_what_it_changes() -> None:
    given(KEY, generated()).when(update(BOUNDED, key_alias="old")).then(updated(key_alias="old"))


def test_without_upper_bounds_a_key_may_have_no_limits_at_all() -> None:
    given(KEY).when(generate()).then(generated())


# The owner.


def test_a_key_may_have_its_users_whole_budget() -> None:
    asked = generate(owned(budget=USD), max_budget_nano_usd=USD)
    given(KEY).when(asked).then(generated(max_budget_nano_usd=USD, budget_set_at=NOON))


def test_a_key_above_its_users_budget_is_refused() -> None:
    refused = given(KEY).when(generate(owned(budget=USD), max_budget_nano_usd=USD + 1)).refused(OverOwnLimit)
    assert refused.message == "max_budget is over the user's own: 1.000000001 > 1"


def test_a_key_without_a_budget_is_held_by_its_users() -> None:
    given(KEY).when(generate(owned(budget=USD))).then(generated())


def test_the_upper_bound_is_told_before_the_users_own_budget() -> None:
    limits = Limits(upper=UPPER, owner_budget_nano_usd=USD)
    given(KEY).when(generate(limits, max_budget_nano_usd=101 * USD)).refused(OverUpperBound)


def test_a_model_that_is_not_configured_is_unknown() -> None:
    refused = given(KEY).when(generate(models=("fast", "gone"))).refused(ModelUnknown)
    assert (refused.param, refused.status) == ("models", 400)
    given(KEY, generated()).when(update(models=("gone",))).refused(ModelUnknown)


def test_only_a_user_is_given_no_models_by_name() -> None:
    given(KEY).when(generate(models=("no-default-models",))).refused(ModelUnknown)


@pytest.mark.parametrize("models", [(), ("fast",), ("fast", "priced"), ("all-proxy-models",), ("all-team-models",)])
def test_a_key_may_name_what_its_owner_may_call(models: tuple[str, ...]) -> None:
    for limits in (owned(), owned("all-proxy-models"), owned("priced", "fast")):
        given(KEY).when(generate(limits, models=models)).then(generated(models=models))


@pytest.mark.parametrize("owner_models", [("priced",), ("no-default-models",), ("no-default-models", "fast")])
def test_a_model_that_its_owner_may_not_call_is_refused(owner_models: tuple[str, ...]) -> None:
    refused = given(KEY).when(generate(owned(*owner_models), models=("fast",))).refused(ModelNotAllowed)
    assert (refused.status, refused.type, refused.param) == (403, "user_model_access_denied", "models")
    given(KEY, generated()).when(update(owned(*owner_models), models=("fast",))).refused(ModelNotAllowed)


# The key that it is made with.


def test_a_key_made_with_a_key_has_its_limits_where_none_were_asked_for() -> None:
    given(KEY).when(generate(WITH_KEY)).then(generated(**MAKER.model_dump() | {"duration": None}))


def test_of_two_bounds_the_lower_one_fills() -> None:
    terms = FILLED | {
        "max_budget_nano_usd": 5 * USD,
        "budget_duration": "7d",
        "rpm_limit": 7,
        "models": ("fast",),
        "duration": None,
        "expires_at": WEEK,
    }
    given(KEY).when(generate(Limits(upper=UPPER, maker=MAKER))).then(generated(**terms))


def test_a_key_may_make_a_weaker_key() -> None:
    asked = generate(WITH_KEY, max_budget_nano_usd=USD, budget_duration="30d", duration="1d", models=("fast",))
    terms = {"budget_duration": "30d", "duration": "1d", "expires_at": NOON + timedelta(days=1)}
    expected = generated(max_budget_nano_usd=USD, budget_set_at=NOON, models=("fast",), rpm_limit=7, **terms)
    given(KEY).when(asked).then(expected)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"max_budget_nano_usd": 5 * USD + 1}, "max_budget"),
        ({"budget_duration": "1d"}, "budget_duration"),
        ({"duration": "8d"}, "duration"),
        ({"duration": "-1"}, "duration"),
        ({"rpm_limit": 8}, "rpm_limit"),
        ({"models": ("fast", "priced")}, "models"),
        ({"models": ("all-proxy-models",)}, "models"),
    ],
)
def test_a_key_makes_no_stronger_key(asked: dict[str, Any], param: str) -> None:
    for command in (
        given(KEY).when(generate(WITH_KEY, **asked)),
        given(KEY, generated()).when(update(WITH_KEY, **asked)),
    ):
        refused = command.refused(OverOwnLimit)
        assert (refused.param, refused.status) == (param, 400)


@pytest.mark.parametrize("changes", [{"max_budget_nano_usd": None}, {"duration": None}, {"models": ()}])
def test_a_key_takes_no_limit_away(changes: dict[str, Any]) -> None:
    given(KEY, generated(**MAKER.model_dump())).when(update(WITH_KEY, **changes)).refused(OverOwnLimit)


def test_a_key_raises_no_budget_that_starts_again_sooner_than_its_own() -> None:
    daily = generated(max_budget_nano_usd=USD, budget_duration="1d", budget_set_at=NOON)
    refused = given(KEY, daily).when(update(WITH_KEY, max_budget_nano_usd=5 * USD)).refused(OverOwnLimit)
    assert refused.param == "budget_duration"


def test_a_key_without_limits_makes_keys_without_limits() -> None:
    limits = Limits(maker=KeyTerms(), known_models=frozenset({"fast"}))
    asked = generate(limits, max_budget_nano_usd=USD, budget_duration="1d", models=("fast",))
    terms = {"max_budget_nano_usd": USD, "budget_duration": "1d", "budget_set_at": NOON, "models": ("fast",)}
    given(KEY).when(asked).then(generated(**terms))


def test_what_its_maker_may_call_is_also_told_as_the_limit() -> None:
    refused = given(KEY).when(generate(WITH_KEY, duration="8d")).refused(OverOwnLimit)
    assert refused.message == "duration is over the limit of the key used: 8d > 2026-12-01T12:47:15+00:00"
