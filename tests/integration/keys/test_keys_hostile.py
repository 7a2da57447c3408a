"""Whatever is sent to the routes of keys: an answer of the contract's, and never a 500 (§1.4)."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.keys.api import DeleteKeysBody, GenerateKeyBody, KeyListQuery, UpdateKeyBody
from shared.errors import REASONS
from tests.support.keys_world import ADMIN, Caller, World

FIELDS = sorted({*GenerateKeyBody.model_fields, *UpdateKeyBody.model_fields, *DeleteKeysBody.model_fields})
LIKELY = ["", "-1", "30d", "9999999y", "sk-", "0" * 64, "\x00", "\ud800", "all-proxy-models", "1e400", "usd:1"]

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**53, 10**400])
scalars = st.none() | st.booleans() | numbers | st.text(max_size=300) | st.sampled_from(LIKELY)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
bodies = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=20), values, max_size=6)
queries = st.dictionaries(
    st.sampled_from(sorted(KeyListQuery.model_fields)), st.text(max_size=300) | st.sampled_from(LIKELY), max_size=4
)
callers = st.sampled_from([ADMIN, Caller("ada"), Caller("ada", "internal_user_viewer")])
hostile = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", autouse=True)
async def users(module_world: World) -> None:
    """Those who ask are there: nothing is refused for that alone."""
    for caller in (ADMIN, Caller("ada")):
        await module_world.new_user(caller.user_id)


def check(status: int, answer: Any) -> None:
    assert status < 500, answer
    if status != 200:
        error = answer["error"]
        assert error.keys() == {"message", "type", "param", "code", "reason"}
        assert REASONS[error["reason"]].status == status == int(error["code"])
        json.dumps(answer).encode()


@pytest.mark.parametrize("path", ["generate", "update", "delete", "block"])
@given(who=callers, body=bodies)
@hostile
async def test_a_hostile_body_gets_one_of_the_contracts_answers(
    world: World, path: str, who: Caller, body: dict[str, Any]
) -> None:
    check(*await world.call(who, "POST", f"/key/{path}", body))


@given(who=callers, query=queries)
@hostile
async def test_a_hostile_query_gets_one_of_the_contracts_answers(
    world: World, who: Caller, query: dict[str, str]
) -> None:
    text = "&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in query.items())
    check(*await world.call(who, "GET", f"/key/list?{text}"))
    key = quote(query.get("search", "x"), errors="surrogatepass")
    check(*await world.call(who, "GET", f"/key/info?key={key}"))
