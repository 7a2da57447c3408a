"""The permission table (contract §2.2), walked cell by cell over HTTP.

The table is written out here from the contract, for the routes that there are: a cell of the code that differs fails.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg
import pytest
import pytest_asyncio

from shared.permissions import PERMISSIONS
from shared.principal import operation_of
from tests.support.flow import CHAT
from tests.support.installation import MASTER_KEY, PASSWORD, Installation, Person, claims_of, installation
from tests.support.refusals import read_refusal
from tests.support.routes import routes_of

# Columns: proxy_admin and the master key, proxy_admin_viewer, internal_user, internal_user_viewer.
TABLE_2_2 = """
POST /user/new                            any  -    -    -
GET  /user/info                           any  any  own  own
GET  /user/list                           any  any  -    -
GET  /user/available_roles                any  any  any  any
POST /user/update                         any  -    own  -
POST /user/delete                         any  -    -    -
POST /v2/login                            open
GET  /logout                              open
POST /logout                              open
POST /session/logout                      own  own  own  own
POST /invitation/new                      any  -    -    -
GET  /invitation/info                     any  -    -    -
POST /invitation/update                   any  -    -    -
POST /invitation/delete                   any  -    -    -
GET  /onboarding/get_token                open
POST /onboarding/claim_token              open
POST /key/generate                        any  -    own  -
GET  /key/info                            any  any  own  own
GET  /key/list                            any  any  own  own
POST /key/update                          any  -    own  -
POST /key/delete                          any  -    own  -
POST /key/block                           any  -    -    -
POST /key/unblock                         any  -    -    -
GET  /spend/logs                          any  any  own  own
GET  /v1/models                           any  any  own  own
GET  /models                              any  any  own  own
GET  /v1/models/{}                        any  any  own  own
GET  /model/info                          any  any  own  own
GET  /v1/model/info                       any  any  own  own
POST /v1/chat/completions                 key  key  key  key
POST /chat/completions                    key  key  key  key
POST /v1/completions                      key  key  key  key
POST /completions                         key  key  key  key
POST /v1/embeddings                       key  key  key  key
POST /embeddings                          key  key  key  key
GET  /health                              any  any  -    -
GET  /metrics                             any  any  -    -
GET  /health/liveliness                   open
GET  /health/liveness                     open
GET  /livez                               open
GET  /health/readiness                    open
GET  /readyz                              open
GET  /openapi.json                        open
GET  /.well-known/jwks.json               open
GET  /keystead/v1/me                      own  own  own  own
GET  /keystead/v1/invitations             any  any  -    -
POST /keystead/v1/invitations/{}/resend   any  -    -    -
GET  /keystead/v1/budgets/{}              any  any  own  own
"""
ROLES = ("proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer")
KEY_TYPES = ("default", "llm_api", "management", "read_only")
OPEN = ("open",)
TABLE: Mapping[str, tuple[str, ...]] = {
    " ".join(words[:2]): tuple(words[2:]) for words in (line.split() for line in TABLE_2_2.strip().splitlines())
}

# "llm_api = model routes and reading itself; management = all but model calls; read_only = rows that only read, no
# model calls; default = all."
MODEL_CALLS = frozenset(route for route, cells in TABLE.items() if "key" in cells)
MODEL_ROUTES = MODEL_CALLS | {route for route in TABLE if route.startswith("GET") and "/model" in route}


@dataclass(frozen=True)
class Caller:
    """Who asks, and with what: ``session``, a key's type, ``master key``, or ``nothing``."""

    role: str
    credential: str

    def __str__(self) -> str:
        return f"{self.role} with {self.credential}" if self.role else self.credential


MASTER, STRANGER = Caller("", "the master key"), Caller("", "no credential")
CALLERS = (MASTER, STRANGER, *(Caller(role, kind) for role in ROLES for kind in ("session", *KEY_TYPES)))


class Request(NamedTuple):
    """What a cell asks for. ``credential`` where it is not the caller's own."""

    path: str
    body: Any = None
    credential: str | None = None


@dataclass
class Own:
    """What belongs to a role's user, or to the master key's."""

    user_id: str
    key: dict[str, Any]
    generated: dict[str, Any] | None
    person: Person | None


