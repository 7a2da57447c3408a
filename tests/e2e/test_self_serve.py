"""The main job, over real HTTP against real servers: invited, claimed, a key, calls, spend, refused, ended."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.flow import self_serve
from tests.support.installation import PASSWORD, Installation, claims_of, installation

TIMES = 200
SIDE_BY_SIDE = 20


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as made:
        yield made


@pytest.mark.timeout(280)
async def test_the_flow_runs_two_hundred_times_with_no_pause(it: Installation) -> None:
    for _ in range(TIMES):
        await self_serve(it)


async def test_the_flow_runs_side_by_side_with_the_relay_a_second_late() -> None:
    async with installation(relay_delay_seconds=1.0) as slow:
        await asyncio.gather(*(self_serve(slow) for _ in range(SIDE_BY_SIDE)))


@pytest.mark.parametrize("role", ["proxy_admin_viewer", "internal_user_viewer"])
async def test_a_viewer_logs_in_sees_what_a_viewer_may_and_changes_nothing(it: Installation, role: str) -> None:
    made = await self_serve(it)
    viewer = await it.invite(user_role=role)
    logged_in = await it.ok("POST", "/v2/login", {"username": viewer.email, "password": PASSWORD}, key=None)
    session = claims_of(logged_in["token"])["key"]
    sees_all = role == "proxy_admin_viewer"

    assert (await it.ok("GET", "/key/list", key=session))["total_count"] == 0
    for path in (
        "/user/list",
        f"/user/info?user_id={made.user_id}",
        f"/key/info?key={made.token}",
        f"/spend/logs?user_id={made.user_id}&summarize=false",
        f"/keystead/v1/budgets/user:{made.user_id}",
    ):
        status, answer = await it.call("GET", path, key=session)
        assert status == (200 if sees_all else 403), (path, answer)

    changes: list[tuple[str, dict[str, object]]] = [
        ("/user/new", {}),
        ("/user/update", {"user_id": viewer.user_id, "user_alias": "another"}),
        ("/user/delete", {"user_ids": [made.user_id]}),
        ("/invitation/new", {"user_id": made.user_id}),
        ("/key/generate", {}),
        ("/key/update", {"key": made.token, "key_alias": "another"}),
        ("/key/block", {"key": made.token}),
        ("/key/delete", {"keys": [made.token]}),
    ]
    before = await _events(it)
    for path, body in changes:
        status, answer = await it.call("POST", path, body, key=session)
        assert (status, answer["error"]["reason"]) == (403, "role_not_allowed"), (path, answer)
    assert await _events(it) == before


async def _events(it: Installation) -> dict[str, int]:
    """Where each log that a viewer could change ends."""
    names = ("identity", "invitations", "keys")
    return {name: await it.running(name).run(lambda tx: tx.last_position()) for name in names}
