"""What a call costs: rates per token, from the configuration or from the bundled price table (§4.1)."""

import importlib.metadata
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import Any

from shared.money import NANO_PER_USD

# No call comes near it; what reports more is not to be believed, and its cost would not fit a column.
TOKENS_MAX = 100_000_000
NANO_USD_MAX = 1_000_000_000 * NANO_PER_USD

PRICE_TABLE = "genai-prices"

# What the price table calls the providers of §4.1; any other prefix must be the table's own name.
TABLE_PROVIDERS = {"gemini": "google", "xai": "x-ai", "together_ai": "together", "fireworks_ai": "fireworks"}

# Rates that only parts and options can cost which a strict budget refuses (``calls.unpriced_parameters``).
OPTIONAL_RATES = frozenset(
    {
        "web_searches_kcount",
        "storage_searches_kcount",
        "input_audio_mtok",
        "cache_audio_read_mtok",
        "input_image_mtok",
        "cache_image_read_mtok",
        "input_video_mtok",
    }
)
TOKEN_RATES = frozenset(
    {
        "input_mtok",
        "output_mtok",
        "cache_read_mtok",
        "cache_write_mtok",
        "cache_write_5m_mtok",
        "cache_write_1h_mtok",
    }
)
# These search whether they are asked to or not, for a fee that no token count shows.
SEARCHING_MODELS = re.compile(r"search-preview|search-api|deep-research|compound")

TOKENS_PER_RATE = 1_000_000
HALF_HOURS = [time(hour, minute, tzinfo=UTC) for hour in range(24) for minute in (0, 30)]


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per token. ``output_usd`` is None where only an input rate is known: enough for embeddings alone."""

    input_usd: Decimal
    output_usd: Decimal | None
    cache_read_usd: Decimal
    cache_creation_usd: Decimal


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates of all tokens of a call whose prompt has more than ``above_tokens``."""

    above_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Prices:
    """The rates of one model, taken once, and where they are from. The first tier is above -1: it always holds."""

    tiers: tuple[Tier, ...]
    source: str
    version: str = ""

    def at(self, prompt_tokens: int) -> Rates:
        """What a call with this prompt is billed at."""
        return [tier.rates for tier in self.tiers if prompt_tokens > tier.above_tokens][-1]

    def input_rate_at_most(self, prompt_tokens_at_most: int) -> Decimal:
        """The highest rate that a prompt of so many tokens or fewer could be billed at."""
        within = [tier.rates for tier in self.tiers if prompt_tokens_at_most > tier.above_tokens]
        return max(max(rates.input_usd, rates.cache_creation_usd, rates.cache_read_usd) for rates in within)

    def output_rate_at_most(self, prompt_tokens_at_most: int) -> Decimal:
        within = [tier.rates for tier in self.tiers if prompt_tokens_at_most > tier.above_tokens]
        return max(rates.output_usd or Decimal(0) for rates in within)

    @property
    def rates(self) -> Rates:
        """Those of an ordinary, short call."""
        return self.tiers[0].rates


@dataclass(frozen=True, slots=True)
class KnownRates:
    """As much as one source says of a model's rates, in USD per token."""

    input_usd: Decimal | None = None
    output_usd: Decimal | None = None
    cache_read_usd: Decimal | None = None
    cache_creation_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the price table: its rates by prompt length, and its context."""

    tiers: tuple[tuple[int, KnownRates], ...]
    max_input_tokens: int | None
    version: str = ""


Lookup = Callable[[str, str], Listed | None]


def choose_prices(params: KnownRates, info: KnownRates, listed: Listed | None) -> Prices | None:
    """Each rate from the first source that has it: litellm_params, model_info, the table (§4.1). None: unpriced.

    A cache rate goes with the input rate: where the configuration gives the one and not the other, cached tokens cost
    what all do. Else a model that is free by its file would cost the table's price for them.
    """
    table = listed or Listed(tiers=((-1, KnownRates()),), max_input_tokens=None)
    tiers = [(above, _merged(params, info, known)) for above, known in table.tiers]
    complete = [Tier(above, rates) for above, rates in tiers if rates is not None]
    if not complete or len(complete) < len(tiers):
        return None
    if params.input_usd is not None:
        return Prices(tuple(complete), "litellm_params")
    if info.input_usd is not None:
        return Prices(tuple(complete), "model_info")
    return Prices(tuple(complete), PRICE_TABLE, table.version)


def _merged(params: KnownRates, info: KnownRates, table: KnownRates) -> Rates | None:
    configured = _first(params.input_usd, info.input_usd)
    input_usd = _first(configured, table.input_usd)
    if input_usd is None:
        return None
    cached = table if configured is None else KnownRates()
    cache_read_usd = _first(params.cache_read_usd, info.cache_read_usd, cached.cache_read_usd)
    cache_creation_usd = _first(params.cache_creation_usd, info.cache_creation_usd, cached.cache_creation_usd)
    return Rates(
        input_usd=input_usd,
        output_usd=_first(params.output_usd, info.output_usd, table.output_usd),
        cache_read_usd=input_usd if cache_read_usd is None else cache_read_usd,
        cache_creation_usd=input_usd if cache_creation_usd is None else cache_creation_usd,
    )


def _first(*amounts: Decimal | None) -> Decimal | None:
    return next((amount for amount in amounts if amount is not None), None)


def find_listed(provider: str, model: str) -> Listed | None:
    """A model's entry in the bundled table, as of now. It is never fetched anew: prices change with a release."""
    # Here and not at the top: it takes 0.4 s and 39 MB, and a file that gives its prices needs none of it.
    from genai_prices import data_snapshot  # noqa: PLC0415

    if SEARCHING_MODELS.search(model.lower()):
        return None
    snapshot = data_snapshot.get_snapshot()
    table_provider = TABLE_PROVIDERS.get(provider, provider)
    if table_provider not in {known.id for known in snapshot.providers}:
        return None  # the table would guess, and "my-openai-proxy" is not OpenAI
    try:
        _, found = snapshot.find_provider_model(model, None, table_provider, None)
    except LookupError:
        return None
    today = datetime.now(UTC).date()
    prices = [vars(found.get_prices(datetime.combine(today, moment))) for moment in HALF_HOURS]
    return Listed(_listed_tiers(prices), found.context_window, importlib.metadata.version(PRICE_TABLE))


