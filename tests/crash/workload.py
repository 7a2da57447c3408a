"""What runs while something fails: people who come, are invited, claim, make a key, call a model, and go again.

Each command and what its client was told is remembered. An answer that no outage explains is remembered as wrong.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import aiohttp

from tests.support.eventually import eventually
from tests.support.flow import CHAT
from tests.support.installation import MASTER_KEY, PASSWORD, claims_of

CLIENTS = 3
AWAY = (502, 503, 504)
# What an answer may take before its client gives up, and how long a patient one tries the same again.
PATIENCE_SECONDS = 20.0
TRIES_SECONDS = 200.0
AGAIN_SECONDS = 0.5
PAUSE_SECONDS = 0.2


class Lost(Exception):
    """A command of which its client does not know what became."""


@dataclass(frozen=True)
class Command:
    """One that a client gave. ``subject`` is what it is about: all that the logs say of it goes by that."""

    kind: str
    subject: str
    acknowledged: bool


@dataclass(frozen=True)
class Answer:
    status: int
    content: Any
    call_id: str

    @property
    def reason(self) -> str:
        error = self.content.get("error") if isinstance(self.content, dict) else None
        return str(error.get("reason")) if isinstance(error, dict) else ""


@dataclass
class Workload:
    """Several clients, each with one person after the other, until ``stop``."""

    gateways: Sequence[str]
    http: aiohttp.ClientSession
    commands: list[Command] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    failed_at: list[float] = field(default_factory=list)
    lives: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        self._turns = cycle(self.gateways)

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    def stop(self) -> None:
        self._stop.set()

    async def flows(self, lives: int, seconds: float) -> None:
        """Back when that many more people have gone all the way."""
        enough = self.lives + lives
        await eventually(lambda: self.lives >= enough, seconds)

    async def _client(self) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            try:
                await Life(self, patient=number % 2 == 0).live()
                self.lives += 1
            except Lost:
                pass
            await asyncio.sleep(PAUSE_SECONDS)

    @property
    def outage_seconds(self) -> float:
        """From the first request that failed to the last."""
        return max(self.failed_at) - min(self.failed_at) if self.failed_at else 0.0

    async def once(self, method: str, path: str, body: Any, key: str, repeat: str = "") -> Answer | None:
        """One request; None if something was away."""
        headers = {"Authorization": f"Bearer {key}"} | ({"Idempotency-Key": repeat} if repeat else {})
        asked_at = time.monotonic()
        patience = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        try:
            async with self.http.request(
                method, next(self._turns) + path, json=body, headers=headers, timeout=patience
            ) as response:
                content = await (response.json() if response.content_type == "application/json" else response.text())
                answer = Answer(response.status, content, response.headers.get("x-litellm-call-id", ""))
        except (aiohttp.ClientError, TimeoutError) as fault:
            failure = type(fault).__name__
        else:
            if answer.status not in AWAY and answer.reason != "idempotency_in_progress":
                return answer
            failure = f"{answer.status} {answer.reason}"
        self.failures[failure] += 1
        self.failed_at += [asked_at, time.monotonic()]
        return None


@dataclass
class Life:
    """One person's. Who is patient gives a command again, word for word, until it is answered; others give up."""

    work: Workload
    patient: bool
    user_id: str = field(default_factory=lambda: f"person-{uuid.uuid4().hex}")

    async def live(self) -> None:
        await self._give("create", "/user/new", self._new_user(self.user_id))
        invitation = await self._give("invite", "/invitation/new", {"user_id": self.user_id, "send_email": False})
        session = await self._claim(invitation["id"])
        made = await self._give(
            "generate", "/key/generate", {"key_alias": f"key-of-{self.user_id}", "max_budget": 1.0}, key=session
        )
        await self._give("call", "/v1/chat/completions", CHAT, key=made["key"], repeatable=False)
        await self._let_another_be_mailed()
        await self._go(made["key"])

    def _new_user(self, user_id: str, **more: Any) -> dict[str, Any]:
        return {"user_id": user_id, "user_email": f"{user_id}@example.test", "user_role": "internal_user", **more}

    async def _claim(self, link: str) -> str:
        opened = await self._give("open", f"/onboarding/get_token?invite_link={link}", method="GET")
        claimed = await self._give(
            "claim",
            "/onboarding/claim_token",
            {"invitation_link": link, "user_id": self.user_id, "password": PASSWORD},
            key=claims_of(opened["token"])["key"],
            repeatable=False,
            done_before="invitation_used",
        )
        return str(claims_of(claimed["token"])["key"])

    async def _let_another_be_mailed(self) -> None:
        """Who does not come."""
        other = f"mailed-{self.user_id}"
        body = self._new_user(other, auto_create_key=False, send_invite_email=True)
        await self._give("mail", "/user/new", body, subject=other)

    async def _go(self, key: str) -> None:
        body = {"user_ids": [self.user_id]}
        await self._give("delete", "/user/delete", body, repeatable=False, done_before="not_found")
        answer = await self.work.once("POST", "/v1/chat/completions", CHAT, key)
        if answer is not None and answer.status != 401:
            self.work.wrong.append(f"a key of {self.user_id}, who was deleted: {answer}")

    async def _give(
        self,
        kind: str,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        key: str = MASTER_KEY,
        subject: str = "",
        repeatable: bool = True,
        done_before: str = "",
    ) -> Any:
        """What the command was answered. ``done_before`` is the reason by which one is refused that was done already.

        ``repeatable`` commands carry an Idempotency-Key.
        """
        repeat = f"{kind}-{self.user_id}" if repeatable and method == "POST" else ""
        answers = [await self.work.once(method, path, body, key, repeat)]
        until = time.monotonic() + TRIES_SECONDS
        while answers[-1] is None and self.patient and time.monotonic() < until:
            await asyncio.sleep(AGAIN_SECONDS)
            answers.append(await self.work.once(method, path, body, key, repeat))
        answer, again = answers[-1], len(answers) > 1
        was_done = answer is not None and again and answer.reason == done_before != ""
        done = answer is not None and answer.status == 200
        if answer is not None and not done and not was_done:
            self.work.wrong.append(f"{kind} of {self.user_id}{', again' if again else ''}: {answer}")
        about = answer.call_id if answer is not None and kind == "call" else subject or self.user_id
        self.work.commands.append(Command(kind, about, done or was_done))
        if answer is None or not done:
            raise Lost
        return answer.content


@asynccontextmanager
async def working(gateways: Sequence[str], http: aiohttp.ClientSession) -> AsyncIterator[Workload]:
    """Clients at work; at the end of the block each ends what it has begun."""
    work = Workload(gateways, http)
    running = asyncio.create_task(work.run())
    try:
        yield work
    finally:
        work.stop()
        await running