@dataclass
class World:
    """An installation with a person of each role, somebody else, and a credential of each kind for every role."""

    it: Installation
    log: "asyncpg.Connection[asyncpg.Record]"
    own: dict[str, Own]
    carol: Own
    credentials: dict[Caller, str | None]
    callers_key: dict[Caller, dict[str, Any]] = field(default_factory=dict)

    def owned_by(self, who: Caller) -> Own:
        return self.own[who.role]

    async def new_key(self, user_id: str, key: str = MASTER_KEY) -> dict[str, Any]:
        made: dict[str, Any] = await self.it.ok("POST", "/key/generate", {"user_id": user_id}, key=key)
        return made

    async def new_user(self, **more: Any) -> str:
        body = {"user_email": f"{uuid.uuid4().hex}@example.test", "auto_create_key": False, **more}
        user_id: str = (await self.it.ok("POST", "/user/new", body))["user_id"]
        return user_id

    async def new_invitation(self) -> dict[str, Any]:
        made: dict[str, Any] = await self.it.ok("POST", "/invitation/new", {"user_id": self.carol.user_id})
        return made

    async def positions(self) -> list[int]:
        """Where the logs of what people change end."""
        row = await self.log.fetchrow(
            "select (select max(position) from identity.events), (select max(position) from keys.events),"
            " (select max(position) from invitations.events)"
        )
        return list(row or ())


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with installation() as it:
        log = await asyncpg.connect(it.owner_url)
        try:
            yield await _inhabited(it, log)
        finally:
            await log.close()


async def _inhabited(it: Installation, log: "asyncpg.Connection[asyncpg.Record]") -> World:
    world = World(it, log, {}, await _owner(it, await it.invite()), {MASTER: MASTER_KEY, STRANGER: None})
    world.own[""] = Own("default_user_id", await world.new_key("default_user_id"), None, None)
    for role in ROLES:
        person = await it.invite(user_role=role)
        world.own[role] = await _owner(it, person)
        if role == "internal_user":
            world.own[role].generated = await world.new_key(person.user_id, person.session)
        world.credentials[Caller(role, "session")] = person.session
        for key_type in KEY_TYPES:
            who = Caller(role, key_type)
            key = await it.ok("POST", "/key/generate", {"user_id": person.user_id, "key_type": key_type})
            world.credentials[who], world.callers_key[who] = key["key"], key
    return world


async def _owner(it: Installation, person: Person) -> Own:
    key = await it.ok("POST", "/key/generate", {"user_id": person.user_id})
    return Own(person.user_id, key, None, person)


Make = Callable[[World, Caller], Awaitable[Request]]
NOTHING_MORE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Ask:
    """A way to use a route. ``relation`` is the object's to the caller: ``own``, ``another's``, ``unknown`` or none.

    ``own_refused`` is the reason for those whose cell is ``own``, where a note of the table takes something from them;
    ``elsewise`` is the outcome for everyone, where it is no question of roles.
    """

    route: str
    relation: str
    make: Make
    note: str = ""
    own_refused: str = ""
    elsewise: Callable[[Caller], str | None] = lambda _: None

    def __str__(self) -> str:
        return f"{self.route} {self.note or self.relation}".rstrip()


def expected(ask: Ask, who: Caller) -> frozenset[str]:
    """``ok``, or the reasons of refusal that the contract allows for this cell."""
    cells = TABLE[ask.route]
    if (other := ask.elsewise(who)) is not None:
        return frozenset({other})
    if cells == OPEN:
        return frozenset({"ok"})
    if who is STRANGER:
        return frozenset({"credentials_missing"})
    cell = cells[ROLES.index(who.role)] if who.role else cells[0]
    refusals = {"key_type_not_allowed"} if not _type_allows(ask, who) else set()
    if cell == "-" or (cell == "key" and who.credential == "session"):
        refusals.add("role_not_allowed")
    if refusals:
        return frozenset(refusals)
    return frozenset({_by_relation(cell, ask)})


def _by_relation(cell: str, ask: Ask) -> str:
    if cell == "own" and ask.own_refused:
        return ask.own_refused
    if cell == "own" and ask.relation in ("another's", "unknown"):
        return "not_yours"
    return "not_found" if ask.relation == "unknown" else "ok"


