"""docker-compose.yml with a real engine: what the containers may not do, the main job, and what a lost one costs.

`make compose-test` asks for these; plain pytest does not. Tests run in the order they stand in, and the last kills.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.compose import Containers, containers
from tests.support.eventually import eventually
from tests.support.flow import self_serve
from tests.support.installation import Client
from tests.support.tricks import failures

TIMES = 20
AT_ONCE = 4
WRITABLE = ("/", "/app", "/etc", "/opt/keystead")
OURS = ("gateway-1", "gateway-2", "identity", "invitations", "keys", "budgets", "notifications", "portal")
AWAY = (502, 503, 504)


@pytest.fixture(scope="module")
def it() -> Iterator[Containers]:
    with containers() as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Outage(Exception):
    """Something was away; the contract's 503, or the proxy's own word for it."""


@dataclass
class Patient(Client):
    """Tells a refusal from an outage, which it is ready for. ``key`` is the admin's."""

    admin: str = ""

    async def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = "", url: str | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        try:
            answer = await super().request(method, path, body, key=self.admin if key == "" else key, url=url, **options)
        except aiohttp.ClientError as fault:
            raise Outage(repr(fault)) from fault
        if answer[0] in AWAY:
            raise Outage(f"{method} {path}: {answer[0]}")
        return answer

    async def call(self, method: str, path: str, body: Any = None, *, key: str | None = "", **options: Any) -> Any:
        status, answer, _ = await self.request(method, path, body, key=key, **options)
        return status, answer

    async def ok(self, method: str, path: str, body: Any = None, *, key: str | None = "", **options: Any) -> Any:
        status, answer = await self.call(method, path, body, key=key, **options)
        assert status == 200, (method, path, status, answer)
        return answer


def test_no_container_is_root_or_may_become_it_or_writes_where_it_runs(it: Containers) -> None:
    found = it.inspect()
    assert len(found) == len(OURS) + 5
    for container in found:
        name, host = container["Name"], container["HostConfig"]
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
    for service in OURS:
        for folder in WRITABLE:
            assert it.run_in(service, "sh", "-c", f"echo > {folder}/x").returncode != 0, (service, folder)
        assert it.run_in(service, "id", "-u").stdout == "10001\n"


def test_secrets_are_in_files_of_those_who_need_them_and_nowhere_else(it: Containers) -> None:
    for container in it.inspect():
        told = " ".join([*container["Config"]["Env"], *container["Args"]])
        assert not [name for name, value in it.secrets().items() if value in told], container["Name"]
    for service in OURS:
        held = set(it.run_in(service, "ls", "/run/secrets").stdout.split())
        assert "postgres_url" not in held and "postgres_password" not in held, service
        assert ("master_key" in held) == (service in ("gateway-1", "gateway-2", "identity")), service


def test_only_the_proxy_can_be_reached_from_outside(it: Containers) -> None:
    published = {
        container["Name"].removeprefix("/"): [port for port, on in container["NetworkSettings"]["Ports"].items() if on]
        for container in it.inspect()
    }
    assert {name: ports for name, ports in published.items() if ports} == {"keystead-test-nginx-1": ["8080/tcp"]}


async def test_the_flow_runs_through_the_proxy(it: Containers, http: aiohttp.ClientSession) -> None:
    client = Patient(it.url, http, admin=it.master_key)
    for _ in range(TIMES):
        await self_serve(client)


async def test_the_pages_are_there_through_the_proxy(it: Containers, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{it.url}/ui", allow_redirects=True) as page:
        assert page.status == 200 and page.url.path == "/ui/login"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


async def test_no_trick_gets_past_the_proxy_and_the_gateway(it: Containers, http: aiohttp.ClientSession) -> None:
    client = Patient(it.url, http, admin=it.master_key)
    viewer = await client.ok("POST", "/user/new", {"user_role": "internal_user_viewer"})
    assert await failures("127.0.0.1", it.port, viewer["key"], proxied=True) == []


async def test_the_flow_goes_on_while_a_gateway_and_a_service_are_lost_and_replaced(
    it: Containers, http: aiohttp.ClientSession
) -> None:
    """What an outage cuts short is begun anew, with another person; whatever is answered is right, and soon all is."""
    stop, done, cut = asyncio.Event(), [0], list[str]()

    async def serve() -> None:
        client = Patient(it.url, http, admin=it.master_key)
        while not stop.is_set():
            try:
                await self_serve(client)
            except Outage as outage:
                cut.append(str(outage))
            else:
                done[0] += 1

    served = [asyncio.create_task(serve()) for _ in range(AT_ONCE)]
    try:
        for lost in ("gateway-1", "keys", "identity"):
            await _more(done)
            began = time.monotonic()
            await asyncio.to_thread(it.kill, lost)
            await asyncio.to_thread(it.replace, lost)
            await _more(done)
            print(f"{lost} was lost: replaced and flowing again after {time.monotonic() - began:.1f} s")
    finally:
        stop.set()
        await asyncio.gather(*served)
    print(f"{done[0]} flows, {len(cut)} cut short: {sorted(set(cut))}")
    await self_serve(Patient(it.url, http, admin=it.master_key))


async def test_no_log_holds_a_secret(it: Containers) -> None:
    logged = await asyncio.to_thread(it.logs)
    assert not [name for name, value in it.secrets().items() if value in logged]
    lines = logged.splitlines()
    assert not [line for line in lines if "invite_link=" in line], "nor one that stood in a URL"
    stacks = [number for number, line in enumerate(lines) if "Traceback" in line]
    assert not stacks, "\n".join(line for number in stacks for line in lines[number - 5 : number + 40])


async def _more(done: list[int]) -> None:
    """Until as many flows as run at once have ended since."""
    enough = done[0] + AT_ONCE
    await eventually(lambda: done[0] >= enough, 120)
