"""Admission: who is calling what, whether they may, and the money set aside before the call is sent on (§5.3, §5.2)."""

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import structlog

from services.budgets.requests import (
    PlacedHold,
    PlaceHold,
    Recorded,
    RecordRefusal,
    SettledHold,
    SettleHold,
    Usage,
)
from services.gateway.calls import Call, hold_terms, is_priced, unpriced_parameters
from services.gateway.edge import check_usable
from services.gateway.models import Catalogue, Deployment
from services.gateway.settings import GatewaySettings
from services.gateway.view import View
from services.identity.requests import FoundUser
from services.keys.requests import FoundKey
from shared.errors import Refused, Unavailable
from shared.permissions import RoleNotAllowed
from shared.principal import Principal
from shared.service import Running

log = structlog.get_logger()

T = TypeVar("T")

EVERY_MODEL = frozenset({"all-proxy-models", "all-team-models"})
NO_MODEL = "no-default-models"
ADMIT_AGAIN_MAX = 5
ASK_BUDGETS_SECONDS = 5.0
SETTLE_AGAIN_SECONDS = (0.2, 1.0, 5.0)
REFUSALS_A_SECOND_MAX = 10  # rows a key may leave for refused calls (§3.7)


class ModelNotAllowed(Refused):
    reason = "model_not_allowed"


class PriceUnknown(Refused):
    reason = "price_unknown"


