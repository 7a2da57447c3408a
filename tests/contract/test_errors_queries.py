"""What a query parameter may not hold, and a path, at every route (contract §1.3, §1.4)."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bodies_world import CHAT, World, bodies_world
from tests.support.refusals import refused


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with bodies_world() as made:
        yield made


# Query parameters are classed as fields are (D4), but on /v1/*.
Query = Mapping[str, list[tuple[str, str]]]
PAGE = [("0", "out_of_range"), ("-1", "out_of_range"), ("x", "wrong_type"), ("1.5", "wrong_type"), ("", "wrong_type")]
SIZE = [*PAGE, ("101", "out_of_range"), ("9" * 400, "out_of_range")]
QUERY_ID = [("", "out_of_range"), ("x" * 256, "out_of_range"), ("%20x", "out_of_range"), ("a%00b", "out_of_range")]
DAY = [("2026-13-01", "time_malformed"), ("2026-02-30", "time_malformed"), ("24.11.2026", "time_malformed")]
DAY += [("now", "time_malformed"), ("2026-11-24T00:00:00Z", "time_malformed"), ("", "time_malformed")]
ONE_OF = [("x", "out_of_range"), ("", "out_of_range")]
YES_NO = [("x", "wrong_type"), ("2", "wrong_type"), ("", "wrong_type")]
QUERIES: Mapping[str, Query] = {
    "/user/info": {"user_id": [*QUERY_ID, ("nobody", "not_found")]},
    "/user/list": {
        "role": ONE_OF,
        "user_email": [("", "out_of_range"), ("x" * 256, "out_of_range")],
        "search": [("", "out_of_range"), ("x" * 256, "out_of_range")],
        "page": PAGE,
        "page_size": SIZE,
        "sort_by": [*ONE_OF, ("password", "out_of_range")],
        "sort_order": ONE_OF,
        "team": [("nobody", "not_found")],
        "sso_user_ids": [("x", "field_unsupported")],
    },
    "/invitation/info": {"invitation_id": [*QUERY_ID, ("nothing", "not_found")]},
    "/keystead/v1/invitations": {
        "status": ONE_OF,
        "user_id": QUERY_ID,
        "limit": [*PAGE, ("201", "out_of_range")],
        "after": [("x", "out_of_range"), ("", "out_of_range"), ("%00", "out_of_range")],
    },
    "/keystead/v1/notifications": {
        "status": ONE_OF,
        "user_id": QUERY_ID,
        "limit": [*PAGE, ("201", "out_of_range")],
        "after": [("x", "out_of_range"), ("", "out_of_range"), ("%00", "out_of_range")],
    },
    "/key/info": {"key": [("", "out_of_range"), ("x" * 256, "out_of_range"), ("nothing", "not_found")]},
    "/key/list": {
        "page": PAGE,
        "size": SIZE,
        "user_id": [*QUERY_ID, ("nobody", "not_found")],
        "team_id": [*QUERY_ID, ("nobody", "not_found")],
        "key_hash": [("", "out_of_range"), ("0" * 64, "not_found")],
        "key_alias": [("", "out_of_range"), ("x" * 256, "out_of_range")],
        "search": [("", "out_of_range"), ("a%0Ab", "out_of_range")],
        "return_full_object": YES_NO,
        "include_team_keys": YES_NO,
        "include_created_by_keys": YES_NO,
        "substring_matching": YES_NO,
        "sort_by": ONE_OF,
        "sort_order": ONE_OF,
        "status": ONE_OF,
        "expires": ONE_OF,
    },
    "/spend/logs": {
        "api_key": [("", "out_of_range"), ("nothing", "not_found")],
        "user_id": [*QUERY_ID, ("nobody", "not_found")],
        "request_id": [("", "out_of_range"), ("x" * 256, "out_of_range")],
        "start_date": DAY,
        "end_date": DAY,
        "summarize": YES_NO,
    },
}


def parameters() -> Iterator[Any]:
    for path, of_path in QUERIES.items():
        for name, bad in of_path.items():
            yield pytest.param(path, name, bad, id=f"{path} {name}")


@pytest.mark.parametrize(("path", "name", "bad"), [*parameters()])
async def test_a_query_parameter_refuses_what_it_may_not_hold(
    world: World, path: str, name: str, bad: list[tuple[str, str]]
) -> None:
    for value, reason in bad:
        refusal = await refused(world.it, "GET", f"{path}?{name}={value}")
        assert (refusal.reason, refusal.param) == (reason, name), (value, refusal)
        assert name in refusal.message, refusal


STRICT_QUERIES = (
    "/user/info",
    "/user/list",
    "/user/available_roles",
    "/.well-known/jwks.json",
    "/keystead/v1/me",
    "/keystead/v1/invitations",
    "/keystead/v1/notifications",
    "/keystead/v1/budgets/proxy",
    "/key/list",
    "/spend/logs",
    "/model/info",
    "/health",
    "/health/readiness",
    "/livez",
)


@pytest.mark.parametrize("path", STRICT_QUERIES)
async def test_a_query_parameter_that_nobody_knows_is_refused(world: World, path: str) -> None:
    refusal = await refused(world.it, "GET", f"{path}?pgae=1")
    assert (refusal.reason, refusal.param) == ("field_unknown", "pgae"), refusal
    refusal = await refused(world.it, "GET", f"{path}?organization_id=x")
    assert (refusal.reason, refusal.param) == ("field_unsupported", "organization_id"), refusal
    status, answer = await world.it.call("GET", f"{path}?organization_id=")
    assert status == 200, answer


async def test_a_query_parameter_given_twice_is_refused(world: World) -> None:
    refusal = await refused(world.it, "GET", "/key/list?page=1&page=2")
    assert (refusal.reason, refusal.param) == ("wrong_type", "page")


async def test_the_model_routes_take_any_query_parameter(world: World) -> None:
    """§1.3: "but on /v1/*": clients of OpenAI's API send what they like."""
    assert await world.it.ok("GET", "/v1/models?api-version=2026-01-01")
    assert await world.it.ok("POST", "/v1/chat/completions?timeout=5", CHAT)


async def test_a_query_parameter_that_has_to_be_there_is_missed(world: World) -> None:
    for path, name in (("/invitation/info", "invitation_id"), ("/onboarding/get_token", "invite_link")):
        refusal = await refused(world.it, "GET", path)
        assert (refusal.reason, refusal.param) == ("field_missing", name)


async def test_a_path_with_what_no_database_holds_is_refused(world: World) -> None:
    for path in ("/keystead/v1/budgets/user:%00", "/keystead/v1/budgets/key:x%00y"):
        refusal = await refused(world.it, "GET", path)
        assert (refusal.reason, refusal.param) == ("out_of_range", "scope")
