"""An installation for what is refused: people with more and less, every bad credential, links that open nothing."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from shared.secret import draw_key
from tests.support.installation import MASTER_KEY, MODEL_LIST, PASSWORD, Installation, Person, installation
from tests.support.refusals import Refusal, refused

UPPER_BOUNDS = {"max_budget": 100, "duration": "90d", "budget_duration": "30d"}
CALL = "/v1/chat/completions"
UNKNOWN = "nobody-has-this-id"
UNPRICED = {
    "model_name": "unpriced",
    "litellm_params": {"model": "openai/nobody-knows-its-price", "mock_response": "Hello."},
}


class Clock:
    """The real time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class World:
    """``ada`` may call one model and spend 10 USD, ``dora`` everything; ``vera`` only looks. ``key`` is dora's."""

    it: Installation
    log: "asyncpg.Connection[asyncpg.Record]"
    ada: Person
    dora: Person
    vera: Person
    adas_key: dict[str, Any]
    key: dict[str, Any]
    weak_key: dict[str, Any]
    taken_alias: str
    links: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)

    async def changes(self) -> list[int]:
        """How much people have changed; what only time changes is none of theirs."""
        row = await self.log.fetchrow(
            "select (select count(*) from identity.events where type <> 'SessionEnded'),"
            " (select count(*) from keys.events where type <> 'KeyExpired'),"
            " (select count(*) from invitations.events where type <> 'InvitationExpired')"
        )
        return list(row or ())

    def secrets(self) -> list[str]:
        """What no message may hold: credentials, and who people are."""
        people = [self.ada, self.dora, self.vera]
        keys = [self.adas_key["key"], self.key["key"], self.weak_key["key"], MASTER_KEY, PASSWORD]
        return [*keys, *self.bad.values(), *(p.email for p in people), *(p.session for p in people)]

    async def refused(self, method: str, path: str, body: Any = None, *, key: str | None = MASTER_KEY) -> Refusal:
        """How a request is refused; nothing is changed by it, and no secret told."""
        before = await self.changes()
        refusal = await refused(self.it, method, path, body, key=key)
        assert await self.changes() == before, "refused, and yet something was changed"
        assert not [secret for secret in self.secrets() if secret in refusal.message]
        return refusal


@asynccontextmanager
async def errors_world(more_models: Sequence[dict[str, Any]] = ()) -> AsyncIterator[World]:
    clock = Clock()
    content = {
        "model_list": [*MODEL_LIST, UNPRICED, *more_models],
        "litellm_settings": {"upperbound_key_generate_params": UPPER_BOUNDS},
        "general_settings": {"litellm_key_header_name": "X-Litellm-Key"},
    }
    async with installation(content, clock=clock) as it:
        log = await asyncpg.connect(it.owner_url)
        try:
            yield await _inhabited(it, log, clock)
        finally:
            await log.close()


async def _inhabited(it: Installation, log: "asyncpg.Connection[asyncpg.Record]", clock: Clock) -> World:
    expiring = await it.ok("POST", "/user/new", {"user_email": "expiring@example.test"})
    expired_link = await it.ok("POST", "/invitation/new", {"user_id": expiring["user_id"], "duration": "1h"})
    expired_key = await it.ok("POST", "/key/generate", {"duration": "1h"})
    clock.ahead += timedelta(minutes=61)
    ada = await it.invite(max_budget=10, models=["mock-fast"], budget_duration="1d")
    dora = await it.invite()
    vera = await it.invite(user_role="internal_user_viewer")
    alias = f"taken-{uuid.uuid4()}"
    world = World(
        it,
        log,
        ada,
        dora,
        vera,
        await it.ok("POST", "/key/generate", {}, key=ada.session),
        await it.ok("POST", "/key/generate", {"key_alias": alias}, key=dora.session),
        await it.ok("POST", "/key/generate", WEAK, key=dora.session),
        alias,
    )
    world.links = {"expired": expired_link["id"], **await _links(it, dora)}
    world.bad = {"expired": expired_key["key"], **await _bad_credentials(it)}
    return world


WEAK = {"max_budget": 1, "budget_duration": "7d", "duration": "10d", "models": ["mock-fast"]}


async def _links(it: Installation, dora: Person) -> dict[str, str]:
    used = await it.invite()
    revoked = await it.ok("POST", "/invitation/new", {"user_id": dora.user_id})
    await it.ok("POST", "/invitation/delete", {"invitation_id": revoked["id"]})
    (closed,) = [
        row for row in (await it.ok("GET", "/keystead/v1/invitations"))["data"] if row["user_id"] == used.user_id
    ]
    opened = await it.ok("POST", "/invitation/new", {"user_id": dora.user_id})
    return {"revoked": revoked["id"], "used ref": closed["ref"], "open": opened["id"], "open ref": opened["ref"]}


async def _bad_credentials(it: Installation) -> dict[str, str]:
    ended = await it.invite()
    await it.ok("POST", "/session/logout", key=ended.session)
    blocked = await it.ok("POST", "/key/generate", {"blocked": True})
    deleted = await it.ok("POST", "/key/generate", {})
    await it.ok("POST", "/key/delete", {"keys": [deleted["key"]]})
    orphan = await it.ok("POST", "/user/new", {})
    await it.ok("POST", "/user/delete", {"user_ids": [orphan["user_id"]]})
    return {
        "blocked": blocked["key"],
        "deleted": deleted["key"],
        "of a deleted user": orphan["key"],
        "unknown": draw_key().key,
        "mistyped": MISTYPED,
        "unknown of another make": "sk-nobody-has-this-key-123",
        "nonsense": "nonsense",
        "an ended session": ended.session,
        "the JWT of an ended session": ended.jwt,
        "no JWT of ours": "eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoieCJ9.",
        "a forged JWT": ended.jwt[:-8] + "AAAAAAAA",
        "too long": "sk-" + "x" * 5000,
    }


async def keyed(world: World, **terms: Any) -> str:
    """A key of dora's, made by an admin."""
    made = await world.it.ok("POST", "/key/generate", {"user_id": world.dora.user_id, **terms})
    key: str = made["key"]
    return key


MISTYPED = f"sk-ks1_{'A' * 12}_{'B' * 38}"
