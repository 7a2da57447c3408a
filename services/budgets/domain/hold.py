"""What one call may cost at most, and whether every scope it falls under can pay that. Money in nano-USD."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from services.budgets.domain.window import Window
from shared.errors import Refused
from shared.money import usd_text

# As long as so many calls of the model's maximum are affordable, nobody's answer is shortened (§3.7).
CALLS_AT_ONCE = 8


class BudgetExceeded(Refused):
    """What is not spent does not pay for the call, whatever the calls under way turn out to cost."""

    reason = "budget_exceeded"


class BudgetHeld(Refused):
    """Only open holds stand in the way."""

    reason = "budget_held"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a call's input costs, a token of its output, and how many of these it asked for; null asks for no number."""

    input_nano_usd: int
    output_nano_usd_per_token: Decimal
    output_cap: int | None
    output_max: int

    def __post_init__(self) -> None:
        if min(self.input_nano_usd, self.output_cap or 0, self.output_max) < 0 or self.output_nano_usd_per_token < 0:
            raise ValueError("no call costs less than nothing")

    def worst(self, output_cap: int) -> int:
        """What the call costs at most with that cap, rounded up."""
        # A Decimal product would be rounded by the thread's context first.
        return self.input_nano_usd + math.ceil(Fraction(self.output_nano_usd_per_token) * output_cap)


@dataclass(frozen=True, slots=True)
class Placement:
    """What is set aside in every scope, and the cap that makes it enough."""

    held_nano_usd: int
    output_cap: int


def place(windows: Sequence[Window], ask: Ask, now: datetime) -> Placement:
    """What the call may hold in all of ``windows``, or in none: then it raises ``BudgetExceeded`` or ``BudgetHeld``."""
    cap = _chosen_cap(windows, ask) if ask.output_cap is None else ask.output_cap
    amount = ask.worst(cap)
    if amount == 0:
        return Placement(0, cap)  # a free model always fits, also at limit 0
    if over := [window for window in windows if amount > window.unspent]:
        raise _exceeded(over, amount, now)
    for window in windows:
        if amount > window.free:
            raise _held(window, amount)
    return Placement(amount, cap)


def settled_charge(held_nano_usd: int, billed_nano_usd: int | None) -> int:
    """What a hold is charged: the bill, up to what was held; all of it when nobody knows the bill."""
    return held_nano_usd if billed_nano_usd is None else min(max(billed_nano_usd, 0), held_nano_usd)


def _chosen_cap(windows: Sequence[Window], ask: Ask) -> int:
    """The model's maximum while eight such calls are affordable; then an eighth of what is not spent, down to a token.

    Open holds are not subtracted: a busy moment asks the caller to wait, it does not shorten the answer.
    """
    unspent = min((window.unspent for window in windows), default=None)
    price = Fraction(ask.output_nano_usd_per_token)
    if unspent is None or price == 0 or CALLS_AT_ONCE * ask.worst(ask.output_max) <= unspent:
        return ask.output_max
    affordable = math.floor(Fraction(unspent - ask.input_nano_usd, CALLS_AT_ONCE) / price)
    return min(ask.output_max, max(1, affordable))


def _exceeded(over: Sequence[Window], amount: int, now: datetime) -> BudgetExceeded:
    window = over[0]
    headers = {"x-should-retry": "false"}
    ends = [w.resets_at for w in over]
    # A reset helps only if it comes, for each of them, and if the call fits an unspent window.
    if all(amount <= w.unspent + w.spent for w in over) and None not in ends:
        latest = max(end for end in ends if end is not None)
        headers["Retry-After"] = str(max(1, math.ceil((latest - now).total_seconds())))
    limit = "no" if window.limit is None else usd_text(window.limit)
    return BudgetExceeded(
        f"the budget of {window.scope} can't pay for this call: {usd_text(window.spent)} USD of {limit} USD are spent,"
        f" and it may cost {usd_text(amount)} USD; {_reset(window)}",
        headers=headers,
    )


def _held(window: Window, amount: int) -> BudgetHeld:
    return BudgetHeld(
        f"the budget of {window.scope} is held by calls under way: {usd_text(window.leased)} USD are set aside,"
        f" and this call may cost {usd_text(amount)} USD",
        headers={"Retry-After": "1"},
    )


def _reset(window: Window) -> str:
    if window.resets_at is None:
        return "it never resets"
    return f"it resets at {window.resets_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
