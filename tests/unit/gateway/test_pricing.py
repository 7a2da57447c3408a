"""What tokens cost, and which rates hold."""

import math
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.pricing import (
    NANO_USD_MAX,
    TOKENS_MAX,
    Cost,
    KnownRates,
    Listed,
    Prices,
    Tier,
    Usage,
    choose_prices,
    cost,
    find_listed,
    read_usage,
)
from tests.support.calls import CHEAP, flat, rates

D = Decimal
NOTHING = KnownRates()
TABLE = Listed(((-1, KnownRates(Decimal(3), Decimal(4), Decimal(1), Decimal(5))),), 1_000, "1.2.3")


def known(input_usd: int | None = None, output_usd: int | None = None, cache_read_usd: int | None = None) -> KnownRates:
    amounts = [None if amount is None else Decimal(amount) for amount in (input_usd, output_usd, cache_read_usd)]
    return KnownRates(*amounts)


def test_a_recorded_call_costs_what_it_cost_there() -> None:
    assert cost(CHEAP, Usage(10, 20)) == Cost(10_000, 40_000)


def test_the_total_is_rounded_up_once_and_its_parts_sum_to_it() -> None:
    prices = flat("0.0000000004", "0.0000000004")
    assert cost(prices, Usage(1, 1)).total_nano_usd == 1
    assert cost(prices, Usage(1, 1)) == Cost(1, 0)
    assert cost(prices, Usage(3, 3)) == Cost(2, 1)


def test_cached_tokens_cost_their_own_rates() -> None:
    prices = flat("0.00001", "0.00002", "0.000001", "0.000012")
    usage = Usage(100, 0, cache_read_tokens=60, cache_creation_tokens=30)
    assert cost(prices, usage).input_nano_usd == 10 * 10_000 + 60 * 1_000 + 30 * 12_000


def test_a_free_or_unpriced_call_costs_nothing() -> None:
    assert cost(flat("0", "0"), Usage(1_000, 1_000)).total_nano_usd == 0
    assert cost(None, Usage(1_000, 1_000)).total_nano_usd == 0


def test_a_long_prompt_is_billed_at_its_tier_down_to_the_last_token() -> None:
    prices = Prices(
        (Tier(-1, rates("0.000001", "0.000001")), Tier(200, rates("0.000002", "0.000003"))), "litellm_params"
    )
    assert cost(prices, Usage(200, 1)) == Cost(200_000, 1_000)
    assert cost(prices, Usage(201, 1)) == Cost(402_000, 3_000)


def test_the_bound_of_a_rate_is_the_highest_that_the_prompt_could_reach() -> None:
    prices = Prices((Tier(-1, rates("1", "2", "1", "4")), Tier(200, rates("5", "3"))), "litellm_params")
    assert prices.input_rate_at_most(200) == 4
    assert prices.input_rate_at_most(201) == 5
    assert prices.output_rate_at_most(200) == 2
    assert prices.output_rate_at_most(201) == 3


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(0, TOKENS_MAX), st.integers(0, TOKENS_MAX), st.decimals(0, 1_000, places=12))
def test_a_cost_is_the_exact_one_rounded_up(prompt: int, completion: int, rate: Decimal) -> None:
    exact = Fraction(rate) * (prompt + completion) * 10**9
    charged = cost(flat(str(rate), str(rate)), Usage(prompt, completion))
    assert charged.total_nano_usd == min(math.ceil(exact), NANO_USD_MAX)
    assert charged.input_nano_usd >= 0
    assert charged.output_nano_usd >= 0


def test_each_rate_is_from_the_first_source_that_has_it() -> None:
    prices = choose_prices(known(input_usd=1), known(input_usd=7, output_usd=2), TABLE)
    assert prices is not None
    assert (prices.rates.input_usd, prices.rates.output_usd, prices.source) == (D(1), D(2), "litellm_params")
    second = choose_prices(known(output_usd=9), known(input_usd=7), TABLE)
    assert second is not None
    assert (second.rates.input_usd, second.rates.output_usd, second.source) == (D(7), D(9), "model_info")
    third = choose_prices(NOTHING, known(output_usd=9), TABLE)
    assert third is not None
    assert (third.rates.input_usd, third.rates.output_usd, third.source, third.version) == (
        D(3),
        D(9),
        "genai-prices",
        "1.2.3",
    )


def test_zero_is_a_price_and_free_means_cached_tokens_too() -> None:
    prices = choose_prices(known(input_usd=0, output_usd=0), NOTHING, TABLE)
    assert prices is not None
    assert cost(prices, Usage(1_000, 10, cache_read_tokens=500, cache_creation_tokens=500)).total_nano_usd == 0


def test_cache_rates_that_nobody_gives_are_the_input_rate() -> None:
    prices = choose_prices(known(input_usd=6, output_usd=1, cache_read_usd=2), NOTHING, None)
    assert prices is not None
    assert (prices.rates.cache_read_usd, prices.rates.cache_creation_usd) == (D(2), D(6))


