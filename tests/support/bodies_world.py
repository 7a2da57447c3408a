"""An installation for what is wrong with a body: for each route that takes one, one that nothing is wrong with."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.support.installation import MASTER_KEY, PASSWORD, Installation, claims_of, installation
from tests.support.refusals import Refusal, refused, refused_raw

MIB = 1024 * 1024
MODEL_CALLS_MIB = 2
CHAT = {"model": "mock-fast", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}

# Every route that takes a body, and whether it can do without one.
WITH_BODY = (
    "/user/new",
    "/user/update",
    "/user/delete",
    "/v2/login",
    "/invitation/new",
    "/invitation/update",
    "/invitation/delete",
    "/keystead/v1/invitations/{}/resend",
    "/onboarding/claim_token",
    "/key/generate",
    "/key/update",
    "/key/delete",
    "/key/block",
    "/key/unblock",
)
RESEND = "/keystead/v1/invitations/{}/resend"
MODEL_CALLS = tuple(f"{v1}/{call}" for v1 in ("", "/v1") for call in ("chat/completions", "completions", "embeddings"))
WITHOUT_BODY = ("/logout", "/session/logout")


@dataclass
class World:
    it: Installation
    log: "asyncpg.Connection[asyncpg.Record]"
    user_id: str
    key: dict[str, Any]
    ref: str
    link: str
    links_credential: str

    def path(self, route: str) -> str:
        return route.replace("{}", self.ref)

    def body(self, route: str) -> dict[str, Any]:
        """One that nothing is wrong with."""
        bodies: Mapping[str, dict[str, Any]] = {
            "/user/new": {"auto_create_key": False},
            "/user/update": {"user_id": self.user_id},
            "/user/delete": {"user_ids": ["nobody"]},
            "/v2/login": {"username": "nobody", "password": PASSWORD},
            "/invitation/new": {"user_id": self.user_id},
            "/invitation/update": {"invitation_id": self.ref, "is_accepted": False},
            "/invitation/delete": {"invitation_id": "nothing"},
            "/keystead/v1/invitations/{}/resend": {},
            "/onboarding/claim_token": {"invitation_link": self.link, "user_id": self.user_id, "password": "short"},
            "/key/generate": {},
            "/key/update": {"key": self.key["token"]},
            "/key/delete": {"keys": ["nothing"]},
            "/key/block": {"key": self.key["token"]},
            "/key/unblock": {"key": self.key["token"]},
        }
        call: Mapping[str, dict[str, Any]] = {
            "chat/completions": CHAT,
            "embeddings": {"model": "mock-fast", "input": "Hi"},
        }
        prompt = {"model": "mock-fast", "max_tokens": 1, "prompt": "Hi"}
        return bodies[route] if route in bodies else call.get(route.removeprefix("/v1").lstrip("/"), prompt)

    def credential(self, route: str) -> str:
        return self.links_credential if route.startswith("/onboarding") else MASTER_KEY

    async def refused(self, route: str, body: Any) -> Refusal:
        return await refused(self.it, "POST", self.path(route), body, key=self.credential(route))

    async def refused_raw(self, route: str, data: Any, **headers: str) -> Refusal:
        return await refused_raw(self.it, self.path(route), data, key=self.credential(route), headers=headers)

    async def positions(self) -> list[int]:
        """Where the logs of what people change end."""
        row = await self.log.fetchrow(
            "select (select max(position) from identity.events), (select max(position) from keys.events),"
            " (select max(position) from invitations.events)"
        )
        return list(row or ())


@asynccontextmanager
async def bodies_world() -> AsyncIterator[World]:
    content = {"general_settings": {"max_request_size_mb": MODEL_CALLS_MIB}}
    async with installation(content) as it:
        user = await it.ok("POST", "/user/new", {"user_email": "ada@example.test", "auto_create_key": False})
        key = await it.ok("POST", "/key/generate", {"user_id": user["user_id"]})
        invitation = await it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
        opened = await it.ok("GET", f"/onboarding/get_token?invite_link={invitation['id']}", key=None)
        log = await asyncpg.connect(it.owner_url)
        try:
            credential = claims_of(opened["token"])["key"]
            yield World(it, log, user["user_id"], key, invitation["ref"], invitation["id"], credential)
        finally:
            await log.close()