def _type_allows(ask: Ask, who: Caller) -> bool:
    match who.credential:
        case "llm_api":
            return ask.route in MODEL_ROUTES or (ask.route == "GET /key/info" and ask.note.startswith("itself"))
        case "management":
            return ask.route not in MODEL_CALLS
        case "read_only":
            return ask.route.startswith("GET ")
        case _:
            return True


def only_sessions(who: Caller) -> str | None:
    """§3.3: "a session; any other credential 403"."""
    if who in (MASTER, STRANGER):
        return "role_not_allowed" if who is MASTER else None
    return None if who.credential == "session" else "403"


def needs_the_links_credential(who: Caller) -> str | None:
    return "credentials_missing" if who is STRANGER else "invitation_unknown"


def no_key_to_read(who: Caller) -> str | None:
    """The calling key, where the credential is none."""
    return "field_missing" if who is MASTER or who.credential == "session" else None


def never_the_last_way_in(who: Caller) -> str | None:
    """§3.2: `default_user_id` can't be deleted."""
    return "400" if who is MASTER else None


def fixed(path: str, body: Any = None) -> Make:
    async def make(_: World, __: Caller) -> Request:
        return Request(path, body)

    return make


def about_user(path: str, relation: str, more: Mapping[str, Any] = NOTHING_MORE) -> Make:
    """A user's id in the query of a GET, or in the body."""

    async def make(world: World, who: Caller) -> Request:
        ids = {"own": world.owned_by(who).user_id, "another's": world.carol.user_id, "unknown": "nobody"}
        if path.endswith("="):
            return Request(path + ids[relation])
        return Request(path, {"user_id": ids[relation], **more})

    return make


def about_key(
    path: str,
    relation: str,
    more: Mapping[str, Any] = NOTHING_MORE,
    *,
    generated: bool = False,
    as_list: bool = False,
) -> Make:
    """A key's hash in the query of a GET, or in the body."""

    async def make(world: World, who: Caller) -> Request:
        own = world.owned_by(who)
        keys = {"own": own.generated if generated and own.generated else own.key, "another's": world.carol.key}
        token = keys[relation]["token"] if relation in keys else "0" * 64
        if path.endswith("="):
            return Request(path + token)
        return Request(path, {"keys": [token]} if as_list else {"key": token, **more})

    return make


def delete_key(relation: str, *, by_self: bool = False) -> Make:
    """A key that was made to be deleted; ``by_self`` by the caller's user, as far as their role makes keys."""

    async def make(world: World, who: Caller) -> Request:
        owner = world.owned_by(who) if relation == "own" else world.carol
        maker = owner.person.session if by_self and owner.person and who.role == "internal_user" else MASTER_KEY
        made = await world.new_key(owner.user_id, maker)
        return Request("/key/delete", {"keys": [made["key_id"]]})

    return make


async def delete_another(world: World, _: Caller) -> Request:
    return Request("/user/delete", {"user_ids": [await world.new_user()]})


async def delete_oneself(world: World, who: Caller) -> Request:
    """By a credential of the same kind, but of a person who can be spared."""
    if who in (MASTER, STRANGER):
        return Request("/user/delete", {"user_ids": ["default_user_id"]})
    user_id = await world.new_user(user_role=who.role)
    if who.credential == "session":
        if "ok" not in expected(DELETE_ONESELF, who):
            return Request("/user/delete", {"user_ids": [world.owned_by(who).user_id]})
        person = await world.it.invite(user_role=who.role)
        return Request("/user/delete", {"user_ids": [person.user_id]}, person.session)
    key = await world.it.ok("POST", "/key/generate", {"user_id": user_id, "key_type": who.credential})
    return Request("/user/delete", {"user_ids": [user_id]}, key["key"])


async def log_in(world: World, _: Caller) -> Request:
    assert world.carol.person is not None
    return Request("/v2/login", {"username": world.carol.person.email, "password": PASSWORD})


