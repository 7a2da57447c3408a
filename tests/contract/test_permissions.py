"""The permission table (contract §2.2), walked cell by cell over HTTP.

The table is written out here from the contract, for the routes that there are: a cell of the code that differs fails.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import pytest
import pytest_asyncio

from shared.permissions import PERMISSIONS, Kind
from shared.principal import operation_of
from tests.support.flow import CHAT
from tests.support.installation import MASTER_KEY
from tests.support.permission_world import (
    CALLERS,
    MASTER,
    ROLES,
    STRANGER,
    Caller,
    Make,
    World,
    about_invitation,
    about_key,
    about_mail,
    about_session,
    about_sessions,
    about_user,
    budget_of,
    choose_key,
    claim_with_ones_own,
    delete_another,
    delete_key,
    delete_oneself,
    fixed,
    give_key_away,
    invite_oneself,
    log_in,
    log_out,
    open_link,
    permission_world,
    read_itself,
)
from tests.support.refusals import read_refusal
from tests.support.routes import pages_of, routes_of

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
GET  /keystead/v1/sessions                any  any  own  own
DELETE /keystead/v1/sessions              any  own  own  own
DELETE /keystead/v1/sessions/{}           any  own  own  own
GET  /keystead/v1/invitations             any  any  -    -
POST /keystead/v1/invitations/{}/resend   any  -    -    -
GET  /keystead/v1/notifications           any  any  -    -
GET  /keystead/v1/notifications/{}/content any  -    -    -
GET  /keystead/v1/budgets/{}              any  any  own  own
GET  /keystead/v1/verify                  open
"""
OPEN = ("open",)
TABLE: Mapping[str, tuple[str, ...]] = {
    " ".join(words[:2]): tuple(words[2:]) for words in (line.split() for line in TABLE_2_2.strip().splitlines())
}

# "llm_api = model routes and reading itself; management = all but model calls; read_only = rows that only read, no
# model calls; default = all."
MODEL_CALLS = frozenset(route for route, cells in TABLE.items() if "key" in cells)
MODEL_ROUTES = MODEL_CALLS | {route for route in TABLE if route.startswith("GET") and "/model" in route}


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with permission_world() as made:
        yield made


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
            # A mail shows an open invitation's link, and so is more than reading.
            return ask.route.startswith("GET ") and not ask.route.endswith("/content")
        case _:
            return True


def only_sessions(who: Caller) -> str | None:
    """§3.3: "a session; any other credential 403"."""
    if who in (MASTER, STRANGER):
        return "role_not_allowed" if who is MASTER else None
    return None if who.credential == "session" else "403"


def needs_the_links_credential(who: Caller) -> str | None:
    return "credentials_missing" if who is STRANGER else "invitation_unknown"


def needs_any_credential(who: Caller) -> str | None:
    """The one that is asked about."""
    return "credentials_missing" if who is STRANGER else None


def no_key_to_read(who: Caller) -> str | None:
    """The calling key, where the credential is none."""
    return "field_missing" if who is MASTER or who.credential == "session" else None


def never_the_last_way_in(who: Caller) -> str | None:
    """§3.2: `default_user_id` can't be deleted."""
    return "400" if who is MASTER else None


ONE_MODEL = {"model": "mock-fast", "max_tokens": 1}
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
    Ask("POST /user/delete", "own", delete_oneself, elsewise=never_the_last_way_in),
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
    Ask("GET /keystead/v1/sessions", "", fixed("/keystead/v1/sessions")),
    *(
        Ask("GET /keystead/v1/sessions", relation, about_user("/keystead/v1/sessions?user_id=", relation))
        for relation in RELATIONS
    ),
    *(Ask("DELETE /keystead/v1/sessions", relation, about_sessions(relation)) for relation in RELATIONS),
    *(Ask("DELETE /keystead/v1/sessions/{}", relation, about_session(relation)) for relation in RELATIONS),
    Ask("GET /keystead/v1/invitations", "", fixed("/keystead/v1/invitations")),
    Ask("GET /keystead/v1/notifications", "", fixed("/keystead/v1/notifications")),
    Ask("GET /keystead/v1/notifications/{}/content", "another's", about_mail("another's")),
    Ask("GET /keystead/v1/notifications/{}/content", "unknown", about_mail("unknown")),
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
    Ask("GET /keystead/v1/verify", "own", fixed("/keystead/v1/verify"), elsewise=needs_any_credential),
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
        assert status in (200, 204, 303), answer
        return
    refusal = read_refusal(request.path, status, answer, headers)
    assert refusal.reason in wanted or str(refusal.status) in wanted, answer
    assert await world.positions() == before, "refused, and yet something was changed"


async def test_every_route_is_walked(world: World) -> None:
    walked = {ask.route for ask in ASKS}
    assert walked == TABLE.keys()
    assert walked == {served.name for served in routes_of(world.it)}


async def test_every_operation_of_the_code_is_walked(world: World) -> None:
    served = [*routes_of(world.it), *pages_of(world.it)]
    assert {operation_of(each.route.dependant.dependencies) for each in served} == set(PERMISSIONS)


async def test_a_page_is_open_and_its_data_comes_by_the_other_rows(world: World) -> None:
    """§2.2: `/`, `/ui…` and the form of a log-in; nothing else answers in HTML."""
    for served in pages_of(world.it):
        operation = operation_of(served.route.dependant.dependencies)
        assert operation and PERMISSIONS[operation].kind is Kind.OPEN, served.name
        path = served.route.path
        assert path in ("/", "/ui") or path.startswith("/ui/") or served.name == "POST /login", served.name


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