def test_a_model_that_nobody_gives_an_input_rate_is_unpriced() -> None:
    assert choose_prices(NOTHING, NOTHING, None) is None
    assert choose_prices(known(output_usd=1), NOTHING, None) is None
    assert choose_prices(NOTHING, NOTHING, Listed(((-1, NOTHING),), 5)) is None


def test_a_configured_rate_holds_in_every_tier_of_the_table() -> None:
    tiers = ((-1, known(1, 2)), (200, known(3, 4)))
    prices = choose_prices(known(input_usd=9), NOTHING, Listed(tiers, None))
    assert prices is not None
    assert (prices.at(300).input_usd, prices.at(300).output_usd) == (D(9), D(4))


def test_the_table_knows_common_models_by_the_names_that_litellm_uses() -> None:
    listed = find_listed("openai", "gpt-4o-mini")
    assert listed is not None
    assert listed.max_input_tokens == 128_000
    assert listed.tiers == (
        (-1, KnownRates(Decimal("0.15") / 10**6, Decimal("0.6") / 10**6, Decimal("0.075") / 10**6, None)),
    )
    assert find_listed("gemini", "gemini-2.5-pro") is not None
    assert find_listed("xai", "grok-4") is not None


def test_the_table_has_tiers_by_the_length_of_the_prompt() -> None:
    listed = find_listed("gemini", "gemini-2.5-pro")
    assert listed is not None
    assert [above for above, _ in listed.tiers] == [-1, 200_000]
    assert listed.tiers[1][1].input_usd == Decimal("2.5") / 10**6


def test_a_rate_that_changes_by_the_hour_counts_at_its_highest() -> None:
    listed = find_listed("deepseek", "deepseek-chat")
    assert listed is not None
    assert listed.tiers[0][1].input_usd == Decimal("0.27") / 10**6


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "mock-gpt"),
        ("my-openai-proxy", "gpt-4o-mini"),
        ("ollama", "llama3"),
        ("openai", "gpt-4o-mini-search-preview"),  # a fee for each search, and it always searches
        ("openai", "gpt-audio"),  # audio tokens at a rate of their own
        ("perplexity", "sonar"),  # a fee for each request
    ],
)
def test_a_model_that_the_table_does_not_price_by_tokens_is_unpriced(provider: str, model: str) -> None:
    assert choose_prices(NOTHING, NOTHING, find_listed(provider, model)) is None


def test_the_table_is_not_imported_before_it_is_asked() -> None:
    asked = "import sys, services.gateway.models as m; sys.exit('genai_prices' in sys.modules)"
    subprocess.run([sys.executable, "-c", asked], check=True, timeout=60)


def test_usage_is_what_the_provider_reports() -> None:
    assert read_usage({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}) == Usage(10, 20)


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, (4, 0)),
        ({"prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 3}}, (4, 3)),
        ({"prompt_tokens_details": {"cached_tokens": None, "cache_write_tokens": 3}}, (0, 3)),
        ({"prompt_cache_hit_tokens": 5, "prompt_cache_miss_tokens": 5}, (5, 0)),
        ({"prompt_tokens_details": None}, (0, 0)),
        ({"prompt_tokens_details": "none"}, (0, 0)),
    ],
)
def test_cached_tokens_are_found_under_each_providers_name(details: dict[str, Any], expected: tuple[int, int]) -> None:
    usage = read_usage({"prompt_tokens": 10, "completion_tokens": 1} | details)
    assert usage is not None
    assert (usage.cache_read_tokens, usage.cache_creation_tokens) == expected


def test_reasoning_that_only_the_total_counts_is_output() -> None:
    assert read_usage({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}) == Usage(10, 105)


def test_an_embedding_needs_no_completion_tokens() -> None:
    assert read_usage({"prompt_tokens": 8, "total_tokens": 8}, output_expected=False) == Usage(8, 0)
    assert read_usage({"prompt_tokens": 8}, output_expected=False) == Usage(8, 0)
    assert read_usage({"prompt_tokens": 8}) is None


@pytest.mark.parametrize(
    "reported",
    [
        None,
        "10",
        [],
        {},
        {"completion_tokens": 1},
        {"prompt_tokens": 1},
        {"prompt_tokens": "1", "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": "1"},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": -1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": TOKENS_MAX + 1},
        {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}},
        {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -6}},
        {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": "x"}},
    ],
)
def test_usage_that_can_not_be_believed_is_none(reported: object) -> None:
    assert read_usage(reported) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "prompt_cache_hit_tokens"]
)


@settings(deadline=None)  # a busy machine is no fault
@given(st.dictionaries(NAMES, JSON_VALUES))
def test_no_usage_object_is_too_hostile_to_be_read(reported: Mapping[str, object]) -> None:
    usage = read_usage(reported)
    if usage is not None:
        assert cost(CHEAP, usage).total_nano_usd >= 0
        assert usage.cache_read_tokens + usage.cache_creation_tokens <= usage.prompt_tokens
