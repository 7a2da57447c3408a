"""A worker's view: the keys, users and sessions in use, and the proof that it is current enough to admit by.

A worker is what barriers wait for. It keeps nothing but answers of the owners, forgets one when an event is about it,
and admits only while its last renewal counts (design §5).
"""

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

import structlog
from nats.js.api import DeliverPolicy

from services.budgets.requests import (
    BARRIER_TOPIC,
    BarrierRaised,
    JoinWorker,
    LeaveWorker,
    Passed,
    Renewed,
    RenewWorker,
)
from services.identity.events import CATALOG as IDENTITY
from services.identity.requests import FindSession, FindUser, FoundSession, FoundUser
from services.keys.events import CATALOG as KEYS
from services.keys.requests import FindKey, FoundKey
from shared.duty import CANCEL_AGAIN_SECONDS, end
from shared.errors import Refused, Unavailable
from shared.events import Catalog, Recorded, UnknownEvent, from_cloudevent
from shared.requests import Found, LastPosition, LogSpan, Position, Question, ReadLog
from shared.service import Running

log = structlog.get_logger()

F = TypeVar("F", bound=Found)

SOURCES: dict[str, Catalog] = {catalog.service: catalog for catalog in (IDENTITY, KEYS)}
KEPT_MAX = 10_000  # of each kind: memory does not grow with the number of keys
CHANGES_KEPT = 10_000
RENEW_SECONDS = 1.0
ASK_AGAIN_MAX = 5
SESSION_KEPT_SECONDS = 30.0  # asking is how identity learns that a session is in use


