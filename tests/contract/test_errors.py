"""Every refusal that the routes can give (contract §1.4): what it says, what it leaves as it was, which is first.

What is wrong with a body or a query stands in ``test_errors_bodies.py``.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from shared.secret import draw_key
from tests.support.flow import CHAT
from tests.support.installation import (
    BASE_URL,
    MASTER_KEY,
    MODEL_LIST,
    PASSWORD,
    Installation,
    Person,
    claims_of,
    installation,
)
from tests.support.refusals import Refusal, read_refusal, refused, refused_raw
from tests.support.routes import routes_of
from tests.support.upstream import running_upstream

OPEN = frozenset(
    """
    /v2/login /logout /onboarding/get_token /onboarding/claim_token /.well-known/jwks.json /openapi.json
    /health/liveliness /health/liveness /livez /health/readiness /readyz
    """.split()
)
PRICES = {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}
UPPER_BOUNDS = {"max_budget": 100, "duration": "90d", "budget_duration": "30d"}
CALL = "/v1/chat/completions"


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
    upstream: str
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


def models(upstream: str) -> list[dict[str, Any]]:
    """The mocks, one without a price, and one for each way in which a provider fails."""

    def provided(name: str, **more: Any) -> dict[str, Any]:
        params = {"model": f"openai/{name}", "api_base": f"{upstream}/v1", "api_key": "sk-upstream", **PRICES, **more}
        return {"model_name": name, "litellm_params": params}

    ways = ["reject-400", "rate-limit", "fail-401", "fail-403", "fail-404", "fail-500", "bad-json", "hang-up", "gated"]
    unpriced = {"model": "openai/nobody-knows-its-price", "mock_response": "Hello."}
    return [
        *MODEL_LIST,
        {"model_name": "unpriced", "litellm_params": unpriced},
        *(provided(name) for name in ways),
        provided("slow", timeout=0.2),
    ]


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    clock = Clock()
    async with AsyncExitStack() as stack:
        upstream = stack.enter_context(running_upstream())
        content = {
            "model_list": models(upstream),
            "litellm_settings": {"upperbound_key_generate_params": UPPER_BOUNDS},
            "general_settings": {"litellm_key_header_name": "X-Litellm-Key"},
        }
        it = await stack.enter_async_context(installation(content, clock=clock))
        log = await asyncpg.connect(it.owner_url)
        stack.push_async_callback(log.close)
        yield await _inhabited(it, log, upstream, clock)


async def _inhabited(it: Installation, log: "asyncpg.Connection[asyncpg.Record]", upstream: str, clock: Clock) -> World:
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
        upstream,
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


MISTYPED = f"sk-ks1_{'A' * 12}_{'B' * 38}"
# §1.4: unknown, deleted, ended; expired; blocked; a JWT that is not valid.
BAD_CREDENTIALS = {
    "blocked": "key_blocked",
    "expired": "key_expired",
    "no JWT of ours": "jwt_invalid",
    "a forged JWT": "jwt_invalid",
    **dict.fromkeys(
        [
            "deleted",
            "of a deleted user",
            "unknown",
            "mistyped",
            "unknown of another make",
            "nonsense",
            "an ended session",
            "the JWT of an ended session",
            "too long",
        ],
        "key_unknown",
    ),
}


async def test_every_protected_route_asks_for_a_credential_first(world: World) -> None:
    """401 whatever the body: a broken one is not even looked at (§1.2)."""
    for served in routes_of(world.it):
        path = served.route.path
        if path in OPEN:
            continue
        refusal = await world.refused(served.method, path, key=None)
        assert (refusal.status, refusal.reason, refusal.param) == (401, "credentials_missing", None), path
        if served.method == "POST":
            broken = await refused_raw(world.it, path, b'{"a": ', key=None, headers={"Content-Type": "text/plain"})
            assert broken == refusal, path


@pytest.mark.parametrize("name", BAD_CREDENTIALS)
async def test_every_protected_route_refuses_a_bad_credential(world: World, name: str) -> None:
    for served in routes_of(world.it):
        path = served.route.path
        if path in OPEN:
            continue
        refusal = await refused(world.it, served.method, path, key=world.bad[name])
        assert (refusal.status, refusal.reason) == (401, BAD_CREDENTIALS[name]), path
        if refusal.reason == "key_unknown":
            assert refusal.param == "key"
        assert world.bad[name] not in refusal.message


async def test_the_credential_of_an_invitation_is_good_for_nothing_else(world: World) -> None:
    opened = await world.it.ok("GET", f"/onboarding/get_token?invite_link={world.links['open']}", key=None)
    for credential in (opened["token"], claims_of(opened["token"])["key"]):
        refusal = await world.refused("GET", "/keystead/v1/me", key=credential)
        assert refusal.reason in ("jwt_invalid", "key_unknown")


async def test_a_credential_is_found_in_the_contracts_order_and_a_bad_one_not_skipped(world: World) -> None:
    """§1.2: the named header, Authorization, x-api-key, api-key, the cookie."""
    names = ["X-Litellm-Key", "Authorization", "x-api-key", "api-key"]
    good, bad = world.key["key"], draw_key().key
    for place, name in enumerate(names):
        for value in (good, f"Bearer {good}", f"bEaReR  {good}"):
            assert await world.it.ok("GET", "/v1/models", key=None, headers={name: value}), name
        headers = {name: bad, **dict.fromkeys(names[place + 1 :], good), "Cookie": f"token={world.dora.jwt}"}
        refusal = await refused(world.it, "GET", "/v1/models", key=None, headers=headers)
        assert refusal.reason == "key_unknown", name
    for cookie in (world.dora.jwt, world.dora.session):
        me = await world.it.ok("GET", "/keystead/v1/me", key=None, headers={"Cookie": f"token={cookie}"})
        assert me["credential"]["kind"] == "session"
    assert (await world.it.ok("GET", "/keystead/v1/me", key=world.dora.jwt))["user_id"] == world.dora.user_id


async def test_a_change_by_cookie_must_come_from_the_site_itself(world: World) -> None:
    cookie = {"Cookie": f"token={world.dora.jwt}"}
    for headers in (
        {},
        {"Origin": "https://elsewhere.test"},
        {"Origin": "null"},
        {"Origin": f"{BASE_URL}.elsewhere.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": BASE_URL},
    ):
        for path in ("/key/generate", "/session/logout", "/key/delete"):
            refusal = await refused(world.it, "POST", path, {}, key=None, headers={**cookie, **headers})
            assert (refusal.status, refusal.reason) == (403, "csrf"), (path, headers)
    for headers in ({"Origin": BASE_URL}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert await world.it.ok("POST", "/key/generate", {}, key=None, headers={**cookie, **headers})
    assert await world.it.ok("GET", "/keystead/v1/me", key=None, headers={**cookie, "Sec-Fetch-Site": "cross-site"})


Who = Callable[[World], str | None]
Body = Any | Callable[[World], Any]


def admin(_: World) -> str:
    return MASTER_KEY


def nobody(_: World) -> None:
    return None


def ada(world: World) -> str:
    return world.ada.session


def dora(world: World) -> str:
    return world.dora.session


def weak(world: World) -> str:
    key: str = world.weak_key["key"]
    return key


@dataclass(frozen=True)
class Case:
    """A request that the rules refuse: why, on which field, and with which words beside the field's name."""

    who: Who
    request: str
    body: Body
    reason: str
    param: str | None
    words: tuple[str, ...] = ()
    type: str = ""

    def __str__(self) -> str:
        return f"{self.request.partition('?')[0]} {self.reason} {self.param or ''}".rstrip()


