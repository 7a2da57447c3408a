"""Whatever is sent to the routes of identity: an answer of the contract's, and never a 500 (§1.4)."""

import io
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from services.identity.api.onboarding import ClaimBody
from services.identity.api.sessions import LogInBody
from services.identity.api.users import DeleteUsersBody, NewUserBody, UpdateUserBody, UserListQuery
from shared.errors import REASONS
from tests.support.identity import new_user, refusal
from tests.support.installation import MASTER_KEY, Installation

BODIES: dict[str, type[BaseModel]] = {
    "/user/new": NewUserBody,
    "/user/update": UpdateUserBody,
    "/user/delete": DeleteUsersBody,
    "/v2/login": LogInBody,
    "/onboarding/claim_token": ClaimBody,
}
LIKELY = ["", "-1", "30d", "ada", "a@b", "a@b@c", "\x00", "\ud800", "proxy_admin", "mock-fast", "1e400", "usd:1", "%"]
# What an HTTP client sends in a cookie's value at all.
COOKIE_CHARACTERS = st.characters(
    min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"], exclude_characters=';,"\\'
)

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**53, 10**400])
texts = st.text(max_size=300) | st.sampled_from(LIKELY)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
hostile = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
credentials = st.sampled_from([MASTER_KEY, "sk-nobody", "a.b.c", "é", "Basic YTpi"])


def bodies(path: str) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(sorted(BODIES[path].model_fields)) | st.text(max_size=20)
    return st.dictionaries(names, values, max_size=6)


@pytest.fixture(scope="module", autouse=True)
async def somebody(it: Installation) -> None:
    """Is there: nothing is refused for that alone."""
    await new_user(it, user_id="ada", user_email="a@b")


def check(status: int, answer: Any) -> None:
    assert status < 500, answer
    if status != 200:
        assert REASONS[refusal((status, answer))[1]].status == status


async def post(it: Installation, path: str, body: Any, credential: str) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {credential}"}
    data = io.BytesIO(json.dumps(body).encode())
    async with it.http.post(it.url + path, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("path", BODIES)
@given(data=st.data())
@hostile
async def test_a_hostile_body_gets_one_of_the_contracts_answers(
    it: Installation, path: str, data: st.DataObject
) -> None:
    check(*await post(it, path, data.draw(bodies(path)), data.draw(credentials)))


@given(query=st.dictionaries(st.sampled_from(sorted(UserListQuery.model_fields)), texts, max_size=4))
@hostile
async def test_a_hostile_filter_gets_one_of_the_contracts_answers(it: Installation, query: dict[str, str]) -> None:
    text = "&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in query.items())
    check(*await it.call("GET", f"/user/list?{text}"))


@pytest.mark.parametrize("path", ["/user/info?user_id=", "/onboarding/get_token?invite_link="])
@given(text=texts)
@hostile
async def test_a_hostile_id_gets_one_of_the_contracts_answers(it: Installation, path: str, text: str) -> None:
    check(*await it.call("GET", path + quote(text, errors="surrogatepass")))


@given(cookie=st.text(alphabet=COOKIE_CHARACTERS, max_size=99))
@hostile
async def test_a_hostile_cookie_logs_out_all_the_same(it: Installation, cookie: str) -> None:
    headers = {"Cookie": f"token={cookie}", "Sec-Fetch-Site": "none"}
    status, _, _ = await it.request("POST", "/logout", key=None, headers=headers)
    assert status == 303
    check(*await it.call("GET", "/user/info", key=None, headers=headers))