def log_out(path: str) -> Make:
    """Of a session made for it."""

    async def make(world: World, who: Caller) -> Request:
        if who.credential != "session":
            return Request(path)
        person = world.owned_by(who).person
        assert person is not None
        answer = await world.it.ok("POST", "/v2/login", {"username": person.email, "password": PASSWORD}, key=None)
        return Request(path, None, claims_of(answer["token"])["key"])

    return make


def about_invitation(path: str, relation: str, more: Mapping[str, Any]) -> Make:
    async def make(world: World, _: Caller) -> Request:
        ref = (await world.new_invitation())["ref"] if relation != "unknown" else str(uuid.uuid4())
        if "{}" in path:
            return Request(path.replace("{}", ref))
        return Request(path + ref) if path.endswith("=") else Request(path, {"invitation_id": ref, **more})

    return make


async def invite_oneself(world: World, who: Caller) -> Request:
    """The master key's user has no e-mail address, and so is nobody to invite: asked for somebody else."""
    user_id = world.owned_by(who).user_id if who.role else world.carol.user_id
    return Request("/invitation/new", {"user_id": user_id})


async def open_link(world: World, _: Caller) -> Request:
    return Request(f"/onboarding/get_token?invite_link={(await world.new_invitation())['id']}")


async def claim_with_ones_own(world: World, _: Caller) -> Request:
    """Not with the credential that the link gives."""
    link = (await world.new_invitation())["id"]
    body = {"invitation_link": link, "user_id": world.carol.user_id, "password": PASSWORD}
    return Request("/onboarding/claim_token", body)


async def choose_key(_: World, __: Caller) -> Request:
    return Request("/key/generate", {"key": f"sk-chosen-{uuid.uuid4().hex}"})


async def give_key_away(world: World, who: Caller) -> Request:
    """To oneself; who gives is no question of who gets."""
    own = world.owned_by(who)
    return Request("/key/update", {"key": (own.generated or own.key)["token"], "user_id": own.user_id})


async def read_itself(world: World, who: Caller) -> Request:
    key = world.callers_key.get(who) or world.owned_by(who).key
    return Request(f"/key/info?key={key['token']}")


def budget_of(kind: str, relation: str) -> Make:
    async def make(world: World, who: Caller) -> Request:
        owner = world.owned_by(who) if relation == "own" else world.carol
        name = {"user": owner.user_id, "key": owner.key["key_id"]}[kind] if relation != "unknown" else "nobody"
        return Request(f"/keystead/v1/budgets/{kind}:{name}")

    return make


ONE_MODEL = {"model": "mock-fast", "max_tokens": 1}
DELETE_ONESELF = Ask("POST /user/delete", "own", delete_oneself, elsewise=never_the_last_way_in)
RELATIONS = ("own", "another's", "unknown")