def boot_seconds() -> float:
    """A clock that goes on while the machine or the process is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Changes:
    """Since which position each thing of one source is known to have changed; a bounded memory."""

    def __init__(self, floor: int = 0) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()
        self._floor = floor  # what happened up to here nobody may have heard

    def note(self, subject: str, position: int) -> None:
        self._last.pop(subject, None)
        self._last[subject] = position
        if len(self._last) > CHANGES_KEPT:
            _, self._floor = self._last.popitem(last=False)

    def last(self, subject: str) -> int:
        return self._last.get(subject, self._floor)


class Kept(Generic[F]):
    """Answers of one owner, by what was asked about, for ``seconds``; the oldest goes first."""

    def __init__(self, clock: Callable[[], float], seconds: float = float("inf")) -> None:
        self._answers: dict[str, tuple[F, float]] = {}
        self._clock = clock
        self._seconds = seconds

    def get(self, subject: str) -> F | None:
        answer, until = self._answers.get(subject, (None, 0.0))
        return answer if self._clock() < until else None

    def keep(self, subject: str, answer: F) -> None:
        self._answers.pop(subject, None)
        self._answers[subject] = answer, self._clock() + self._seconds
        if len(self._answers) > KEPT_MAX:
            del self._answers[next(iter(self._answers))]

    def forget(self, subject: str) -> None:
        self._answers.pop(subject, None)

    def clear(self) -> None:
        self._answers.clear()


class View:
    """One worker's. ``admits`` says whether what it knows may be gone by."""

    def __init__(self, running: Running[Any], bound_seconds: float, clock: Callable[[], float] = boot_seconds) -> None:
        self._running = running
        self._bound_seconds = bound_seconds
        self._clock = clock
        self.worker_id = ""  # of the row that this worker joined with
        self._row_id = ""  # of the row that there may be
        self.applied: dict[str, int] = dict.fromkeys(SOURCES, 0)
        self._number = 0
        self._good_until = 0.0
        self._stuck = False
        self._changes = {source: Changes() for source in SOURCES}
        self._keys: Kept[FoundKey] = Kept(clock)
        self._users: Kept[FoundUser] = Kept(clock)
        self._sessions: Kept[FoundSession] = Kept(clock, SESSION_KEPT_SECONDS)
        self._followed: set[str] = set()
        self._catching_up = {source: asyncio.Lock() for source in SOURCES}
        self._renewing = asyncio.Lock()
        self.renewed = asyncio.Event()  # set by the first renewal

    @property
    def admits(self) -> bool:
        """Whether the last renewal still counts; without it no call is admitted."""
        return not self._stuck and self._clock() < self._good_until

    # What is known

    async def key(self, token: str) -> FoundKey:
        """The key with this hash, as its owner says it is."""
        return await self._find("keys", self._keys, token, FindKey(token=token), FoundKey)

    async def user(self, user_id: str) -> FoundUser:
        return await self._find("identity", self._users, user_id, FindUser(user_id=user_id), FoundUser)

    async def session(self, token: str) -> FoundSession:
        return await self._find("identity", self._sessions, token, FindSession(token=token), FoundSession)

    def still(self, key: FoundKey, user: FoundUser | None) -> bool:
        """Whether nothing has been heard of either since these answers were given, and the renewal counts."""
        if not self.admits or self._keys.get(key.token) is not key:
            return False
        return user is None or self._users.get(user.user_id) is user

    async def _find(self, source: str, kept: Kept[F], subject: str, question: Question, answer: type[F]) -> F:
        if self.admits and (known := kept.get(subject)) is not None:
            return known
        for _ in range(ASK_AGAIN_MAX):
            found = await self._running.wire.ask(source, question, answer)
            # An answer from before a change that was heard of already is no answer.
            if found.position >= self._changes[source].last(subject):
                return _keep(kept, subject, found)
        raise Unavailable(f"{source} does not catch up with its own events")

    # What is heard

    def _apply(self, recorded: Recorded) -> None:
        event, source = recorded.event, recorded.service
        if isinstance(event, UnknownEvent):
            self._begin_anew(source, recorded.position)  # of a later version: it may be about anything
        elif source == "keys" and (token := getattr(event, "token", None)):
            self._changed(source, self._keys, token, recorded.position)
        elif source == "identity":
            if token := getattr(event, "token", None):
                self._changed(source, self._sessions, token, recorded.position)
            elif user_id := getattr(event, "user_id", None):
                self._changed(source, self._users, user_id, recorded.position)
        self.applied[source] = recorded.position

    def _begin_anew(self, source: str, position: int) -> None:
        """Anything of the source may have changed up to here: no answer from before counts, kept or on its way."""
        self._changes[source] = Changes(position)
        for kept in (self._keys,) if source == "keys" else (self._users, self._sessions):
            kept.clear()
        self.applied[source] = position

    def _changed(self, source: str, kept: Kept[Any], subject: str, position: int) -> None:
        self._changes[source].note(subject, position)
        kept.forget(subject)

    async def _hear(self, source: str, payload: bytes) -> None:
        try:
            recorded = from_cloudevent(payload, SOURCES[source])
        except ValueError as fault:
            log.warning("view.not_an_event", source=source, fault=str(fault))
            return
        if recorded.position == self.applied[source] + 1:
            self._apply(recorded)
        elif recorded.position > self.applied[source] and self.worker_id:
            with suppress(Refused):
                await self.catch_up(source, recorded.position)

    async def catch_up(self, source: str, until: int) -> None:
        """Apply the source's log up to ``until``, from the log itself."""
        async with self._catching_up[source]:
            while self.applied[source] < until:
                span = await self._running.wire.ask(source, ReadLog(after=self.applied[source]), LogSpan)
                if not span.events:
                    raise Unavailable(f"{source}'s log ends before position {until}")
                for envelope in span.events:
                    recorded = from_cloudevent(json.dumps(envelope).encode(), SOURCES[source])
                    if recorded.position == self.applied[source] + 1:
                        self._apply(recorded)

    # Being a worker

    @asynccontextmanager
    async def living(self) -> AsyncIterator["View"]:
        """Join, stay current and renew for the length of the block."""
        await self._running.wire.listen(BARRIER_TOPIC, self._on_barrier)
        life = asyncio.create_task(self._live())
        try:
            yield self
        finally:
            await end(life, again_seconds=CANCEL_AGAIN_SECONDS)
            self._good_until = 0.0
            if self._row_id:
                with suppress(Refused):
                    await self._running.wire.ask("budgets", LeaveWorker(worker_id=self._row_id), Passed)

    async def _live(self) -> None:
        while True:
            try:
                await self._follow()
                if not self.worker_id:
                    await self._join()
                await self._mind_the_lag()
                await self._renew()
            except asyncio.CancelledError:
                raise
            except Exception as fault:  # noqa: BLE001 - an owner or NATS is away: the renewal runs out by itself
                log.warning("view.not_renewed", worker_id=self.worker_id, fault=repr(fault))
            await asyncio.sleep(RENEW_SECONDS if self.admits else RENEW_SECONDS / 5)

    async def _follow(self) -> None:
        wire = self._running.wire
        for source in SOURCES.keys() - self._followed:

            async def deliver(message: Any, source: str = source) -> None:
                await self._hear(source, message.data)

            await wire.jetstream.subscribe(
                f"{wire.namespace}{source}.>",
                stream=wire.stream_of(source),
                cb=deliver,
                ordered_consumer=True,
                deliver_policy=DeliverPolicy.NEW,
            )
            self._followed.add(source)

    async def _join(self) -> None:
        """Begin with an empty view at the owners' last positions; from now on barriers wait for this worker."""
        self._row_id = self._row_id or str(uuid.uuid4())  # one row, however often it takes
        await self._running.wire.ask("budgets", JoinWorker(worker_id=self._row_id), Passed)
        for source in SOURCES:
            last = await self._running.wire.ask(source, LastPosition(), Position)
            self._begin_anew(source, last.position)
        self._number, self._stuck = 0, False
        self.worker_id = self._row_id
        log.info("worker.joined", worker_id=self.worker_id)

    async def _renew(self) -> None:
        async with self._renewing:
            if not (worker_id := self.worker_id):
                return
            before = self._clock()
            question = RenewWorker(worker_id=worker_id, number=self._number, positions=dict(self.applied))
            renewed = await self._running.wire.ask("budgets", question, Renewed)
            if not renewed.granted:
                log.warning("worker.given_up", worker_id=worker_id)
                self.worker_id, self._row_id, self._good_until = "", "", 0.0
                return
            self._number = renewed.number
            self._good_until = before + self._bound_seconds
            self.renewed.set()

    async def _mind_the_lag(self) -> None:
        """The stream may go silent or lose what it held: the owners' logs say what there is."""
        lasts = await asyncio.gather(*(self._running.wire.ask(source, LastPosition(), Position) for source in SOURCES))
        for source, last in zip(SOURCES, lasts, strict=True):
            await self._catch_up_or_stop(source, last.position)

    async def _catch_up_or_stop(self, source: str, until: int) -> None:
        try:
            await self.catch_up(source, until)
        except Refused:
            raise
        except Exception:
            # What can't be applied stops admissions: going on would be going by the old state.
            self._stuck = True
            log.exception("view.stuck", source=source, position=self.applied[source])
            raise

    async def _on_barrier(self, payload: bytes) -> None:
        if not self.worker_id:
            return
        try:
            for source, position in BarrierRaised.model_validate_json(payload).positions.items():
                if source in SOURCES:
                    await self._catch_up_or_stop(source, position)
            await self._renew()
        except Exception as fault:  # noqa: BLE001 - whoever waits sees the old positions and goes on waiting
            log.warning("view.barrier_missed", fault=repr(fault))


def _keep(kept: Kept[F], subject: str, found: F) -> F:
    """The answer to go by. Of two that looked at the same time both get the one that was kept first."""
    if not found.exists:
        return found
    known = kept.get(subject)
    if known is not None and known == found.model_copy(update={"position": known.position}):
        return known
    kept.keep(subject, found)
    return found