def _listed_tiers(prices: list[dict[str, Any]]) -> tuple[tuple[int, KnownRates], ...]:
    """The highest of the day's prices: some change by the hour, and a call may end in another hour."""
    named = {name for price in prices for name, value in price.items() if value is not None}
    if named - TOKEN_RATES - OPTIONAL_RATES:
        return ((-1, KnownRates()),)  # it bills by something that we don't count
    starts = {tier.start for price in prices for value in price.values() for tier in getattr(value, "tiers", ())}
    return tuple((start, _listed_rates(prices, start)) for start in sorted({-1, *starts}))


def _listed_rates(prices: list[dict[str, Any]], above_tokens: int) -> KnownRates:
    def highest(*names: str) -> Decimal | None:
        rates = [_rate(price.get(name), above_tokens) for price in prices for name in names]
        known = [rate for rate in rates if rate is not None]
        return max(known) / TOKENS_PER_RATE if known else None

    return KnownRates(
        input_usd=highest("input_mtok"),
        output_usd=highest("output_mtok"),
        cache_read_usd=highest("cache_read_mtok"),
        cache_creation_usd=highest("cache_write_mtok", "cache_write_5m_mtok"),
    )


def _rate(value: Any, above_tokens: int) -> Decimal | None:
    """A rate of the table for prompts longer than ``above_tokens``; its tiers are in ascending order."""
    if value is None or isinstance(value, Decimal):
        return value
    reached: list[Decimal] = [tier.price for tier in value.tiers if above_tokens >= tier.start]
    base: Decimal = value.base
    return reached[-1] if reached else base


@dataclass(frozen=True, slots=True)
class Usage:
    """What a provider bills for. Cached tokens are among ``prompt_tokens``, reasoning among ``completion_tokens``."""

    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


def read_usage(reported: object, *, output_expected: bool = True) -> Usage | None:
    """The usage that an OpenAI-dialect answer reports. None if it can't be believed: the call costs its whole hold.

    Some providers (xAI, Gemini) count reasoning in ``total_tokens`` only: what is over the prompt there is output.
    """
    if not isinstance(reported, Mapping):
        return None
    prompt = _count(reported.get("prompt_tokens"))
    completion = _completion(reported, prompt or 0, output_expected)
    cache_read, cache_creation = _cached(reported)
    if prompt is None or completion is None or cache_read is None or cache_creation is None:
        return None
    if cache_read + cache_creation > prompt:
        return None
    return Usage(prompt, completion, cache_read, cache_creation)


def _completion(reported: Mapping[str, object], prompt_tokens: int, output_expected: bool) -> int | None:
    given = reported.get("completion_tokens")
    total = _count(reported.get("total_tokens"))
    beyond_prompt = None if total is None else max(total - prompt_tokens, 0)
    if given is None:
        return beyond_prompt if output_expected else beyond_prompt or 0
    counted = _count(given)
    return None if counted is None else max(counted, beyond_prompt or 0)


def _cached(reported: Mapping[str, object]) -> tuple[int | None, int | None]:
    details = reported.get("prompt_tokens_details")
    inner = details if isinstance(details, Mapping) else {}
    read = _first_given(inner.get("cached_tokens"), reported.get("prompt_cache_hit_tokens"))
    creation = _first_given(
        inner.get("cache_creation_tokens"), inner.get("cache_write_tokens"), reported.get("cache_creation_input_tokens")
    )
    return _count(read), _count(creation)


def _first_given(*values: object) -> object:
    return next((value for value in values if value is not None), 0)


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        return None
    return value


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call costs, rounded up to the nano-USD; input and output sum to the total."""

    input_nano_usd: int
    output_nano_usd: int

    @property
    def total_nano_usd(self) -> int:
        return self.input_nano_usd + self.output_nano_usd


def cost(prices: Prices | None, usage: Usage) -> Cost:
    """The price of a finished call. An unpriced model costs nothing: only soft budgets and the unlimited call it."""
    if prices is None:
        return Cost(0, 0)
    rates = prices.at(usage.prompt_tokens)
    uncached = usage.prompt_tokens - usage.cache_read_tokens - usage.cache_creation_tokens
    input_usd = (
        Fraction(rates.input_usd) * uncached
        + Fraction(rates.cache_read_usd) * usage.cache_read_tokens
        + Fraction(rates.cache_creation_usd) * usage.cache_creation_tokens
    )
    output_usd = Fraction(rates.output_usd or 0) * usage.completion_tokens
    total = nano_usd_ceil(input_usd + output_usd)
    input_nano = min(nano_usd_ceil(input_usd), total)
    return Cost(input_nano, total - input_nano)


def nano_usd_ceil(usd: Fraction) -> int:
    """USD as nano-USD, rounded up, and no more than any budget can be."""
    return min(math.ceil(usd * NANO_PER_USD), NANO_USD_MAX)