ASKS: tuple[Ask, ...] = (
    Ask("POST /user/new", "", fixed("/user/new", {"auto_create_key": False})),
    Ask("GET /user/info", "", fixed("/user/info"), "of oneself, unnamed"),
    *(Ask("GET /user/info", relation, about_user("/user/info?user_id=", relation)) for relation in RELATIONS),
    Ask("GET /user/list", "", fixed("/user/list")),
    Ask("GET /user/available_roles", "", fixed("/user/available_roles")),
    *(
        Ask("POST /user/update", relation, about_user("/user/update", relation, {"user_alias": "An alias"}))
        for relation in RELATIONS
    ),
    # *1 user_alias only.
    *(
        Ask(
            "POST /user/update",
            "own",
            about_user("/user/update", "own", {name: value}),
            f"own {name}",
            own_refused="role_not_allowed",
        )
        for name, value in (
            ("user_role", None),
            ("max_budget", 5),
            ("budget_duration", "1d"),
            ("models", []),
            ("metadata", {}),
            ("budget_enforcement", "strict"),
        )
    ),
    DELETE_ONESELF,
    Ask("POST /user/delete", "another's", delete_another),
    Ask("POST /user/delete", "unknown", fixed("/user/delete", {"user_ids": ["nobody"]})),
    Ask("POST /v2/login", "", log_in),
    Ask("GET /logout", "", log_out("/logout")),
    Ask("POST /logout", "", log_out("/logout")),
    Ask("POST /session/logout", "own", log_out("/session/logout"), elsewise=only_sessions),
    Ask("POST /invitation/new", "own", invite_oneself),
    Ask("POST /invitation/new", "another's", about_user("/invitation/new", "another's")),
    Ask("POST /invitation/new", "unknown", about_user("/invitation/new", "unknown")),
    *(
        Ask(route, relation, about_invitation(path, relation, more))
        for route, path, more in (
            ("GET /invitation/info", "/invitation/info?invitation_id=", {}),
            ("POST /invitation/update", "/invitation/update", {"is_accepted": False}),
            ("POST /invitation/delete", "/invitation/delete", {}),
            ("POST /keystead/v1/invitations/{}/resend", "/keystead/v1/invitations/{}/resend", {}),
        )
        for relation in ("another's", "unknown")
    ),
    Ask("GET /keystead/v1/invitations", "", fixed("/keystead/v1/invitations")),
    Ask("GET /onboarding/get_token", "another's", open_link),
    Ask("POST /onboarding/claim_token", "another's", claim_with_ones_own, elsewise=needs_the_links_credential),
    Ask("POST /key/generate", "own", fixed("/key/generate", {}), "own, unnamed"),
    *(Ask("POST /key/generate", relation, about_user("/key/generate", relation)) for relation in RELATIONS),
    # *6 ... not `key`, `blocked`, `budget_enforcement`.
    *(
        Ask(
            "POST /key/generate",
            "own",
            about_user("/key/generate", "own", {name: value}),
            f"own {name}",
            own_refused="role_not_allowed",
        )
        for name, value in (("blocked", True), ("budget_enforcement", "strict"))
    ),
    Ask("POST /key/generate", "own", choose_key, "own, itself chosen", own_refused="role_not_allowed"),
    Ask("GET /key/info", "own", fixed("/key/info"), "itself, unnamed", elsewise=no_key_to_read),
    Ask("GET /key/info", "own", read_itself, "itself"),
    *(Ask("GET /key/info", relation, about_key("/key/info?key=", relation)) for relation in RELATIONS),
    Ask("GET /key/list", "", fixed("/key/list")),
    *(Ask("GET /key/list", relation, about_user("/key/list?user_id=", relation)) for relation in RELATIONS),
    *(
        Ask("GET /key/list", relation, about_key("/key/list?key_hash=", relation), f"{relation} hash")
        for relation in RELATIONS
    ),
    # *7 only a key the caller generated ...
    Ask("POST /key/update", "own", about_key("/key/update", "own", {"metadata": {}}, generated=True), "own, generated"),
    Ask(
        "POST /key/update",
        "own",
        about_key("/key/update", "own", {"metadata": {}}),
        "own, generated by an admin",
        own_refused="not_yours",
    ),
    Ask("POST /key/update", "another's", about_key("/key/update", "another's", {"metadata": {}})),
    Ask("POST /key/update", "unknown", about_key("/key/update", "unknown", {"metadata": {}})),
    # ... and not its max_budget, budget_duration, user_id, blocked, budget_enforcement.
    *(
        Ask(
            "POST /key/update",
            "own",
            about_key("/key/update", "own", {name: value}, generated=True),
            f"own {name}",
            own_refused="role_not_allowed",
        )
        for name, value in (
            ("max_budget", 0.5),
            ("budget_duration", "1d"),
            ("blocked", False),
            ("budget_enforcement", "strict"),
        )
    ),
    Ask("POST /key/update", "own", give_key_away, "own user_id", own_refused="role_not_allowed"),
    Ask("POST /key/delete", "own", delete_key("own", by_self=True), "own, generated"),
    Ask("POST /key/delete", "own", delete_key("own"), "own, generated by an admin"),
    Ask("POST /key/delete", "another's", delete_key("another's")),
    Ask("POST /key/delete", "unknown", about_key("/key/delete", "unknown", as_list=True)),
    *(
        Ask(f"POST {path}", relation, about_key(path, relation))
        for path in ("/key/block", "/key/unblock")
        for relation in RELATIONS
    ),
    Ask("GET /spend/logs", "", fixed("/spend/logs")),
    *(Ask("GET /spend/logs", relation, about_user("/spend/logs?user_id=", relation)) for relation in RELATIONS),
    *(
        Ask("GET /spend/logs", relation, about_key("/spend/logs?api_key=", relation), f"{relation} key")
        for relation in RELATIONS
    ),
    *(
        Ask(f"GET {route}", "", fixed(route.replace("{}", "mock-fast")))
        for route in ("/v1/models", "/models", "/v1/models/{}", "/model/info", "/v1/model/info")
    ),
    *(Ask(f"POST {prefix}/chat/completions", "", fixed(f"{prefix}/chat/completions", CHAT)) for prefix in ("", "/v1")),
    *(
        Ask(f"POST {prefix}/completions", "", fixed(f"{prefix}/completions", {**ONE_MODEL, "prompt": "Hello"}))
        for prefix in ("", "/v1")
    ),
    *(
        Ask(f"POST {prefix}/embeddings", "", fixed(f"{prefix}/embeddings", {"model": "mock-fast", "input": "Hello"}))
        for prefix in ("", "/v1")
    ),
    *(
        Ask(f"GET {path}", "", fixed(path))
        for path in (
            "/health",
            "/metrics",
            "/health/liveliness",
            "/health/liveness",
            "/livez",
            "/health/readiness",
            "/readyz",
            "/openapi.json",
            "/.well-known/jwks.json",
            "/keystead/v1/me",
        )
    ),
    *(
        Ask("GET /keystead/v1/budgets/{}", relation, budget_of(kind, relation), f"{relation} {kind}")
        for kind in ("user", "key")
        for relation in RELATIONS
    ),
    Ask("GET /keystead/v1/budgets/{}", "another's", fixed("/keystead/v1/budgets/proxy"), "the whole proxy's"),
)
CELLS = [pytest.param(ask, who, id=f"{ask} - {who}") for ask in ASKS for who in CALLERS]


