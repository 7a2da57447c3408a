"""Who asks for what in the walk through the permission table: people of each role, their credentials, their objects."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg

from tests.support.installation import MASTER_KEY, PASSWORD, Installation, Person, claims_of, installation

ROLES = ("proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer")
KEY_TYPES = ("default", "llm_api", "management", "read_only")


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


@asynccontextmanager
async def permission_world() -> AsyncIterator[World]:
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
    """A key's hash in the path, in the query of a GET, or in the body."""

    async def make(world: World, who: Caller) -> Request:
        own = world.owned_by(who)
        keys = {"own": own.generated if generated and own.generated else own.key, "another's": world.carol.key}
        token = keys[relation]["token"] if relation in keys else "0" * 64
        if "{}" in path:
            return Request(path.replace("{}", token), more)
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
    if who.role != "proxy_admin":
        return Request("/user/delete", {"user_ids": [world.owned_by(who).user_id]})
    if who.credential == "session":
        person = await world.it.invite(user_role=who.role)
        return Request("/user/delete", {"user_ids": [person.user_id]}, person.session)
    user_id = await world.new_user(user_role=who.role)
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
        return Request(path, None, await _started_by(world, person.email, PASSWORD))

    return make


def about_session(relation: str) -> Make:
    """A session made for it. The master key's user starts one by name, everybody else by their address."""

    async def make(world: World, who: Caller) -> Request:
        owner = world.owned_by(who) if relation == "own" else world.carol
        name = (owner.person.email, PASSWORD) if owner.person else ("admin", MASTER_KEY)
        session = await _started_by(world, *name)
        if relation == "unknown":
            return Request("/keystead/v1/sessions/nothing")
        me = await world.it.ok("GET", "/keystead/v1/me", key=session)
        return Request(f"/keystead/v1/sessions/{me['credential']['session_id']}")

    return make


def about_sessions(relation: str) -> Make:
    """All of a user's. Where that is the caller's own, the caller is asked for by a session that can be spared."""

    async def make(world: World, who: Caller) -> Request:
        if relation != "own" or not who.role:
            user_id = {"own": "default_user_id", "another's": await world.new_user(), "unknown": "nobody"}[relation]
            return Request(f"/keystead/v1/sessions?user_id={user_id}")
        person = await world.it.invite(user_role=who.role)
        credential = person.session
        if who.credential != "session":
            body = {"user_id": person.user_id, "key_type": who.credential}
            credential = (await world.it.ok("POST", "/key/generate", body))["key"]
        return Request(f"/keystead/v1/sessions?user_id={person.user_id}", credential=credential)

    return make


async def _started_by(world: World, name: str, password: str) -> str:
    answer = await world.it.ok("POST", "/v2/login", {"username": name, "password": password}, key=None)
    session: str = claims_of(answer["token"])["key"]
    return session


def about_invitation(path: str, relation: str, more: Mapping[str, Any]) -> Make:
    async def make(world: World, _: Caller) -> Request:
        ref = (await world.new_invitation())["ref"] if relation != "unknown" else str(uuid.uuid4())
        if "{}" in path:
            return Request(path.replace("{}", ref))
        return Request(path + ref) if path.endswith("=") else Request(path, {"invitation_id": ref, **more})

    return make


def about_mail(relation: str) -> Make:
    """To somebody else: one that waits in the outbox, with what it says."""

    async def make(world: World, _: Caller) -> Request:
        mail = str(uuid.uuid4())
        if relation != "unknown":
            user_id = world.carol.user_id
            await world.it.ok("POST", "/invitation/new", {"user_id": user_id, "send_email": True})
            page = await world.it.ok("GET", f"/keystead/v1/notifications?user_id={user_id}&limit=1")
            mail = page["data"][0]["id"]
        return Request(f"/keystead/v1/notifications/{mail}/content")

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
