"""``Idempotency-Key`` (contract §1.5): the same request again is answered as it was, and done once."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from keystead.app import SERVICES, compose
from services.gateway.service import SERVICE as GATEWAY
from services.keys.service import SERVICE as KEYS
from shared.idempotency import Idempotent
from shared.kept_answers import forget_answers
from tests.support.identity import PassingClock, an_email, log_of, new_user, refusal
from tests.support.installation import MASTER_KEY, Installation, connections_to, installation, keyring, serving
from tests.support.routes import routes_of

# Of those that §1.5 lists, the ones there are; and every own POST.
LISTED = {"POST /user/new", "POST /invitation/new", "POST /key/generate"}
ROUTES = {
    "/user/new": "identity",
    "/key/generate": "keys",
    "/invitation/new": "invitations",
    "/keystead/v1/invitations/{}/resend": "invitations",
}


@dataclass(frozen=True)
class Answered:
    """An answer as it came."""

    status: int
    body: bytes
    content_type: str
    replayed: str | None
    retry_after: str | None


@dataclass
class World:
    it: Installation
    clock: PassingClock

    async def post(
        self, path: str, body: Any, once: str | None, *, key: str = MASTER_KEY, url: str | None = None
    ) -> Answered:
        headers = {"Authorization": f"Bearer {key}"} | ({"Idempotency-Key": once} if once is not None else {})
        async with self.it.http.post((url or self.it.url) + path, json=body, headers=headers) as response:
            return Answered(
                response.status,
                await response.read(),
                response.headers["Content-Type"],
                response.headers.get("Idempotent-Replayed"),
                response.headers.get("Retry-After"),
            )

    async def refused(self, path: str, body: Any, once: str, **options: Any) -> tuple[int, str, str | None]:
        headers = {"Idempotency-Key": once}
        return refusal(await self.it.call("POST", path, body, headers=headers, **options))

    async def request(self, route: str) -> tuple[str, Any]:
        """A request that makes something new each time: its path and its body."""
        if route == "/user/new":
            return route, {"user_email": an_email()}
        if route == "/key/generate":
            return route, {"models": ["mock-fast"]}
        user = await new_user(self.it, user_email=an_email())
        if route == "/invitation/new":
            return route, {"user_id": user["user_id"]}
        invitation = await self.it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
        return route.replace("{}", invitation["ref"]), {}


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    clock = PassingClock()
    async with installation(clock=clock) as it:
        yield World(it, clock)


@asynccontextmanager
async def replica(world: World) -> AsyncIterator[str]:
    """Every service once more; its URL."""
    connections = connections_to(world.it.owner_url, world.it.namespace)
    composition = compose(SERVICES, world.it.settings, connections, keyring=keyring(), clock=world.clock)
    async with serving(composition.app) as url:
        yield url


def new_key() -> str:
    return f"test {uuid.uuid4()}"


async def test_every_route_that_should_take_it_does(world: World) -> None:
    served = routes_of(world.it)
    taking = {each.name for each in served if isinstance(each.route.openapi_extra, Idempotent)}
    own = {each.name for each in served if each.name.startswith("POST /keystead/v1/")}
    assert taking == LISTED | own == {f"POST {route}" for route in ROUTES}


async def test_it_is_described(world: World) -> None:
    document = await world.it.ok("GET", "/openapi.json", key=None)
    for route in ROUTES:
        operation = document["paths"][route.replace("{}", "{ref}")]["post"]
        [header] = [each for each in operation["parameters"] if each["in"] == "header"]
        assert (header["name"], header["required"]) == ("Idempotency-Key", False)
        assert header["description"]


@pytest.mark.parametrize("route", ROUTES)
async def test_the_same_request_again_gets_the_first_answer_and_does_nothing(world: World, route: str) -> None:
    path, body = await world.request(route)
    once = new_key()
    first = await world.post(path, body, once)
    before = await logs(world)
    again = [await world.post(path, body, once) for _ in range(3)]
    assert (first.status, first.replayed) == (200, None)
    assert [(each.status, each.body, each.content_type) for each in again] == [
        (200, first.body, first.content_type)
    ] * 3
    assert {each.replayed for each in again} == {"true"}
    assert await logs(world) == before


@pytest.mark.parametrize("route", ROUTES)
async def test_without_the_header_each_is_done(world: World, route: str) -> None:
    path, body = await world.request(route)
    first = await world.post(path, body, None)
    again = await world.post(path, {**body, "user_email": an_email()} if route == "/user/new" else body, None)
    assert (first.status, again.status, again.replayed) == (200, 200, None)
    assert again.body != first.body


@pytest.mark.parametrize("route", ROUTES)
async def test_twenty_at_once_on_two_replicas_make_one_thing(world: World, route: str) -> None:
    path, body = await world.request(route)
    once = new_key()
    before = len(await log_of(world.it, ROUTES[route]))
    async with replica(world) as second:
        urls = [world.it.url, second] * 10
        answers = await asyncio.gather(*(world.post(path, body, once, url=url) for url in urls))
        granted = [each for each in answers if each.status == 200]
        assert len({each.body for each in granted}) == 1
        assert [each.replayed for each in granted].count(None) == 1
        for each in answers:
            assert each.status == 200 or (each.status, each.retry_after) == (409, "1")
            assert each.status == 200 or b"idempotency_in_progress" in each.body
        later = [await world.post(path, body, once, url=url) for url in (world.it.url, second)]
    assert {(each.status, each.body, each.replayed) for each in later} == {(200, granted[0].body, "true")}
    assert len(await log_of(world.it, ROUTES[route])) == before + 1


async def test_fifty_different_ones_at_once_do_not_stand_in_each_others_way(world: World) -> None:
    """Ten connections serve them and ten more: nobody holds one while they wait for another."""
    answers = await asyncio.gather(*(world.post("/key/generate", {}, new_key()) for _ in range(50)))
    assert {each.status for each in answers} == {200}
    assert len({each.body for each in answers}) == 50


async def test_it_is_kept_where_the_gateway_passes_requests_on_to_another_process_too(world: World) -> None:
    it, once = world.it, new_key()
    connections = connections_to(it.owner_url, it.namespace)
    inner = compose([KEYS], it.settings, connections, keyring=keyring(), clock=world.clock)
    async with serving(inner.app) as elsewhere:
        composition = compose(
            [GATEWAY], it.settings, connections, keyring=keyring(), clock=world.clock, elsewhere={"keys": elsewhere}
        )
        async with serving(composition.app) as gateway:
            urls = [gateway, gateway, it.url]
            answers = [await world.post("/key/generate", {"tags": ["a"]}, once, url=url) for url in urls]
            refused = await world.refused("/key/generate", {}, once, url=gateway)
    assert [(each.status, each.replayed) for each in answers] == [(200, None), (200, "true"), (200, "true")]
    assert len({each.body for each in answers}) == 1
    assert refused == (422, "idempotency_mismatch", "Idempotency-Key")


async def test_another_body_is_refused(world: World) -> None:
    once = new_key()
    assert (await world.post("/key/generate", {"tags": ["a"]}, once)).status == 200
    refused = await world.refused("/key/generate", {"tags": ["b"]}, once)
    assert refused == (422, "idempotency_mismatch", "Idempotency-Key")
    assert (await world.post("/key/generate", {"tags": ["a"]}, once)).replayed == "true"


async def test_the_same_body_may_be_written_otherwise(world: World) -> None:
    once = new_key()
    headers = {"Authorization": f"Bearer {MASTER_KEY}", "Idempotency-Key": once, "Content-Type": "application/json"}
    bodies = [b'{"tags":["a"],"max_budget":1}', b'{ "max_budget": 1,\n "tags": ["a"] }']
    answers = []
    for body in bodies:
        async with world.it.http.post(f"{world.it.url}/key/generate", data=body, headers=headers) as response:
            answers.append((await response.read(), response.headers.get("Idempotent-Replayed")))
    assert answers[1] == (answers[0][0], "true")


async def test_another_caller_is_another_request(world: World) -> None:
    """Nobody is shown what another was answered, nor a user's key what their session was."""
    once = new_key()
    ada, grace = await world.it.invite(), await world.it.invite()
    adas = await world.it.ok("POST", "/key/generate", {}, key=ada.session)
    callers = [MASTER_KEY, ada.session, grace.session, adas["key"]]
    answers = [await world.post("/key/generate", {}, once, key=caller) for caller in callers]
    assert {(each.status, each.replayed) for each in answers} == {(200, None)}
    assert len({each.body for each in answers}) == 4
    again = [await world.post("/key/generate", {}, once, key=caller) for caller in callers]
    assert [each.body for each in again] == [each.body for each in answers]


