"""Windows, calls and usage as tests of budgets need them. Money in nano-USD; NOON is on a Tuesday."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from services.budgets.domain.hold import Ask
from services.budgets.domain.window import EPOCH, FOREVER, Window, WindowKey
from services.budgets.requests import Usage

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
FOR_EVER = (EPOCH, FOREVER)
THIS_MONTH = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
TODAY = (datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC))
USD = 10**9


def window(
    limit: int | None = 1000,
    *,
    spent: int = 0,
    leased: int = 0,
    presumed: int = 0,
    scope: str = "key:k1",
    bounds: tuple[datetime, datetime] = FOR_EVER,
    **more: Any,
) -> Window:
    ceiling = None if limit is None else max(limit, spent + leased)
    return Window(WindowKey(scope, *bounds), limit, spent, leased, presumed, **({"ceiling": ceiling} | more))


def ask(cap: int | None = None, *, price: str = "1", input_nano_usd: int = 0, most: int = 100) -> Ask:
    """A call with that output cap, or none, at ``price`` a token."""
    return Ask(input_nano_usd, Decimal(price), cap, most)


def usage(**more: Any) -> Usage:
    """A call that succeeded."""
    facts: dict[str, Any] = {
        "call_id": "call-1",
        "request_id": "chatcmpl-1",
        "call_type": "acompletion",
        "status": "success",
        "token": "a" * 64,
        "key_id": "k1",
        "key_alias": "laptop",
        "user_id": "ada",
        "model": "openai/mock-fast",
        "model_group": "mock-fast",
        "model_id": "m1",
        "provider": "openai",
        "prompt_tokens": 11,
        "completion_tokens": 20,
        "started_at": NOON,
        "first_token_at": NOON,
        "ended_at": NOON + SECOND,
    }
    return Usage(**(facts | more))
