"""What comes back of a call sent upstream: an answer, a stream of chunks, or a refusal; and what it is billed for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.gateway.calls import Call, CallKind
from services.gateway.models import Deployment
from services.gateway.pricing import Usage, cost, read_usage
from shared.answers import json_bytes
from shared.errors import Refused
from shared.money import UsdNumber

DONE = b"data: [DONE]\n\n"
ANSWER_ID_LENGTH_MAX = 255
REPORTED_COUNTS_MAX = 32

BUFFERED_EVENTS = 256
# A client that takes nothing for so long is gone: the upstream answer is then read to its end without it.
CLIENT_STALL_SECONDS = 30.0


class UpstreamRefused(Refused):
    """A call that came to nothing upstream, and what is known of its cost.

    ``costs_nothing``: the provider's error answer, or a connection that was never made (§3.7). Otherwise the outcome is
    unknown and the whole hold is spent. ``retryable``: another deployment may do better.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        costs_nothing: bool,
        retryable: bool = False,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, param=param, headers=headers)
        self.costs_nothing = costs_nothing
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. ``usage`` is None if the provider reported none that can be believed: it costs the whole hold."""

    body: dict[str, Any]
    usage: Usage | None
    usage_reported: Mapping[str, Any] = field(default_factory=dict)
    answer_id: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stream ended. Without ``failure`` it is complete; without ``usage`` it costs the whole hold."""

    usage: Usage | None
    usage_reported: Mapping[str, Any] = field(default_factory=dict)
    answer_id: str = ""
    failure: UpstreamRefused | None = None


BeforeEnd = Callable[[Outcome], Awaitable[None]]


def reply_of(body: dict[str, Any], call: Call) -> Reply:
    """An answer under the model's name that was asked for (§3.7)."""
    reported = body.get("usage")
    return Reply(
        body={**body, "model": call.model},
        usage=read_usage(reported, output_expected=call.kind is not CallKind.EMBEDDING),
        usage_reported=counts_of(reported),
        answer_id=answer_id(body),
    )


def answer_id(body: Mapping[str, Any]) -> str:
    """The provider's id of an answer, if it is one that can be kept."""
    given = body.get("id")
    if not isinstance(given, str) or len(given) > ANSWER_ID_LENGTH_MAX or not given.isprintable():
        return ""
    return given


def counts_of(reported: object, depth: int = 2) -> dict[str, Any]:
    """The numbers of a usage object, and no more: it is kept, and a provider can write anything into it."""
    counts: dict[str, Any] = {}
    for name, value in list(reported.items())[:REPORTED_COUNTS_MAX] if isinstance(reported, dict) else ():
        if not name.isprintable() or len(name) > ANSWER_ID_LENGTH_MAX:
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            counts[name] = value
        elif isinstance(value, dict) and depth > 1:
            counts[name] = counts_of(value, depth - 1)
    return counts


class Meter:
    """Reads a stream's chunks on their way to the client: renames the model, keeps the usage, knows the end."""

    def __init__(self, call: Call, deployment: Deployment) -> None:
        self._call = call
        self._deployment = deployment
        self._reported: dict[str, Any] = {}
        self._answer_id = ""
        self._ended: set[object] = set()
        self.complete = False

    def take(self, chunk: dict[str, Any]) -> bytes | None:
        """The event for the client; None for one that only carries the usage which it did not ask for."""
        shown = {**chunk, "model": self._call.model}
        self._answer_id = self._answer_id or answer_id(chunk)
        self._note_ends(chunk.get("choices"))
        reported = chunk.get("usage")
        if isinstance(reported, dict):
            self._reported = reported
        if self._call.include_usage:
            return event_of(shown | self._priced(reported))
        shown.pop("usage", None)
        return None if isinstance(reported, dict) and not chunk.get("choices") else event_of(shown)

    def outcome(self, failure: UpstreamRefused | None) -> Outcome:
        usage = read_usage(self._reported) if self.complete and failure is None else None
        return Outcome(
            usage=usage, usage_reported=counts_of(self._reported), answer_id=self._answer_id, failure=failure
        )

    def _note_ends(self, choices: object) -> None:
        """A provider that leaves ``[DONE]`` out has still said all, once every choice has a reason to end."""
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                self._ended.add(str(choice.get("index")))
        if len(self._ended) >= self._call.choices:
            self.complete = True

    def _priced(self, reported: object) -> dict[str, Any]:
        usage = read_usage(reported)
        if usage is None or self._deployment.prices is None or not isinstance(reported, dict):
            return {}
        return {"usage": {**reported, "cost": UsdNumber(cost(self._deployment.prices, usage).total_nano_usd)}}


class StreamedReply:
    """A stream on its way from a provider to a client, read by a task of its own.

    Iterating gives the events, ``data: [DONE]`` included; an error after the first is an event, too. Whatever becomes
    of the client, the provider's answer is read to its end: ``finished`` is then the outcome, never an exception.
    ``before_end`` is awaited between that and the last event, so that who saw the end finds the spend settled.
    """

    def __init__(
        self,
        chunks: AsyncIterator[dict[str, Any]],
        call: Call,
        deployment: Deployment,
        before_end: BeforeEnd | None = None,
    ) -> None:
        self._chunks = chunks
        self._meter = Meter(call, deployment)
        self._before_end = before_end
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue(BUFFERED_EVENTS)
        self._gone = False
        self.finished: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._pump())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            event = await self._events.get()
        except asyncio.CancelledError:
            self.abandon()
            raise
        if event is None:
            self.abandon()  # asked again, it ends again
            raise StopAsyncIteration
        return event

    def abandon(self) -> None:
        """The client is gone: nothing is kept for it. To be called when its connection ends, however it ends."""
        self._gone = True
        while not self._events.empty():
            self._events.get_nowait()
        self._events.put_nowait(None)

    async def _pump(self) -> None:
        failure: UpstreamRefused | None = _interrupted()
        try:
            failure = await self._pass_on()
        finally:
            outcome = self._meter.outcome(failure)
            self.finished.set_result(outcome)
            try:
                if self._before_end is not None:
                    await self._before_end(outcome)
            finally:
                await self._offer(DONE if failure is None else event_of({"error": error_of(failure)}))
                await self._offer(None)

    async def _pass_on(self) -> UpstreamRefused | None:
        try:
            async for chunk in self._chunks:
                event = self._meter.take(chunk)
                if event is not None:
                    await self._offer(event)
        except UpstreamRefused as refusal:
            return None if self._meter.complete else refusal
        self._meter.complete = True
        return None

    async def _offer(self, event: bytes | None) -> None:
        if self._gone:
            return
        if not self._events.full():
            self._events.put_nowait(event)
            return
        try:
            async with asyncio.timeout(CLIENT_STALL_SECONDS):
                await self._events.put(event)
        except TimeoutError:
            self.abandon()


def event_of(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json_bytes(data) + b"\n\n"


def error_of(refusal: Refused) -> dict[str, Any]:
    """A refusal as the compatible routes show it (§1.4)."""
    return {
        "message": refusal.message,
        "type": refusal.type,
        "param": refusal.param,
        "code": str(refusal.status),
        "reason": refusal.code,
    }


def _interrupted() -> UpstreamRefused:
    return UpstreamRefused("The gateway stopped during the answer", reason="upstream_failed", costs_nothing=False)