@pytest.mark.parametrize(("ask", "who"), CELLS)
async def test_a_cell_of_the_permission_table(world: World, ask: Ask, who: Caller) -> None:
    request = await ask.make(world, who)
    before = await world.positions()
    method, _, _ = ask.route.partition(" ")
    credential = request.credential or world.credentials[who]
    status, answer, headers = await world.it.request(method, request.path, request.body, key=credential)
    wanted = expected(ask, who)
    if wanted == {"ok"}:
        assert status in (200, 303), answer
        return
    refusal = read_refusal(request.path, status, answer, headers)
    assert refusal.reason in wanted or str(refusal.status) in wanted, answer
    assert await world.positions() == before, "refused, and yet something was changed"


async def test_every_route_is_walked(world: World) -> None:
    walked = {ask.route for ask in ASKS}
    assert walked == TABLE.keys()
    assert walked == {served.name for served in routes_of(world.it)}


async def test_every_operation_of_the_code_is_walked(world: World) -> None:
    assert {operation_of(served.route.dependant.dependencies) for served in routes_of(world.it)} == set(PERMISSIONS)


async def test_a_route_in_no_row_does_not_exist(world: World) -> None:
    """LiteLLM's routes that are not listed are unknown (D38), with and without a credential."""
    for path in ("/customer/new", "/organization/new", "/team/new", "/user/new/", "/key", "/v1", "/docs", "/key/{key}"):
        for key in (MASTER_KEY, None):
            status, answer, headers = await world.it.request("POST", path, {}, key=key)
            assert read_refusal(path, status, answer, headers).reason == "route_unknown"


async def test_the_link_opens_for_who_has_its_credential(world: World) -> None:
    """The cell "the link's secret": nothing else is asked for."""
    person = await world.it.invite()
    assert (await world.it.ok("GET", "/keystead/v1/me", key=person.session))["user_id"] == person.user_id


async def test_a_role_bites_at_once_on_running_sessions_and_keys(world: World) -> None:
    person = await world.it.invite()
    key = await world.new_key(person.user_id)
    for role, may_generate in (("internal_user_viewer", False), ("internal_user", True), ("proxy_admin", True)):
        await world.it.ok("POST", "/user/update", {"user_id": person.user_id, "user_role": role})
        for credential in (person.session, key["key"]):
            status, answer = await world.it.call("POST", "/key/generate", {}, key=credential)
            assert (status == 200) == may_generate, (role, answer)