async def test_another_route_is_another_request(world: World) -> None:
    once = new_key()
    [(first, _), (other, _)] = [await world.request("/keystead/v1/invitations/{}/resend") for _ in range(2)]
    answers = [await world.post(path, {}, once) for path in (first, other, "/key/generate")]
    assert {(each.status, each.replayed) for each in answers} == {(200, None)}


async def test_a_refusal_is_kept_too(world: World) -> None:
    once = new_key()
    body = {"user_id": f"u-{uuid.uuid4()}", "max_budget": -1}
    first = await world.post("/user/new", body, once)
    again = await world.post("/user/new", body, once)
    assert (first.status, first.replayed) == (400, None)
    assert again == Answered(400, first.body, first.content_type, "true", None)
    path = f"/keystead/v1/invitations/{uuid.uuid4()}/resend"
    first, again = [await world.post(path, {}, once) for _ in range(2)]
    assert (first.status, first.content_type) == (404, "application/problem+json")
    assert again == Answered(404, first.body, first.content_type, "true", None)


@pytest.mark.parametrize("once", ["", "a" * 256, "é", "a\tb"])
async def test_what_is_no_such_key_is_refused(world: World, once: str) -> None:
    if once.isascii():
        assert await world.refused("/key/generate", {}, once) == (400, "out_of_range", "Idempotency-Key")
        return
    async with world.it.http.post(
        f"{world.it.url}/key/generate",
        json={},
        headers={"Authorization": f"Bearer {MASTER_KEY}", "Idempotency-Key": once},
    ) as response:
        assert response.status == 400


