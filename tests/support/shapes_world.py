"""An installation set up as the recorded proxy was, and its answers on the way to ada's first key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.installation import MASTER_KEY, PASSWORD, Installation, claims_of, installation
from tests.support.shapes import read

# As the recorded proxy was set up: what new internal users get, and the upper bound.
CONTENT = {
    "litellm_settings": {
        "max_internal_user_budget": 10,
        "internal_user_budget_duration": "30d",
        "default_internal_user_params": {"models": ["mock-fast", "mock-priced"]},
        "upperbound_key_generate_params": {"max_budget": 100},
    }
}
CHAT = {"model": "mock-fast", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}

ADA = {"user_email": "Ada@Example.test", "user_role": "internal_user", "auto_create_key": False}
LAPTOP = {
    "key_alias": "ada-laptop",
    "duration": "30d",
    "max_budget": 1.0,
    "budget_duration": "1d",
    "models": ["mock-fast", "mock-priced"],
    "metadata": {"purpose": "transcript"},
    "tags": ["t2"],
}


@dataclass
class World:
    """``ada``, invited, with a session and a key; what the steps on the way were answered."""

    it: Installation
    answers: dict[str, Any]
    user_id: str
    session: str
    key: dict[str, Any]

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = MASTER_KEY) -> Any:
        """The answer, numbers as they are written."""
        text, _ = await self.text(method, path, body, key=key)
        return read(text)

    async def text(self, method: str, path: str, body: Any = None, *, key: str | None = MASTER_KEY) -> tuple[str, Any]:
        headers = {"User-Agent": "curl/7.88.1", **({"Authorization": f"Bearer {key}"} if key else {})}
        async with self.it.http.request(method, self.it.url + path, json=body, headers=headers) as response:
            return await response.text(), response.headers


@asynccontextmanager
async def shapes_world() -> AsyncIterator[World]:
    async with installation(CONTENT) as it:
        world = World(it, {}, "", "", {})
        answers = world.answers
        answers["user"] = user = await world.ask("POST", "/user/new", ADA)
        answers["invitation"] = invited = await world.ask("POST", "/invitation/new", {"user_id": user["user_id"]})
        answers["opened"] = opened = await world.ask(
            "GET", f"/onboarding/get_token?invite_link={invited['id']}", key=None
        )
        claim = {"invitation_link": invited["id"], "user_id": user["user_id"]}
        credential = claims_of(opened["token"])["key"]
        answers["weak"] = await world.ask(
            "POST", "/onboarding/claim_token", {**claim, "password": "abc"}, key=credential
        )
        answers["claimed"] = claimed = await world.ask(
            "POST", "/onboarding/claim_token", {**claim, "password": PASSWORD}, key=credential
        )
        world.user_id, world.session = user["user_id"], claims_of(claimed["token"])["key"]
        answers["key"] = world.key = await world.ask("POST", "/key/generate", LAPTOP, key=world.session)
        yield world