class ParameterUnpriced(Refused):
    reason = "parameter_unpriced"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a model. The master key has neither key nor user to ask about."""

    principal: Principal
    token: str
    key: FoundKey | None
    user: FoundUser | None

    @property
    def scopes(self) -> tuple[str, ...]:
        """The budgets that the call falls under (§5.1)."""
        scopes = ["proxy"]
        if self.key is not None:
            scopes.append(f"key:{self.key.key_id}")
        if self.user is not None:
            scopes.append(f"user:{self.user.user_id}")
        return tuple(scopes)

    @property
    def positions(self) -> dict[str, int]:
        """What budgets must have heard before it says what is left."""
        keys = {"keys": self.key.position} if self.key is not None else {}
        return keys | ({"identity": self.user.position} if self.user is not None else {})

    @property
    def limited(self) -> bool:
        """Whether a budget limits the call, so that its worst case must be known."""
        return any(found is not None and found.max_budget_nano_usd is not None for found in (self.key, self.user))


@dataclass(frozen=True, slots=True)
class Hold:
    """What was set aside for one attempt. ``output_cap`` is sent upstream; None if nothing limits the call."""

    hold_id: str
    held_nano_usd: int
    output_cap: int | None
    admitted_at: datetime


def callable_models(key: FoundKey | None, user: FoundUser | None, names: Sequence[str]) -> list[str]:
    """The models, of ``names``, that key and user may call (§5.4)."""
    return [name for name in names if _lists(key, name) and _lists(user, name)]


def _lists(found: FoundKey | FoundUser | None, name: str) -> bool:
    if found is None or not found.models or not EVERY_MODEL.isdisjoint(found.models):
        return True
    return name in found.models and NO_MODEL not in found.models


class Admission:
    """One worker's."""

    def __init__(self, running: Running[GatewaySettings], view: View, catalogue: Catalogue) -> None:
        self._running = running
        self._view = view
        self._catalogue = catalogue
        self._settling: set[asyncio.Task[Any]] = set()
        self._refusals: dict[str, tuple[int, int]] = {}

    async def caller(self, principal: Principal) -> Caller:
        """Checks 1, 2 and 4 of §5.3, as of now."""
        if principal.credential == "session":
            raise RoleNotAllowed("a session can't call models: use a key")
        if principal.credential == "master_key" or principal.token is None:
            return Caller(principal, principal.token or principal.credential, None, None)
        key = await self._view.key(principal.token)
        check_usable(key, self._running.clock())
        user = await self._view.user(key.user_id) if key.user_id is not None else None
        if user is not None and not user.exists:
            check_usable(key.model_copy(update={"exists": False}), self._running.clock())
        return Caller(principal, key.token, key, user)

    def check_model(self, caller: Caller, name: str) -> Sequence[Deployment]:
        """The model's deployments. An unknown one and one not allowed are the same to the caller."""
        for owner, found in (("key", caller.key), ("user", caller.user)):
            if not _lists(found, name):
                raise _not_allowed(owner, name)
        deployments = self._catalogue.find(name)
        if not deployments:
            raise _not_allowed("key", name)
        return deployments

    def check_price(self, caller: Caller, call: Call, deployment: Deployment) -> None:
        """Under a budget, the worst case of a call must be known."""
        if not caller.limited:
            return
        if not is_priced(call, deployment):
            raise PriceUnknown(f"model: {call.model!r} has no price, and the call falls under a budget", param="model")
        if (name := unpriced_parameters(call)) is not None:
            raise ParameterUnpriced(
                f"{name}: what it costs can't be bounded, and the call falls under a budget", param=name
            )

    async def hold(self, caller: Caller, call: Call, deployment: Deployment, hold_id: str) -> tuple[Caller, Hold]:
        """Admit one attempt: set its worst case aside, and look at all checks once more in the step that counts.

        The caller is given back as they are at that step. Raises what refuses the call.
        """
        for _ in range(ADMIT_AGAIN_MAX):
            if not self._view.admits:
                raise Unavailable("this worker can't tell whether what it knows is current")
            self.check_model(caller, call.model)
            self.check_price(caller, call, deployment)
            hold = await self._place(caller, call, deployment, hold_id)
            if self._unchanged(caller):
                return caller, hold
            # Something was heard of key or user meanwhile: what was held by the old state goes back first, so as not to
            # be in the way of what is held by the new one.
            await self.settle(_given_back(hold.hold_id))
            caller = await self.caller(caller.principal)
            hold_id = str(uuid.uuid4())
        raise Unavailable("key or user changes faster than calls can be admitted")

    def _unchanged(self, caller: Caller) -> bool:
        if caller.key is None:
            return self._view.admits
        expires_at = caller.key.expires_at
        expired = expires_at is not None and expires_at <= self._running.clock()
        return not expired and self._view.still(caller.key, caller.user)

    async def _place(self, caller: Caller, call: Call, deployment: Deployment, hold_id: str) -> Hold:
        terms = hold_terms(call, deployment, self._running.settings.default_max_output_tokens)
        question = PlaceHold(
            hold_id=hold_id,
            worker_id=self._view.worker_id,
            scopes=caller.scopes,
            positions=caller.positions,
            input_nano_usd=terms.input_nano_usd,
            output_nano_usd_per_token=terms.output_nano_usd_per_token,
            output_cap=terms.output_cap,
            output_max=terms.output_max,
        )
        try:
            placed = await self._running.wire.ask("budgets", question, PlacedHold, timeout_seconds=ASK_BUDGETS_SECONDS)
        except Unavailable as away:
            # It may have been placed all the same: it is ended as soon as budgets is back.
            self.settle_later(_given_back(hold_id))
            raise Unavailable("budgets can't be asked", reason="budgets_unavailable") from away
        except asyncio.CancelledError:
            self.settle_later(_given_back(hold_id))
            raise
        cap = placed.output_cap if caller.limited else terms.output_cap
        return Hold(hold_id, placed.held_nano_usd, cap, placed.admitted_at)

    async def settle(self, settlement: SettleHold) -> SettledHold | None:
        """Settle a hold, whatever becomes of who waits for it.

        None if budgets can't be asked now: it is asked again until it answers.
        """
        return await asyncio.shield(self._in_background(self._settle_or_later(settlement)))

    async def _settle_or_later(self, settlement: SettleHold) -> SettledHold | None:
        try:
            return await self._running.wire.ask("budgets", settlement, SettledHold)
        except Refused as refused:
            log.warning("hold.settled_later", hold_id=settlement.hold_id, fault=refused.message)
            self.settle_later(settlement)
            return None

    def settle_later(self, settlement: SettleHold) -> None:
        self._in_background(self._settle_until_done(settlement))

    async def _settle_until_done(self, settlement: SettleHold) -> None:
        attempt = 0
        while True:
            try:
                await self._running.wire.ask("budgets", settlement, SettledHold)
            except Unavailable:
                await asyncio.sleep(SETTLE_AGAIN_SECONDS[min(attempt, len(SETTLE_AGAIN_SECONDS) - 1)])
                attempt += 1
            except Refused as refused:
                log.warning("hold.not_settled", hold_id=settlement.hold_id, fault=refused.message)
                return
            else:
                return

    def record_refusal(self, usage: Usage) -> None:
        """Leave a row for a call that was refused, up to ten a second for a key; the rest are only counted."""
        second = int(self._running.clock().timestamp())
        since, count = self._refusals.get(usage.token, (second, 0))
        count = count + 1 if since == second else 1
        self._refusals[usage.token] = (second, count)
        if len(self._refusals) > 10_000:
            self._refusals.clear()
        if count <= REFUSALS_A_SECOND_MAX:
            self._in_background(self._record(usage))

    async def _record(self, usage: Usage) -> None:
        try:
            await self._running.wire.ask("budgets", RecordRefusal(usage=usage), Recorded)
        except Refused as refused:
            log.warning("refusal.not_recorded", call_id=usage.call_id, fault=refused.message)

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def drained(self, seconds: float) -> None:
        """Give what is still being settled so long to end."""
        try:
            async with asyncio.timeout(seconds):
                while self._settling:  # one that can't be settled now leaves another that does it later
                    await asyncio.wait(self._settling)
        except TimeoutError:
            late = [*self._settling]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _given_back(hold_id: str) -> SettleHold:
    return SettleHold(hold_id=hold_id, billed_nano_usd=0, usage=None)


def _not_allowed(owner: str, name: str) -> ModelNotAllowed:
    return ModelNotAllowed(
        f"model: this {owner} does not allow a model {name[:100]!r}",
        param="model",
        type=f"{owner}_model_access_denied",
    )