async def test_other_routes_ignore_it(world: World) -> None:
    headers = {"Idempotency-Key": "x" * 300}
    assert await world.it.ok("GET", "/key/list", headers=headers)
    key = await world.it.ok("POST", "/key/generate", {})
    for _ in range(2):
        _, _, answered = await world.it.request("POST", "/key/block", {"key": key["token"]}, headers=headers)
        assert "Idempotent-Replayed" not in answered


async def test_after_a_day_it_is_a_new_request(world: World) -> None:
    once = new_key()
    first = await world.post("/key/generate", {}, once)
    world.clock.passes(hours=23, minutes=59)
    assert (await world.post("/key/generate", {}, once)).body == first.body
    world.clock.passes(minutes=2)
    later = await world.post("/key/generate", {"tags": ["another body"]}, once)
    assert (later.status, later.replayed) == (200, None)
    assert (await world.post("/key/generate", {"tags": ["another body"]}, once)).body == later.body


async def test_what_is_over_is_deleted(world: World) -> None:
    keys = world.it.running("keys")
    await world.post("/key/generate", {}, new_key())
    await forget_answers(keys)
    assert await kept(world, "keys") > 0
    world.clock.passes(hours=24)
    await forget_answers(keys)
    assert await kept(world, "keys") == 0


async def test_nothing_of_what_is_kept_is_in_clear(world: World) -> None:
    email, once = an_email(), new_key()
    user = await world.it.ok("POST", "/user/new", {"user_email": email}, headers={"Idempotency-Key": once})
    link = await world.it.ok("POST", "/invitation/new", {"user_id": user["user_id"]}, headers={"Idempotency-Key": once})
    for service in ("identity", "invitations"):
        rows = " ".join(await owner(world, f"select k::text from {service}.kept_answers k"))
        assert rows
        for secret in (email, once, user["key"], link["id"], user["user_id"]):
            assert secret not in rows


async def logs(world: World) -> dict[str, int]:
    return {service: len(await log_of(world.it, service)) for service in ("identity", "keys", "invitations")}


async def kept(world: World, service: str) -> int:
    [number] = await owner(world, f"select count(*) from {service}.kept_answers")
    return int(number)


async def owner(world: World, query: str) -> list[Any]:
    connection = await asyncpg.connect(world.it.owner_url)
    try:
        return [row[0] for row in await connection.fetch(query)]
    finally:
        await connection.close()
