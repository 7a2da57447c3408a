"""What a key may be given: within the upper bounds, its owner's reach, and the key that it is made with. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.keys.events import KeyTerms
from shared.durations import NEVER, parse_duration
from shared.errors import Refused
from shared.money import usd_text

# §5.4: the same as [], spelled out; and, in a user's list, no model for personal keys.
EVERYTHING = frozenset({"all-proxy-models", "all-team-models"})
NOTHING = "no-default-models"

# What is bounded, by its name on the wire and in KeyTerms.
BOUNDED = {
    "max_budget": "max_budget_nano_usd",
    "budget_duration": "budget_duration",
    "duration": "expires_at",
    "max_parallel_requests": "max_parallel_requests",
    "tpm_limit": "tpm_limit",
    "rpm_limit": "rpm_limit",
}


class OverUpperBound(Refused):
    reason = "over_upper_bound"


class OverOwnLimit(Refused):
    reason = "over_own_limit"


class ModelUnknown(Refused):
    reason = "model_unknown"


class ModelNotAllowed(Refused):
    reason = "model_not_allowed"


@dataclass(frozen=True, slots=True)
class Limits:
    """All that bounds what a key may be given, as it stood when the command was made.

    ``upper`` are the installation's bounds, ``maker`` the terms of the key that the command came with, if it did.
    ``owner_budget_nano_usd`` is null where the key is not held to it, or there is none.
    """

    upper: KeyTerms = field(default_factory=KeyTerms)
    maker: KeyTerms | None = None
    owner_models: tuple[str, ...] = ()
    owner_budget_nano_usd: int | None = None
    known_models: frozenset[str] = frozenset()


def expiry_of(duration: str | None, now: datetime) -> datetime | None:
    """When a life of ``duration``, counted from ``now``, ends; null if never."""
    return None if duration is None or duration == NEVER else parse_duration(duration).after(now)


def check(asked: KeyTerms, given: Collection[str], limits: Limits, now: datetime) -> None:
    """Refuse what goes too far among ``given``, which are names on the wire; null in one of them is no limit.

    The upper bounds are looked at first (§1.4).
    """
    for name in BOUNDED:
        if name in given and _is_over(name, asked, limits.upper, now):
            raise OverUpperBound(_sentence(name, "the upper bound", asked, limits.upper), param=name)
    if limits.maker is not None:
        _check_maker(asked, given, limits.maker, now)
    if "max_budget" in given:
        _check_owner_budget(asked.max_budget_nano_usd, limits.owner_budget_nano_usd)
    if "models" in given:
        _check_models(asked.models, limits)


def fill(asked: KeyTerms, limits: Limits) -> KeyTerms:
    """``asked`` with all that it leaves open set to the bounds, the lower of two (D24, D44)."""
    upper, maker = limits.upper, limits.maker or KeyTerms()
    filled: dict[str, Any] = {
        field: _lower(getattr(upper, field), getattr(maker, field))
        for field in BOUNDED.values()
        if getattr(asked, field) is None
    }
    if "budget_duration" in filled:
        # Where the maker has a budget the key has one by now, and in a window of another length it could be larger.
        filled["budget_duration"] = (upper if maker.max_budget_nano_usd is None else maker).budget_duration
    if filled.get("expires_at") is not None:
        filled["duration"] = upper.duration if filled["expires_at"] == upper.expires_at else None
    return asked.model_copy(update=filled | ({} if asked.models else {"models": maker.models}))


def _check_maker(asked: KeyTerms, given: Collection[str], maker: KeyTerms, now: datetime) -> None:
    """A key can't make a stronger key, in budget, rates, models or life (D44)."""
    for name in BOUNDED:
        if name in given and name != "budget_duration" and _is_over(name, asked, maker, now):
            ends = maker.model_copy(update={"duration": None})  # not how long it was to live once, but until when
            raise OverOwnLimit(_sentence(name, "the limit of the key used", asked, ends), param=name)
    has_budget = maker.max_budget_nano_usd is not None and not {"max_budget", "budget_duration"}.isdisjoint(given)
    if has_budget and _resets_sooner(asked, maker, now):
        sentence = "budget_duration is shorter than that of the key used, and so the budget would be larger"
        raise OverOwnLimit(sentence, param="budget_duration")
    if "models" in given and not _includes(maker.models, asked.models):
        raise OverOwnLimit("models holds more than the key used may call", param="models")


def _check_owner_budget(asked: int | None, most: int | None) -> None:
    if asked is not None and most is not None and asked > most:
        sentence = f"max_budget is over the user's own: {usd_text(asked)} > {usd_text(most)}"
        raise OverOwnLimit(sentence, param="max_budget")


def _check_models(models: Sequence[str], limits: Limits) -> None:
    named = [model for model in models if model not in EVERYTHING]
    for model in named:
        if model not in limits.known_models:
            raise ModelUnknown(f"models: there is no model {model!r}", param="models")
    for model in named:
        if NOTHING in limits.owner_models or not _includes(limits.owner_models, [model]):
            sentence = f"models: the user may not call {model!r}"
            raise ModelNotAllowed(sentence, param="models", type="user_model_access_denied")


def _includes(models: Sequence[str], others: Sequence[str]) -> bool:
    return _is_everything(models) or (not _is_everything(others) and set(others) <= set(models))


def _is_everything(models: Sequence[str]) -> bool:
    return not models or not EVERYTHING.isdisjoint(models)


def _is_over(name: str, asked: KeyTerms, bound: KeyTerms, now: datetime) -> bool:
    most, value = _measure(name, bound, now), _measure(name, asked, now)
    return most is not None and (value is None or value > most)


def _resets_sooner(asked: KeyTerms, maker: KeyTerms, now: datetime) -> bool:
    end, latest = expiry_of(asked.budget_duration, now), expiry_of(maker.budget_duration, now)
    return end is not None and (latest is None or end < latest)


def _measure(name: str, terms: KeyTerms, now: datetime) -> Any:
    """What is compared: lengths by where they end, counted from now (§4.6)."""
    return expiry_of(terms.budget_duration, now) if name == "budget_duration" else getattr(terms, BOUNDED[name])


def _lower(one: Any, other: Any) -> Any:
    return min((value for value in (one, other) if value is not None), default=None)


def _sentence(name: str, bound_is: str, asked: KeyTerms, bound: KeyTerms) -> str:
    return f"{name} is over {bound_is}: {_text(name, asked)} > {_text(name, bound)}"


def _text(name: str, terms: KeyTerms) -> str:
    value = getattr(terms, BOUNDED[name])
    if value is None:
        return "no limit"
    if name == "max_budget":
        return usd_text(value)
    return str(terms.duration or value.isoformat()) if name == "duration" else str(value)
