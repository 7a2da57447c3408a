"""What tests of identity say often: make a user, open a link, claim it, be refused."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg

from keystead.app import compose
from services.gateway.service import SERVICE as GATEWAY
from services.identity.service import SERVICE as IDENTITY
from tests.support.installation import Installation, claims_of, connections_to, keyring, serving, settings

USER_FIELDS = frozenset(
    "user_id user_email user_alias user_role teams models spend total_spend max_budget budget_duration budget_reset_at"
    " budget_limits budget_enforcement max_parallel_requests tpm_limit rpm_limit metadata sso_user_id created_at"
    " updated_at team_id organization_id allowed_cache_controls model_spend model_max_budget"
    " organization_memberships".split()
)


@dataclass
class PassingClock:
    """The clock of this machine, and as far ahead of it as a test has gone. It never goes back."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def passes(self, **duration: float) -> None:
        self.ahead += timedelta(**duration)


@dataclass(frozen=True)
class Recorded:
    """An event as it is stored."""

    stream: str
    type: str
    data: dict[str, Any]
    actor: str


def an_email() -> str:
    """An address nobody has."""
    return f"{uuid.uuid4().hex[:16]}@example.test"


async def new_user(it: Installation, **fields: Any) -> dict[str, Any]:
    """A user of the test's own, without a key unless one is asked for."""
    user: dict[str, Any] = await it.ok("POST", "/user/new", {"auto_create_key": False, **fields})
    return user


async def user_info(it: Installation, user_id: str) -> dict[str, Any]:
    answer = await it.ok("GET", f"/user/info?user_id={user_id}")
    user: dict[str, Any] = answer["user_info"]
    return user


async def invite(it: Installation, user_id: str) -> str:
    """A new link's id."""
    return str((await it.ok("POST", "/invitation/new", {"user_id": user_id}))["id"])


async def open_link(it: Installation, link: str) -> str:
    """The credential that claims it."""
    opened = await it.ok("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    return str(claims_of(opened["token"])["key"])


async def claim(it: Installation, link: str, user_id: str, password: str, key: str | None) -> tuple[int, Any]:
    body = {"invitation_link": link, "user_id": user_id, "password": password}
    return await it.call("POST", "/onboarding/claim_token", body, key=key)


async def log_in(it: Installation, username: str, password: str) -> tuple[int, Any]:
    return await it.call("POST", "/v2/login", {"username": username, "password": password}, key=None)


async def session_of(it: Installation, username: str, password: str) -> str:
    """The session that a log-in starts."""
    status, answer = await log_in(it, username, password)
    assert status == 200, answer
    return str(claims_of(answer["token"])["key"])


def refusal(outcome: tuple[int, Any]) -> tuple[int, str, str | None]:
    """Status, reason and param of an answer that refuses, in either shape of the contract (§1.4)."""
    status, answer = outcome
    assert status >= 400, answer
    if "error" not in answer:
        return status, answer["type"].removeprefix("urn:keystead:problem:"), answer.get("param")
    error = answer["error"]
    assert error["code"] == str(status)
    return status, error["reason"], error["param"]


def reasons(outcomes: list[tuple[int, Any]]) -> list[str]:
    """How each of many at once ended, in the order of the alphabet; "ok" where it was granted."""
    return sorted("ok" if outcome[0] == 200 else refusal(outcome)[1] for outcome in outcomes)


async def log_of(it: Installation, service: str = "identity", stream: str | None = None) -> list[Recorded]:
    """A service's events in order, or those of one stream."""
    connection = await asyncpg.connect(it.owner_url)
    try:
        rows = await connection.fetch(
            f"select stream, type, data::text, actor from {service}.events"
            " where $1::text is null or stream = $1 order by position",
            stream,
        )
    finally:
        await connection.close()
    return [Recorded(row["stream"], row["type"], json.loads(row["data"]), row["actor"]) for row in rows]


async def types_of(it: Installation, stream: str, service: str = "identity") -> list[str]:
    return [recorded.type for recorded in await log_of(it, service, stream)]


@asynccontextmanager
async def replica_with(
    first: Installation, content: dict[str, Any], *, clock: Any = None, **environment: str
) -> AsyncIterator[Installation]:
    """Identity and a gateway worker more, of the same installation, but with settings (and a clock) of their own."""
    loaded = settings(content, **environment)
    connections = connections_to(first.owner_url, first.namespace)
    composition = compose(
        [IDENTITY, GATEWAY], loaded, connections, keyring=keyring(), **({"clock": clock} if clock else {})
    )
    async with serving(composition.app) as url, aiohttp.ClientSession() as http:
        yield replace(first, url=url, composition=composition, settings=loaded, http=http)
