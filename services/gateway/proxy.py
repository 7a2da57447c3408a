"""The way of one admitted call: hold, send on, settle; another deployment where one fails (§3.7)."""

import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from services.budgets.requests import SettledHold, SettleHold
from services.budgets.requests import Usage as LedgerRow
from services.gateway import rows
from services.gateway.admission import Admission, Caller, Hold
from services.gateway.calls import Call, with_defaults
from services.gateway.models import Deployment, in_weighted_order
from services.gateway.outcomes import Outcomes
from services.gateway.pricing import Cost, Usage, cost
from services.gateway.reply import Outcome, Reply, StreamedReply, UpstreamRefused
from services.gateway.rows import Journey
from services.gateway.upstream import Upstream
from shared.errors import Refused

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """What came of a call. ``settled`` is None if budgets could not be asked in time, or a stream goes on."""

    reply: R
    journey: Journey
    caller: Caller
    deployment: Deployment
    settled: SettledHold | None = None


class Proxy:
    """Sends calls on, and sees to it that every hold is settled, whatever happens."""

    def __init__(
        self,
        admission: Admission,
        upstream: Upstream,
        outcomes: Outcomes,
        note_row: Callable[[LedgerRow, int], None],
        *,
        retries: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._admission = admission
        self._upstream = upstream
        self._outcomes = outcomes
        self._note_row = note_row
        self._retries = retries
        self._clock = clock

    async def complete(self, journey: Journey, caller: Caller, call: Call) -> Done[Reply]:
        """A whole answer, settled."""

        async def send(attempt: "Attempt") -> Done[Reply]:
            reply = await self._upstream.send(attempt.deployment, attempt.call, attempt.hold.output_cap)
            self._outcomes.note(attempt.deployment, None)
            settlement = self._settlement(attempt, reply.usage, dict(reply.usage_reported), reply.answer_id)
            settled = await self._settle(attempt, settlement)
            return Done(reply, attempt.journey, attempt.caller, attempt.deployment, settled)

        return await self._try(journey, caller, call, send)

    async def stream(self, journey: Journey, caller: Caller, call: Call) -> Done[StreamedReply]:
        """A stream that has begun. It is settled before its last event, and if the client goes away just as well."""

        async def send(attempt: "Attempt") -> Done[StreamedReply]:
            async def settle(outcome: Outcome) -> None:
                streamed = replace(attempt, journey=attempt.journey.with_(first_token_at=began_at))
                await self._settle(streamed, self._stream_settlement(streamed, outcome))

            reply = await self._upstream.stream(attempt.deployment, attempt.call, attempt.hold.output_cap, settle)
            began_at = self._clock()  # the first chunk is there, and nothing has read on yet
            return Done(reply, attempt.journey, attempt.caller, attempt.deployment)

        return await self._try(journey, caller, call, send)

    async def _try(
        self, journey: Journey, caller: Caller, call: Call, send: Callable[["Attempt"], Awaitable[Done[R]]]
    ) -> Done[R]:
        deployments = in_weighted_order(self._admission.check_model(caller, call.model), random.random)
        chosen = deployments[: self._retries + 1]
        hold_id = journey.call_id
        for retries, deployment in enumerate(chosen):
            attempt_call = with_defaults(call, deployment)
            journey = journey.with_(caller=caller, deployment=deployment, retries=retries)
            caller, hold = await self._admission.hold(caller, attempt_call, deployment, hold_id)
            attempt = Attempt(hold, caller, attempt_call, deployment, journey.with_(caller=caller))
            try:
                return await send(attempt)
            except UpstreamRefused as refused:
                self._outcomes.note(deployment, refused)
                again = refused.retryable and retries + 1 < len(chosen)
                # Before anything else: what this attempt holds must not be in the way of the next.
                await self._settle(attempt, self._failure_settlement(attempt, refused, leaves_row=not again))
                if not again:
                    raise AlreadyRecorded(refused) from refused
            except BaseException:
                # Nobody knows what became of it: the whole hold is spent, and none stays open for ever.
                lost = self._lost(attempt)
                self._admission.settle_later(SettleHold(hold_id=hold.hold_id, billed_nano_usd=None, usage=lost))
                self._note_row(lost, hold.held_nano_usd)
                raise
            hold_id = str(uuid.uuid4())
        raise AssertionError("the last attempt returns or raises")

    async def _settle(self, attempt: "Attempt", settlement: SettleHold) -> SettledHold | None:
        settled = await self._admission.settle(settlement)
        if settlement.usage is not None:
            held, billed = attempt.hold.held_nano_usd, settlement.billed_nano_usd
            presumed = held if billed is None else min(billed, held)
            self._note_row(settlement.usage, settled.charged_nano_usd if settled else presumed)
        return settled

    def _settlement(
        self, attempt: "Attempt", usage: Usage | None, reported: dict[str, object], answer_id: str
    ) -> SettleHold:
        price = _price(attempt.deployment, usage)
        row = rows.succeeded(attempt.journey, usage, price, reported=reported, answer_id=answer_id, ended=self._clock())
        billed = price.total_nano_usd if price is not None else None
        return SettleHold(hold_id=attempt.hold.hold_id, billed_nano_usd=billed, usage=row)

    def _stream_settlement(self, attempt: "Attempt", outcome: Outcome) -> SettleHold:
        self._outcomes.note(attempt.deployment, outcome.failure)
        if outcome.failure is not None:
            return self._failure_settlement(attempt, outcome.failure, leaves_row=True)
        return self._settlement(attempt, outcome.usage, dict(outcome.usage_reported), outcome.answer_id)

    def _failure_settlement(self, attempt: "Attempt", refused: UpstreamRefused, *, leaves_row: bool) -> SettleHold:
        billed = 0 if refused.costs_nothing else None
        row = rows.failed(attempt.journey, refused, self._clock()) if leaves_row or billed is None else None
        return SettleHold(hold_id=attempt.hold.hold_id, billed_nano_usd=billed, usage=row)

    def _lost(self, attempt: "Attempt") -> LedgerRow:
        lost = Refused("the gateway stopped during the call", reason="upstream_failed")
        return rows.failed(attempt.journey, lost, self._clock())


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a call at one deployment."""

    hold: Hold
    caller: Caller
    call: Call
    deployment: Deployment
    journey: Journey


class AlreadyRecorded(Refused):
    """A refusal whose row is written by the settlement of its hold."""

    def __init__(self, refused: UpstreamRefused) -> None:
        super().__init__(refused.message, reason=refused.code, param=refused.param, headers=refused.headers)


def _price(deployment: Deployment, usage: Usage | None) -> Cost | None:
    return cost(deployment.prices, usage) if usage is not None else None