def key_and(**more: Any) -> Callable[[World], Any]:
    return lambda world: {"key": world.key["token"], **more}


def query(text: str, **names: Callable[[World], str]) -> Callable[[World], str]:
    return lambda world: text.format(**{name: of(world) for name, of in names.items()})


UNKNOWN = "nobody-has-this-id"
CASES = (
    # Over the upper bounds, looked at first; null and -1 are over them (D23).
    Case(ada, "POST /key/generate", {"max_budget": 100000}, "over_upper_bound", "max_budget", ("100000", "100")),
    Case(admin, "POST /key/generate", {"max_budget": 100.000000001}, "over_upper_bound", "max_budget", ("100",)),
    Case(admin, "POST /key/generate", {"duration": "91d"}, "over_upper_bound", "duration", ("91d", "90d")),
    Case(admin, "POST /key/generate", {"duration": "-1"}, "over_upper_bound", "duration", ("90d",)),
    Case(ada, "POST /key/generate", {"budget_duration": "2mo"}, "over_upper_bound", "budget_duration", ("2mo", "30d")),
    Case(admin, "POST /key/update", key_and(max_budget=101), "over_upper_bound", "max_budget", ("101", "100")),
    Case(admin, "POST /key/update", key_and(max_budget=None), "over_upper_bound", "max_budget", ("no limit", "100")),
    Case(admin, "POST /key/update", key_and(max_budget=""), "over_upper_bound", "max_budget", ("no limit", "100")),
    Case(admin, "POST /key/update", key_and(duration="1y"), "over_upper_bound", "duration", ("1y", "90d")),
    Case(dora, "POST /key/update", key_and(duration=None), "over_upper_bound", "duration", ("no limit", "90d")),
    Case(dora, "POST /key/update", key_and(duration="-1"), "over_upper_bound", "duration", ("90d",)),
    Case(admin, "POST /key/update", key_and(budget_duration=None), "over_upper_bound", "budget_duration", ("30d",)),
    # Over what the caller has: the user's budget, the key that is used (§2.2 *6, D44).
    Case(ada, "POST /key/generate", {"max_budget": 10.01}, "over_own_limit", "max_budget", ("10.01", "10")),
    Case(weak, "POST /key/generate", {"max_budget": 2}, "over_own_limit", "max_budget", ("2", "1")),
    Case(weak, "POST /key/generate", {"duration": "11d"}, "over_own_limit", "duration", ("11d",)),
    Case(weak, "POST /key/generate", {"models": ["mock-priced"]}, "over_own_limit", "models"),
    Case(weak, "POST /key/generate", {"models": ["all-proxy-models"]}, "over_own_limit", "models"),
    Case(weak, "POST /key/generate", {"budget_duration": "1d"}, "over_own_limit", "budget_duration"),
    Case(weak, "POST /key/update", key_and(duration="11d"), "over_own_limit", "duration", ("11d",)),
    Case(weak, "POST /key/update", key_and(models=[]), "over_own_limit", "models"),
    # Models.
    Case(ada, "POST /key/generate", {"models": ["nothing"]}, "model_unknown", "models", ("'nothing'",)),
    Case(admin, "POST /user/update", {"user_id": "default_user_id", "models": ["nothing"]}, "model_unknown", "models"),
    Case(
        ada,
        "POST /key/generate",
        {"models": ["mock-fast", "mock-priced"]},
        "model_not_allowed",
        "models",
        ("'mock-priced'",),
        "user_model_access_denied",
    ),
    # Duplicates.
    Case(admin, "POST /user/new", lambda w: {"user_email": w.ada.email.upper()}, "duplicate_email", "user_email"),
    Case(
        admin,
        "POST /user/update",
        lambda w: {"user_id": w.dora.user_id, "user_email": f" {w.ada.email}"},
        "duplicate_email",
        "user_email",
    ),
    Case(admin, "POST /user/new", lambda w: {"user_id": w.ada.user_id}, "duplicate_user_id", "user_id"),
    Case(admin, "POST /user/new", {"user_id": "default_user_id"}, "duplicate_user_id", "user_id"),
    Case(admin, "POST /key/generate", lambda w: {"key_alias": w.taken_alias}, "duplicate_key_alias", "key_alias"),
    Case(
        ada,
        "POST /key/update",
        lambda w: {"key": w.adas_key["token"], "key_alias": w.taken_alias},
        "duplicate_key_alias",
        "key_alias",
    ),
    # Unknown ids: 404 to who sees all of the kind.
    Case(admin, f"GET /user/info?user_id={UNKNOWN}", None, "not_found", "user_id"),
    Case(admin, "POST /user/update", {"user_id": UNKNOWN}, "not_found", "user_id"),
    Case(admin, "POST /user/update", {"user_email": "nobody@example.test"}, "not_found", "user_email"),
    Case(admin, "POST /user/delete", {"user_ids": [UNKNOWN]}, "not_found", "user_ids"),
    Case(admin, "POST /user/delete", lambda w: {"user_ids": [w.ada.user_id, UNKNOWN]}, "not_found", "user_ids"),
    Case(admin, "POST /user/new", {"teams": [UNKNOWN]}, "not_found", "teams"),
    Case(admin, "POST /invitation/new", {"user_id": UNKNOWN}, "not_found", "user_id"),
    Case(admin, f"GET /invitation/info?invitation_id={UNKNOWN}", None, "not_found", "invitation_id"),
    Case(
        admin, "POST /invitation/update", {"invitation_id": UNKNOWN, "is_accepted": True}, "not_found", "invitation_id"
    ),
    Case(admin, "POST /invitation/delete", {"invitation_id": UNKNOWN}, "not_found", "invitation_id"),
    Case(admin, f"POST /keystead/v1/invitations/{UNKNOWN}/resend", None, "not_found", "ref"),
    Case(admin, "POST /key/generate", {"user_id": UNKNOWN}, "not_found", "user_id"),
    Case(admin, "POST /key/generate", {"team_id": UNKNOWN}, "not_found", "team_id"),
    Case(admin, f"GET /key/info?key={UNKNOWN}", None, "not_found", "key"),
    Case(admin, "POST /key/update", {"key": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/update", {"key_alias": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/delete", {"keys": [UNKNOWN]}, "not_found", "keys"),
    Case(admin, "POST /key/delete", lambda w: {"keys": [w.key["token"], UNKNOWN]}, "not_found", "keys"),
    Case(admin, "POST /key/delete", {"key_aliases": [UNKNOWN]}, "not_found", "key_aliases"),
    Case(admin, "POST /key/block", {"key": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/unblock", {"key": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/block", lambda w: {"key": w.bad["deleted"]}, "not_found", "key"),
    Case(admin, f"GET /spend/logs?api_key={UNKNOWN}", None, "not_found", "api_key"),
    Case(admin, f"GET /spend/logs?user_id={UNKNOWN}", None, "not_found", "user_id"),
    Case(admin, f"GET /keystead/v1/budgets/key:{UNKNOWN}", None, "not_found", "scope"),
    Case(admin, "GET /keystead/v1/budgets/team:unknown", None, "not_found", "scope"),
    Case(admin, f"GET /v1/models/{UNKNOWN}", None, "not_found", "model"),
    Case(ada, "GET /v1/models/mock-priced", None, "not_found", "model"),
    # ... and the answer of a foreign one to who sees only some.
    Case(ada, f"GET /user/info?user_id={UNKNOWN}", None, "not_yours", None),
    Case(ada, "POST /user/update", {"user_email": "nobody@example.test"}, "not_yours", None),
    Case(ada, "POST /user/update", lambda w: {"user_email": w.dora.email}, "not_yours", None),
    Case(ada, "POST /key/generate", lambda w: {"user_id": w.dora.user_id}, "not_yours", None),
    Case(ada, "POST /key/generate", {"team_id": UNKNOWN}, "not_yours", "team_id"),
    Case(ada, "POST /key/update", lambda w: {"key": w.key["token"]}, "not_yours", None),
    Case(ada, "POST /key/update", lambda w: {"key_alias": w.taken_alias}, "not_yours", None),
    Case(ada, "POST /key/delete", lambda w: {"keys": [w.adas_key["token"], w.key["token"]]}, "not_yours", None),
    Case(ada, "POST /key/delete", lambda w: {"key_aliases": [w.taken_alias]}, "not_yours", None),
    Case(ada, "GET /keystead/v1/budgets/proxy", None, "not_yours", None),
    # Invitations.
    Case(admin, "POST /invitation/new", {"user_id": "default_user_id"}, "user_has_no_email", "user_id"),
    Case(
        admin,
        "POST /invitation/update",
        lambda w: {"invitation_id": w.links["open"], "is_accepted": True},
        "field_read_only",
        "is_accepted",
    ),
    Case(
        admin,
        "POST /invitation/update",
        lambda w: {"invitation_id": w.links["used ref"], "is_accepted": False},
        "field_read_only",
        "is_accepted",
    ),
    Case(
        admin,
        "POST /invitation/delete",
        lambda w: {"invitation_id": w.links["used ref"]},
        "invitation_closed",
        "invitation_id",
    ),
    # The last way in can't be lost.
    Case(admin, "POST /user/delete", {"user_ids": ["default_user_id"]}, "out_of_range", "user_ids"),
    Case(
        admin,
        "POST /user/update",
        {"user_id": "default_user_id", "user_role": "internal_user"},
        "out_of_range",
        "user_role",
    ),
    # Log-in: one answer for all that is wrong.
    Case(
        nobody,
        "POST /v2/login",
        {"username": "nobody@example.test", "password": PASSWORD},
        "credentials_wrong",
        "invalid_credentials",
    ),
    Case(
        nobody,
        "POST /v2/login",
        lambda w: {"username": w.ada.email, "password": PASSWORD + "!"},
        "credentials_wrong",
        "invalid_credentials",
    ),
    Case(
        nobody,
        "POST /v2/login",
        {"username": "expiring@example.test", "password": PASSWORD},
        "credentials_wrong",
        "invalid_credentials",
    ),
    Case(
        nobody,
        "POST /v2/login",
        {"username": "admin", "password": PASSWORD},
        "credentials_wrong",
        "invalid_credentials",
    ),
    # Ranges.
    Case(admin, "GET /spend/logs?start_date=2026-11-25&end_date=2026-11-24", None, "range_malformed", "end_date"),
)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_rules_refuse(world: World, case: Case) -> None:
    method, _, path = case.request.partition(" ")
    body = case.body(world) if callable(case.body) else case.body
    refusal = await world.refused(method, path, body, key=case.who(world))
    assert (refusal.reason, refusal.param) == (case.reason, case.param), refusal
    if case.param is not None and refusal.status in (400, 404, 409) and case.reason != "credentials_wrong":
        assert case.param in refusal.message, refusal
    for word in case.words:
        assert word in refusal.message, refusal
    if case.type:
        assert refusal.type == case.type


async def test_all_that_is_wrong_with_a_log_in_is_answered_alike(world: World) -> None:
    cases = [case for case in CASES if case.reason == "credentials_wrong"]
    bodies = [case.body(world) if callable(case.body) else case.body for case in cases]
    assert len({await world.refused("POST", "/v2/login", body, key=None) for body in bodies}) == 1


async def test_a_foreign_object_is_answered_like_an_unknown_one(world: World) -> None:
    for foreign, unknown in (
        (f"/user/info?user_id={world.dora.user_id}", f"/user/info?user_id={UNKNOWN}"),
        (f"/key/info?key={world.key['key_id']}", f"/key/info?key={UNKNOWN}"),
        (f"/key/list?user_id={world.dora.user_id}", f"/key/list?user_id={UNKNOWN}"),
        (f"/key/list?key_hash={world.key['token']}", f"/key/list?key_hash={'0' * 64}"),
        (f"/spend/logs?user_id={world.dora.user_id}", f"/spend/logs?user_id={UNKNOWN}"),
        (f"/spend/logs?api_key={world.key['token']}", f"/spend/logs?api_key={UNKNOWN}"),
        (f"/keystead/v1/budgets/user:{world.dora.user_id}", f"/keystead/v1/budgets/user:{UNKNOWN}"),
        (f"/keystead/v1/budgets/key:{world.key['key_id']}", f"/keystead/v1/budgets/key:{UNKNOWN}"),
    ):
        refusals = [await world.refused("GET", path, key=world.ada.session) for path in (foreign, unknown)]
        assert refusals[0] == refusals[1], foreign
        assert refusals[0].reason == "not_yours", foreign


async def test_a_chosen_key_that_there_is_already_is_refused(world: World) -> None:
    chosen = f"sk-chosen-{uuid.uuid4().hex}"
    assert (await world.it.ok("POST", "/key/generate", {"key": chosen}))["key"] == chosen
    refusal = await world.refused("POST", "/key/generate", {"key": chosen})
    assert (refusal.reason, refusal.param) == ("duplicate_key", "key")
    assert chosen not in refusal.message


async def test_deletes_of_several_are_all_or_none(world: World) -> None:
    """D36."""
    made = [await world.it.ok("POST", "/key/generate", {}) for _ in range(2)]
    await world.refused("POST", "/key/delete", {"keys": [made[0]["token"], made[1]["token"], UNKNOWN]})
    for key in made:
        assert (await world.it.ok("GET", f"/key/info?key={key['token']}"))["info"]["status"] == "active"
    await world.refused("POST", "/user/delete", {"user_ids": [world.ada.user_id, UNKNOWN]})
    await world.refused("POST", "/user/delete", {"user_ids": [world.ada.user_id, "default_user_id"]})
    assert await world.it.ok("GET", "/keystead/v1/me", key=world.ada.session)


async def test_a_link_that_opens_nothing_says_why(world: World) -> None:
    used = await _claimable(world)
    await world.it.ok("POST", "/onboarding/claim_token", used.body(PASSWORD), key=used.credential)
    for link, reason in (
        (str(uuid.uuid4()), "invitation_unknown"),
        ("nonsense", "invitation_unknown"),
        (world.links["open ref"], "invitation_unknown"),
        (world.links["revoked"], "invitation_unknown"),
        (world.links["expired"], "invitation_expired"),
        (used.link, "invitation_used"),
    ):
        refusal = await world.refused("GET", f"/onboarding/get_token?invite_link={link}", key=None)
        assert (refusal.status, refusal.reason) == (401, reason), link
        assert link not in refusal.message
    refusal = await world.refused("POST", "/onboarding/claim_token", used.body(PASSWORD), key=used.credential)
    assert refusal.reason == "invitation_used"


@dataclass(frozen=True)
class Claimable:
    link: str
    ref: str
    user_id: str
    email: str
    credential: str

    def body(self, password: str, **more: Any) -> dict[str, Any]:
        return {"invitation_link": self.link, "user_id": self.user_id, "password": password, **more}


async def _claimable(world: World) -> Claimable:
    email = f"{uuid.uuid4().hex}.a.long.name@example.test"
    user = await world.it.ok("POST", "/user/new", {"user_email": email, "auto_create_key": False})
    made = await world.it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
    opened = await world.it.ok("GET", f"/onboarding/get_token?invite_link={made['id']}", key=None)
    return Claimable(made["id"], made["ref"], user["user_id"], email, claims_of(opened["token"])["key"])


async def test_a_claim_needs_the_links_own_credential(world: World) -> None:
    mine, other = await _claimable(world), await _claimable(world)
    body = mine.body(PASSWORD)
    refusal = await world.refused("POST", "/onboarding/claim_token", body, key=None)
    assert refusal.reason == "credentials_missing"
    for credential in (other.credential, MASTER_KEY, world.dora.session, mine.credential[:-4] + "AAAA", "x"):
        refusal = await world.refused("POST", "/onboarding/claim_token", body, key=credential)
        assert (refusal.status, refusal.reason) == (401, "invitation_unknown"), credential
    for wrong in ({"user_id": other.user_id}, {"user_id": UNKNOWN}, {"invitation_link": other.link}):
        refusal = await world.refused("POST", "/onboarding/claim_token", {**body, **wrong}, key=mine.credential)
        assert (refusal.status, refusal.reason) == (401, "invitation_unknown"), wrong


async def test_a_claim_without_credential_is_refused_before_its_body_is_looked_at(world: World) -> None:
    refusal = await refused_raw(world.it, "/onboarding/claim_token", b"{", key=None)
    assert (refusal.status, refusal.reason) == (401, "credentials_missing")


async def test_a_refused_password_leaves_the_invitation_open(world: World) -> None:
    """§5.6: 15 characters, 1,024 bytes, not among the most common, not the address nor its first part."""
    invited = await _claimable(world)
    for password, rule in (
        ("short", "15 characters"),
        ("x" * 1025, "1024 bytes"),
        ("é" * 513, "1024 bytes"),
        ("x" * 5000, "1024 bytes"),
        (invited.email, "e-mail"),
        (invited.email.upper(), "e-mail"),
        (invited.email.partition("@")[0], "e-mail"),
        ("1QAZ2wsx3edc4rfv", "most common"),
    ):
        refusal = await world.refused("POST", "/onboarding/claim_token", invited.body(password), key=invited.credential)
        assert (refusal.status, refusal.reason, refusal.param) == (400, "password_policy", "password")
        assert rule in refusal.message and password not in refusal.message
    claimed = await world.it.ok("POST", "/onboarding/claim_token", invited.body(PASSWORD), key=invited.credential)
    assert claimed["user_email"] == invited.email


async def test_only_open_and_expired_invitations_are_sent_again(world: World) -> None:
    path = f"/keystead/v1/invitations/{world.links['used ref']}/resend"
    refusal = await world.refused("POST", path)
    assert (refusal.status, refusal.reason) == (409, "invitation_not_resendable")


# Model calls.


async def keyed(world: World, **terms: Any) -> str:
    """A key of dora's, made by an admin."""
    made = await world.it.ok("POST", "/key/generate", {"user_id": world.dora.user_id, **terms})
    key: str = made["key"]
    return key


async def test_a_model_that_may_not_be_called_and_an_unknown_one_get_the_same_answer(world: World) -> None:
    listed = await keyed(world, models=["mock-fast"])
    for key, kind in ((listed, "key"), (world.adas_key["key"], "user"), (await keyed(world), "key")):
        names = ["mock-priced", "nothing"] if kind == "user" or key == listed else ["nothing"]
        for name in names:
            refusal = await world.refused("POST", CALL, {**CHAT, "model": name}, key=key)
            assert (refusal.reason, refusal.param) == ("model_not_allowed", "model")
            assert refusal.type == f"{kind}_model_access_denied"
            assert name in refusal.message


async def test_a_call_over_budget_is_told_which_and_until_when(world: World) -> None:
    key = await keyed(world, max_budget=0.0001, budget_duration="1d")
    for _ in range(2):
        await world.it.ok("POST", CALL, CHAT, key=key)
    status, answer, headers = await world.it.request("POST", CALL, CHAT, key=key)
    refusal = read_refusal(CALL, status, answer, headers)
    assert (refusal.status, refusal.reason) == (429, "budget_exceeded")
    assert headers["x-should-retry"] == "false"
    assert 0 < int(headers["Retry-After"]) <= 24 * 3600
    info = await world.it.ok("GET", "/key/info", key=key)
    reset = datetime.fromisoformat(info["info"]["budget_reset_at"])
    for part in (f"key:{info['info']['key_id']}", "0.0001", f"{reset:%Y-%m-%dT%H:%M:%SZ}"):
        assert part in refusal.message, refusal


async def test_no_reset_is_promised_that_does_not_help(world: World) -> None:
    """The call alone is dearer than the budget: `Retry-After` is left out."""
    for call in (CHAT, {**CHAT, "stream": True}):
        key = await keyed(world, max_budget=0.00001, budget_duration="1d")
        status, answer, headers = await world.it.request("POST", CALL, call, key=key)
        assert read_refusal(CALL, status, answer, headers).reason == "budget_exceeded"
        assert headers["x-should-retry"] == "false" and "Retry-After" not in headers


async def test_a_budget_of_nothing_refuses_and_leaves_reading_alone(world: World) -> None:
    person = await world.it.invite(max_budget=0)
    key = (await world.it.ok("POST", "/key/generate", {"user_id": person.user_id}))["key"]
    refusal = await world.refused("POST", CALL, CHAT, key=key)
    assert refusal.reason == "budget_exceeded" and f"user:{person.user_id}" in refusal.message
    assert await world.it.ok("GET", "/v1/models", key=key)
    assert await world.it.ok("GET", "/key/info", key=key)


async def test_a_call_that_only_open_holds_stand_in_the_way_of_is_told_to_come_back(world: World) -> None:
    key = await keyed(world, max_budget=0.0005)
    body = {**CHAT, "model": "gated", "max_tokens": 50, "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    async with world.it.http.post(world.it.url + CALL, json=body, headers=headers) as stream:
        assert stream.status == 200, await stream.text()
        await stream.content.readline()  # under way, and its hold open
        status, answer, answered = await world.it.request("POST", CALL, {**body, "stream": False}, key=key)
        refusal = read_refusal(CALL, status, answer, answered)
        async with world.it.http.post(f"{world.upstream}/go"):
            await stream.read()
    assert (refusal.status, refusal.reason) == (429, "budget_held"), refusal
    assert answered["Retry-After"] == "1" and "x-should-retry" not in answered


async def test_what_a_budget_can_not_bound_is_refused_under_one(world: World) -> None:
    key = await keyed(world, max_budget=1)
    refusal = await world.refused("POST", CALL, {**CHAT, "model": "unpriced"}, key=key)
    assert (refusal.status, refusal.reason, refusal.param) == (403, "price_unknown", "model")
    for name, value in (("service_tier", "priority"), ("web_search_options", {"a": 1}), ("audio", {"voice": "x"})):
        refusal = await world.refused("POST", CALL, {**CHAT, name: value}, key=key)
        assert (refusal.status, refusal.reason, refusal.param) == (400, "parameter_unpriced", name)
        assert name in refusal.message


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [
        ("reject-400", 400, "upstream_rejected"),
        ("rate-limit", 429, "upstream_rate_limited"),
        ("fail-401", 502, "upstream_failed"),
        ("fail-403", 502, "upstream_failed"),
        ("fail-404", 502, "upstream_failed"),
        ("fail-500", 502, "upstream_failed"),
        ("bad-json", 502, "upstream_failed"),
        ("hang-up", 502, "upstream_failed"),
        ("slow", 504, "upstream_timeout"),
    ],
)
async def test_a_providers_failure_is_the_providers(
    world: World, model: str, status: int, reason: str, stream: bool
) -> None:
    """D26; and no detail of its, nor the credential it was called with."""
    key = await keyed(world, max_budget=50)
    body = {**CHAT, "model": model, "stream": stream}
    answered, answer, headers = await world.it.request("POST", CALL, body, key=key)
    refusal = read_refusal(CALL, answered, answer, headers)
    assert (refusal.status, refusal.reason) == (status, reason), refusal
    assert "sk-upstream" not in refusal.message and "internal details" not in refusal.message
    if reason == "upstream_rate_limited":
        assert headers["Retry-After"] == "7"


# The order: credential, role, body, object, rules.

BROKEN = b'{"key": '


async def test_a_role_that_may_not_at_all_is_refused_before_the_body_is_read(world: World) -> None:
    changes = [
        served.route.path
        for served in routes_of(world.it)
        if served.method == "POST" and served.route.path not in {*OPEN, "/session/logout"}
    ]
    for path in changes:
        if "completions" in path or "embeddings" in path:
            continue
        refusal = await refused_raw(world.it, path, BROKEN, key=world.vera.session)
        assert (refusal.status, refusal.reason) == (403, "role_not_allowed"), path
        refusal = await refused_raw(world.it, path, BROKEN, key=MASTER_KEY)
        assert (refusal.status, refusal.reason) == (400, "json_malformed"), path


async def test_the_body_is_looked_at_before_the_object(world: World) -> None:
    for path, body in (
        ("/user/update", {"user_id": UNKNOWN, "max_budget": -1}),
        ("/key/update", {"key": UNKNOWN, "max_budget": -1}),
        ("/key/block", {"key": UNKNOWN, "x": 1}),
        ("/invitation/new", {"user_id": UNKNOWN, "duration": "x"}),
        ("/user/delete", {"user_ids": [UNKNOWN], "x": 1}),
    ):
        assert (await world.refused("POST", path, body)).status == 400, path


async def test_the_object_is_looked_at_before_the_rules(world: World) -> None:
    over = {"max_budget": 100000}
    for who, path, body, reason in (
        (MASTER_KEY, "/key/update", {"key": UNKNOWN, **over}, "not_found"),
        (world.ada.session, "/key/update", {"key": world.key["token"], **over}, "not_yours"),
        (world.ada.session, "/key/generate", {"user_id": world.dora.user_id, **over}, "not_yours"),
        (world.ada.session, "/user/update", {"user_id": world.dora.user_id, "models": ["nothing"]}, "not_yours"),
        (MASTER_KEY, "/user/update", {"user_id": UNKNOWN, "models": ["nothing"]}, "not_found"),
        (MASTER_KEY, "/key/update", {"key": UNKNOWN, "models": ["nothing"]}, "not_found"),
        (MASTER_KEY, "/key/generate", {"user_id": UNKNOWN, **over}, "not_found"),
    ):
        assert (await world.refused("POST", path, body, key=who)).reason == reason, (path, body)


async def test_the_upper_bound_is_looked_at_before_what_the_caller_has(world: World) -> None:
    refusal = await world.refused("POST", "/key/generate", {"max_budget": 100000}, key=world.weak_key["key"])
    assert refusal.reason == "over_upper_bound"


async def test_the_checks_of_a_call_stand_in_the_contracts_order(world: World) -> None:
    """§5.3."""
    reading = await keyed(world, key_type="read_only")
    poor = await keyed(world, max_budget=0, models=["mock-fast", "unpriced"])
    blocked = world.bad["blocked"]
    await _expect(world, blocked, b"{", "key_blocked")
    await _expect(world, world.bad["expired"], b"{", "key_expired")
    await _expect(world, reading, b"{", "key_type_not_allowed")
    await _expect(world, world.dora.session, b"{", "role_not_allowed")
    await _expect(world, poor, b'{"model": "nothing"}', "field_missing")
    for body, reason in (
        ({**CHAT, "model": "nothing", "service_tier": "priority"}, "model_not_allowed"),
        ({**CHAT, "model": "unpriced", "service_tier": "priority"}, "price_unknown"),
        ({**CHAT, "service_tier": "priority"}, "parameter_unpriced"),
        (CHAT, "budget_exceeded"),
    ):
        assert (await world.refused("POST", CALL, body, key=poor)).reason == reason


async def _expect(world: World, key: str, raw: bytes, reason: str) -> None:
    assert (await refused_raw(world.it, CALL, raw, key=key)).reason == reason


# Shapes and headers.


async def test_own_routes_answer_with_problems(world: World) -> None:
    """RFC 9457, for every status; `read_refusal` looks at the rest."""
    resend = f"/keystead/v1/invitations/{world.links['used ref']}/resend"
    for request, reason in (
        (("GET", "/keystead/v1/me?x=1", MASTER_KEY), "field_unknown"),
        (("GET", "/keystead/v1/me", None), "credentials_missing"),
        (("GET", "/keystead/v1/me", world.bad["blocked"]), "key_blocked"),
        (("GET", "/keystead/v1/me", world.bad["expired"]), "key_expired"),
        (("GET", "/keystead/v1/invitations", world.ada.session), "role_not_allowed"),
        (("GET", "/keystead/v1/budgets/proxy", world.ada.session), "not_yours"),
        (("GET", "/keystead/v1/budgets/key:x", MASTER_KEY), "not_found"),
        (("GET", "/keystead/v1/nothing", MASTER_KEY), "route_unknown"),
        (("DELETE", "/keystead/v1/me", MASTER_KEY), "method_not_allowed"),
        (("POST", resend, MASTER_KEY), "invitation_not_resendable"),
    ):
        method, path, key = request
        assert (await world.refused(method, path, key=key)).reason == reason, request
    assert (await refused_raw(world.it, resend, b"{")).reason == "json_malformed"
    assert (await refused_raw(world.it, resend, b"{}", headers={"Content-Type": "text/plain"})).reason == "media_type"


async def test_unknown_routes_and_wrong_methods_are_told_apart_with_and_without_a_credential(world: World) -> None:
    for key in (None, MASTER_KEY, world.bad["unknown"]):
        for path in ("/team/new", "/nothing", "/user", "/user/new/", "//user/new", "/keystead/v1/teams"):
            assert (await world.refused("POST", path, {}, key=key)).reason == "route_unknown", path
        for method, path, allowed in (
            ("GET", "/key/generate", {"POST"}),
            ("DELETE", "/logout", {"GET", "POST"}),
            ("PUT", "/v1/models", {"GET"}),
            ("PATCH", "/keystead/v1/budgets/proxy", {"GET"}),
        ):
            status, answer, headers = await world.it.request(method, path, key=key)
            assert read_refusal(path, status, answer, headers).reason == "method_not_allowed"
            assert {name.strip() for name in headers["Allow"].split(",")} >= allowed


async def test_a_request_id_is_the_clients_if_it_is_safe(world: World) -> None:
    for path in ("/v1/models", "/nothing", "/keystead/v1/nothing"):
        for given, kept in (("a-1.b:c/d", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False)):
            _, _, headers = await world.it.request("GET", path, headers={"x-request-id": given})
            assert (headers["x-request-id"] == given) == kept, given


async def test_a_call_id_is_never_the_clients(world: World) -> None:
    given = str(uuid.uuid4())
    for method, path, body in (("GET", "/user/list", None), ("POST", CALL, CHAT)):
        headers = {"x-litellm-call-id": given}
        _, _, answered = await world.it.request(method, path, body, key=world.adas_key["key"], headers=headers)
        assert answered["x-litellm-call-id"] != given


async def test_what_another_service_must_say_is_unavailable_while_it_is_away() -> None:
    """503 with `Retry-After`, and for money its own reason."""
    async with installation() as it:
        key = (await it.ok("POST", "/key/generate", {}))["key"]
        await it.ok("POST", CALL, CHAT, key=key)
        brokers = [it.running(name).wire.broker for name in ("keys", "budgets")]
        for broker in brokers:
            await broker.stop()
        user, call = await asyncio.gather(refused(it, "GET", "/user/info"), refused(it, "POST", CALL, CHAT, key=key))
        assert (user.status, user.reason) == (503, "unavailable")
        assert (call.status, call.reason) == (503, "budgets_unavailable")
        status, answer = await it.call("GET", "/health/readiness", key=None)
        assert (status, answer["status"]) == (503, "unhealthy")
        assert answer["services"]["keys"] == "unhealthy" and answer["services"]["identity"] == "healthy"
        assert await it.ok("GET", "/livez", key=None) == "I'm alive!"
        for broker in brokers:
            await broker.start()
