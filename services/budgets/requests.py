"""What others may ask budgets now: holds and settlements, workers, and the barrier. Money in nano-USD."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from shared.requests import Question


class PlaceHold(Question):
    """Set aside what one call may cost at most, in every one of ``scopes`` or in none.

    ``positions`` are those of identity and keys that the worker saw: budgets catches up with them first, so that no
    scope is unlimited only because budgets has not heard of it. The worst case is ``input_nano_usd`` plus
    ``output_cap`` tokens at ``output_nano_usd_per_token`` (choices included). Without a cap of the caller's,
    ``output_cap`` is null and budgets chooses one up to ``output_max`` (§3.7).
    Refused with ``budget_exceeded`` or ``budget_held``.
    """

    hold_id: str
    worker_id: str
    scopes: tuple[str, ...]
    positions: dict[str, int]
    input_nano_usd: int
    output_nano_usd_per_token: Decimal
    output_cap: int | None
    output_max: int


class PlacedHold(BaseModel):
    """``output_cap`` is to be sent upstream; ``admitted_at`` is the hold's, and names its windows."""

    held_nano_usd: int
    output_cap: int
    admitted_at: datetime


class Usage(BaseModel):
    """What happened to one call of a known credential: a row of the ledger (contract §3.1, SpendRow), less its spend.

    ``extra`` holds what the row shows and nothing counts by: tags, session, durations, error.
    """

    model_config = ConfigDict(frozen=True)

    call_id: str
    request_id: str
    call_type: str
    status: Literal["success", "failure"]
    token: str
    key_id: str | None
    key_alias: str | None
    user_id: str | None
    model: str
    model_group: str
    model_id: str
    provider: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    input_nano_usd: int = 0
    output_nano_usd: int = 0
    started_at: datetime
    first_token_at: datetime
    ended_at: datetime
    request_tags: tuple[str, ...] = ()
    session_id: str = ""
    end_user: str = ""
    ip: str | None = None
    user_agent: str | None = None
    attempted_retries: int = 0
    usage_object: dict[str, Any] = {}
    error_code: str | None = None
    error_class: str | None = None
    error_message: str | None = None


class SettleHold(Question):
    """Charge a hold and give the rest of it back. The same hold again changes nothing and gets the same answer.

    ``billed_nano_usd`` is what the provider bills, 0 for a call that cost nothing, null when nobody knows: the whole
    hold. A bill above the hold is charged up to the hold. Without ``usage`` the hold only ends, and leaves no row: an
    attempt that cost nothing and is made again elsewhere.
    """

    hold_id: str
    billed_nano_usd: int | None
    usage: Usage | None


class SettledHold(BaseModel):
    """``window_spent_nano_usd``: by scope, this window's spend, this call included."""

    charged_nano_usd: int
    window_spent_nano_usd: dict[str, int]


class RecordRefusal(Question):
    """A call that was refused before anything was held: it leaves a row with no spend."""

    usage: Usage


class Recorded(BaseModel):
    pass


class JoinWorker(Question):
    """A gateway worker begins: from now on barriers wait for it."""

    worker_id: str


class RenewWorker(Question):
    """A worker is alive and has applied each owner's log up to ``positions``. ``number`` is its last renewal's."""

    worker_id: str
    number: int
    positions: dict[str, int]


class Renewed(BaseModel):
    """``granted`` is false for a worker that was given up: it must join anew under a new id."""

    granted: bool
    number: int


class LeaveWorker(Question):
    """A worker ends in order: it admits nothing any more."""

    worker_id: str


class AwaitBarrier(Question):
    """Answer when every live worker has applied these positions or is gone."""

    positions: dict[str, int]


class Passed(BaseModel):
    waited_for: int


# What budgets tells all workers when somebody waits at a barrier (topic "barrier"): renew as soon as you are there.
BARRIER_TOPIC = "barrier"


class BarrierRaised(BaseModel):
    positions: dict[str, int]
