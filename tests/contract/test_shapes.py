"""Answers, field by field (contract §3, §1.3): every field, its JSON type, the constants, and none that was dropped.

Where the contract is silent a recorded answer of LiteLLM's holds; the fields here were written out from both.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.installation import BASE_URL, MASTER_KEY, PASSWORD, Installation, claims_of, installation
from tests.support.objects import (
    CLAIMS,
    DELETED_KEY,
    GENERATED_KEY,
    INVITATION,
    KEY,
    KEY_INFO,
    LISTED_INVITATION,
    NEW_USER,
    NEW_USER_WITHOUT_KEY,
    SPEND_ROW,
    UPDATED_KEY,
    USER,
)
from tests.support.shapes import HASH, TIME, UUID, Number, Shape, amount, check, exactly, maybe, money, number, read

# As the recorded proxy was set up: what new internal users get, and the upper bound.
CONTENT = {
    "litellm_settings": {
        "max_internal_user_budget": 10,
        "internal_user_budget_duration": "30d",
        "default_internal_user_params": {"models": ["mock-fast", "mock-priced"]},
        "upperbound_key_generate_params": {"max_budget": 100},
    }
}
CHAT = {"model": "mock-fast", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}
JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


@dataclass
class World:
    """``ada``, invited, with a session and a key; what the steps on the way were answered."""

    it: Installation
    answers: dict[str, Any]
    user_id: str
    session: str
    key: dict[str, Any]

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = MASTER_KEY) -> Any:
        """The answer, numbers as they are written."""
        text, _ = await self.text(method, path, body, key=key)
        return read(text)

    async def text(self, method: str, path: str, body: Any = None, *, key: str | None = MASTER_KEY) -> tuple[str, Any]:
        headers = {"User-Agent": "curl/7.88.1", **({"Authorization": f"Bearer {key}"} if key else {})}
        async with self.it.http.request(method, self.it.url + path, json=body, headers=headers) as response:
            return await response.text(), response.headers


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with installation(CONTENT) as it:
        world = World(it, {}, "", "", {})
        answers = world.answers
        answers["user"] = user = await world.ask("POST", "/user/new", ADA)
        answers["invitation"] = invited = await world.ask("POST", "/invitation/new", {"user_id": user["user_id"]})
        answers["opened"] = opened = await world.ask(
            "GET", f"/onboarding/get_token?invite_link={invited['id']}", key=None
        )
        claim = {"invitation_link": invited["id"], "user_id": user["user_id"]}
        credential = claims_of(opened["token"])["key"]
        answers["weak"] = await world.ask(
            "POST", "/onboarding/claim_token", {**claim, "password": "abc"}, key=credential
        )
        answers["claimed"] = claimed = await world.ask(
            "POST", "/onboarding/claim_token", {**claim, "password": PASSWORD}, key=credential
        )
        world.user_id, world.session = user["user_id"], claims_of(claimed["token"])["key"]
        answers["key"] = world.key = await world.ask("POST", "/key/generate", LAPTOP, key=world.session)
        yield world


ADA = {"user_email": "Ada@Example.test", "user_role": "internal_user", "auto_create_key": False}
LAPTOP = {
    "key_alias": "ada-laptop",
    "duration": "30d",
    "max_budget": 1.0,
    "budget_duration": "1d",
    "models": ["mock-fast", "mock-priced"],
    "metadata": {"purpose": "transcript"},
    "tags": ["t2"],
}


# Users, §3.2.


async def test_a_new_user_without_a_key(world: World) -> None:
    user = world.answers["user"]
    check(NEW_USER_WITHOUT_KEY, user)
    assert user["user_email"] == "ada@example.test" and user["user_role"] == "internal_user"
    assert (user["max_budget"], user["budget_duration"], user["spend"]) == (10, "30d", 0)
    assert user["models"] == ["mock-fast", "mock-priced"]
    assert user["created_at"] == user["updated_at"]


async def test_a_new_user_with_a_key(world: World) -> None:
    body = {"user_email": "bob@example.test", "user_role": "internal_user", "max_budget": 2.5, "budget_duration": "1d"}
    user = await world.ask("POST", "/user/new", {**body, "models": ["mock-fast"], "metadata": {"a": [1, 0.5, None]}})
    check(NEW_USER, user)
    assert str(user["max_budget"]) == "2.5" and user["budget_duration"] == "1d" and user["models"] == ["mock-fast"]
    assert user["token"] == user["token_id"] and user["key_name"] == f"sk-...{user['key'][-4:]}"
    assert user["key_id"] == user["key"].split("_")[1]
    assert user["metadata"] == {"a": [1, "0.5", None]}  # as sent
    info = await world.ask("GET", f"/key/info?key={user['key_id']}")
    assert info["info"]["max_budget"] == 100, "the upper bounds fill it (D24)"


USER_INFO: Shape = {
    "user_id": str,
    "user_info": USER,
    "keys": [{**KEY, "team_alias": exactly(None)}],
    "teams": exactly([]),
    "total_keys": int,
    "total_teams": exactly(0),
}


async def test_a_users_own_record(world: World) -> None:
    info = await world.ask("GET", "/user/info", key=world.session)
    check(USER_INFO, info)
    assert info["user_id"] == info["user_info"]["user_id"] == world.user_id
    assert [key["token"] for key in info["keys"]] == [world.key["token"]]
    assert re.fullmatch(r"\d{4}-\d\d-01T00:00:00\.000000Z", info["user_info"]["budget_reset_at"])


async def test_the_admins_own_record(world: World) -> None:
    """D13; the master key's user exists from the start (D11)."""
    info = await world.ask("GET", "/user/info")
    check(USER_INFO, info)
    assert info["user_id"] == "default_user_id" and info["user_info"]["user_role"] == "proxy_admin"
    assert info["user_info"]["user_email"] is None and info["user_info"]["max_budget"] is None


async def test_a_page_of_users(world: World) -> None:
    page = await world.ask("GET", "/user/list?page=1&page_size=10")
    row = {**USER, "key_count": int}
    check({"users": [row], "total": int, "page": exactly(1), "page_size": exactly(10), "total_pages": int}, page)
    past = await world.ask("GET", "/user/list?page=1000")
    check({"users": exactly([]), "total": int, "page": int, "page_size": exactly(25), "total_pages": int}, past)


async def test_a_changed_and_a_deleted_user(world: World) -> None:
    made = await world.ask("POST", "/user/new", {"auto_create_key": False})
    changed = await world.ask("POST", "/user/update", {"user_id": made["user_id"], "user_alias": "Bea"})
    check({"user_id": exactly(made["user_id"]), "data": USER}, changed)
    assert changed["data"]["user_alias"] == "Bea"
    text, _ = await world.text("POST", "/user/delete", {"user_ids": [made["user_id"]]})
    assert text == "1", "the number deleted, a bare integer"


async def test_the_four_roles(world: World) -> None:
    roles = await world.ask("GET", "/user/available_roles")
    names = ["proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer"]
    check({name: {"description": str, "ui_label": str} for name in names}, roles)


# Invitations and log-in, §3.5, §3.3.


async def test_an_invitation(world: World) -> None:
    made = world.answers["invitation"]
    check({**INVITATION, "id": UUID, "is_accepted": exactly(False), "status": exactly("open")}, made)
    assert made["accepted_at"] is None and made["created_by"] == "default_user_id"
    assert made["id"] != made["ref"]
    read_again = await world.ask("GET", f"/invitation/info?invitation_id={made['ref']}")
    check({**INVITATION, "id": exactly(made["ref"]), "accepted_at": TIME, "status": exactly("accepted")}, read_again)
    same = await world.ask("POST", "/invitation/update", {"invitation_id": made["ref"], "is_accepted": True})
    assert same == read_again


async def test_invitations_in_a_page_have_no_id(world: World) -> None:
    page = await world.ask("GET", "/keystead/v1/invitations?limit=1")
    check({"data": [LISTED_INVITATION], "next": maybe(str)}, page)
    made = await world.ask("POST", "/invitation/new", {"user_id": world.user_id})
    again = await world.ask("POST", f"/keystead/v1/invitations/{made['ref']}/resend")
    check({**INVITATION, "id": UUID, "ref": exactly(made["ref"])}, again)
    assert again["id"] != made["id"]
    revoked = await world.ask("POST", "/invitation/delete", {"invitation_id": again["id"]})
    check({**INVITATION, "id": exactly(again["id"]), "status": exactly("revoked")}, revoked)


async def test_an_opened_link(world: World) -> None:
    opened = world.answers["opened"]
    check({"login_url": str, "token": JWT, "user_email": exactly("ada@example.test")}, opened)
    assert opened["login_url"] == f"{BASE_URL}/ui/onboarding?token={opened['token']}"
    claims = claims_of(opened["token"])
    check({**CLAIMS, "key": JWT}, claims)


async def test_a_claimed_invitation(world: World) -> None:
    claimed = world.answers["claimed"]
    check({"login_url": str, "token": JWT, "user_email": str, "user": USER}, claimed)
    assert claimed["login_url"] == f"{BASE_URL}/ui?login=success"
    check({**CLAIMS, "key": re.compile(r"sk-kss1_[0-9A-Za-z]{43}")}, claims_of(claimed["token"]))


async def test_a_log_in(world: World) -> None:
    body = {"username": " ADA@example.test", "password": PASSWORD}
    text, headers = await world.text("POST", "/v2/login", body, key=None)
    answer = read(text)
    check({"redirect_url": str, "token": JWT, "user_id": exactly(world.user_id), "expires_at": TIME}, answer)
    assert answer["redirect_url"] == f"{BASE_URL}/ui?login=success"
    cookie, *attributes = [part.strip() for part in headers["Set-Cookie"].split(";")]
    assert cookie == f"token={answer['token']}"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {*attributes} and "Secure" not in attributes
    check({**CLAIMS, "key": re.compile(r"sk-kss1_[0-9A-Za-z]{43}")}, claims_of(answer["token"]))


async def test_who_one_is(world: World) -> None:
    me = await world.ask("GET", "/keystead/v1/me", key=world.session)
    credential = {"kind": exactly("session"), "session_id": UUID, "expires_at": TIME}
    shape = {"user_id": str, "user_email": str, "user_role": str, "teams": exactly([]), "permissions": [str]}
    check({**shape, "credential": credential}, me)
    assert {"key:generate", "key:delete", "me:read"} <= {*me["permissions"]} and "user:new" not in me["permissions"]
    by_key = await world.ask("GET", "/keystead/v1/me", key=world.key["key"])
    credential = {"kind": exactly("key"), "key_id": str, "key_type": exactly("default"), "expires_at": TIME}
    check({**shape, "credential": credential}, by_key)
    master = await world.ask("GET", "/keystead/v1/me")
    check({**shape, "user_email": exactly(None), "credential": {"kind": str}}, master)


async def test_the_key_set(world: World) -> None:
    keys = await world.ask("GET", "/.well-known/jwks.json", key=None)
    member = {"kty": exactly("OKP"), "crv": exactly("Ed25519"), "x": str, "kid": str, "use": exactly("sig")}
    check({"keys": [{**member, "alg": exactly("EdDSA")}]}, keys)


async def test_a_log_out(world: World) -> None:
    answer = await world.ask("POST", "/v2/login", {"username": "ada@example.test", "password": PASSWORD}, key=None)
    session = claims_of(answer["token"])["key"]
    text, headers = await world.text("POST", "/session/logout", key=session)
    assert json.loads(text) == {"message": "Session revoked."}
    assert headers["Set-Cookie"].startswith("token=;")
    status, _, headers = await world.it.request("GET", "/logout", key=None)
    assert (status, headers["Location"]) == (303, "/ui/login")


# Keys, §3.6.


async def test_a_generated_key(world: World) -> None:
    key = world.key
    check(GENERATED_KEY, key)
    assert key["key_alias"] == "ada-laptop" and key["duration"] == "30d" and key["user_id"] == world.user_id
    assert (key["max_budget"], key["budget_duration"], key["key_type"]) == (1, "1d", "default")
    assert key["metadata"] == {"purpose": "transcript"} and key["tags"] == ["t2"] and not key["blocked"]
    assert key["token"] == key["token_id"] and key["key_name"] == f"sk-...{key['key'][-4:]}"
    assert key["status"] == "active" and key["created_by"] == world.user_id


async def test_a_key_read_by_itself(world: World) -> None:
    """It is not repeated: the hash stands for it (D7)."""
    text, _ = await world.text("GET", "/key/info", key=world.key["key"])
    assert world.key["key"] not in text
    check({"key": exactly(world.key["token"]), "info": KEY_INFO}, read(text))


async def test_a_page_of_keys(world: World) -> None:
    page = {"total_count": int, "current_page": exactly(1), "total_pages": int}
    hashes = await world.ask("GET", "/key/list", key=world.session)
    check({**page, "keys": [HASH]}, hashes)
    whole = await world.ask("GET", "/key/list?return_full_object=true&page=1&size=10", key=world.session)
    check({**page, "keys": [KEY]}, whole)
    assert [key["token"] for key in whole["keys"]] == hashes["keys"]
    past = await world.ask("GET", "/key/list?page=99", key=world.session)
    check({**page, "current_page": exactly(99), "keys": exactly([])}, past)


async def test_a_key_changed_blocked_and_deleted(world: World) -> None:
    made = await world.ask("POST", "/key/generate", {"key_alias": "short-lived"}, key=world.session)
    changed = await world.ask("POST", "/key/update", {"key": made["key"], "tags": ["x"]}, key=world.session)
    check({**UPDATED_KEY, "key": exactly(made["token"]), "tags": exactly(["x"])}, changed)
    blocked = await world.ask("POST", "/key/block", {"key": made["key_id"]})
    check({**KEY, "blocked": exactly(True), "status": exactly("revoked")}, blocked)
    unblocked = await world.ask("POST", "/key/unblock", {"key": made["token"]})
    check({**KEY, "blocked": exactly(False), "status": exactly("active")}, unblocked)
    other = await world.ask("POST", "/key/generate", {"key_alias": "by-alias"}, key=world.session)
    deleted = await world.ask("POST", "/key/delete", {"keys": [made["key"]]}, key=world.session)
    check({"deleted_keys": exactly([made["token"]])}, deleted)
    deleted = await world.ask("POST", "/key/delete", {"key_aliases": ["by-alias"]}, key=world.session)
    check({"deleted_keys": exactly(["by-alias"])}, deleted)
    listed = await world.ask("GET", "/key/list?status=deleted&return_full_object=true", key=world.session)
    check([DELETED_KEY], listed["keys"])
    assert {key["token"] for key in listed["keys"]} == {made["token"], other["token"]}


# Models, calls, spend, §3.7, §3.8.


async def test_the_models(world: World) -> None:
    row = {"id": str, "object": exactly("model"), "created": exactly(1677610602), "owned_by": exactly("openai")}
    for key in (MASTER_KEY, world.key["key"]):
        models = await world.ask("GET", "/v1/models", key=key)
        check({"object": exactly("list"), "data": [row]}, models)
        assert [model["id"] for model in models["data"]] == ["mock-fast", "mock-priced"]
    check(row, await world.ask("GET", "/v1/models/mock-fast"))


async def test_the_models_prices(world: World) -> None:
    """No key, no address, no null fields."""
    info = await world.ask("GET", "/model/info")
    params = {"model": str, "input_cost_per_token": number, "output_cost_per_token": number, "mock_response": str}
    facts = {
        "id": HASH,
        "db_model": exactly(False),
        "key": str,
        "litellm_provider": exactly("openai"),
        "input_cost_per_token": number,
        "output_cost_per_token": number,
        "cache_read_input_token_cost": number,
        "cache_creation_input_token_cost": number,
        "price_source": str,
    }
    check({"data": [{"model_name": str, "litellm_params": params, "model_info": facts}]}, info)
    fast, priced = info["data"]
    assert amount(fast["model_info"]["input_cost_per_token"]) == Decimal("0.000001")
    assert amount(priced["litellm_params"]["output_cost_per_token"]) == Decimal("0.01")
    (only,) = (await world.ask("GET", f"/model/info?litellm_model_id={fast['model_info']['id']}"))["data"]
    assert only == fast


USAGE: Shape = {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int}


async def test_a_chat_completion(world: World) -> None:
    text, headers = await world.text("POST", "/v1/chat/completions", CHAT, key=world.key["key"])
    answer = read(text)
    message = {"content": exactly("Hello from the mock model. This is a canned answer."), "role": exactly("assistant")}
    choice = {"finish_reason": exactly("stop"), "index": exactly(0), "message": message}
    check(
        {
            "id": re.compile(r"chatcmpl-.+"),
            "created": int,
            "model": exactly("mock-fast"),
            "object": exactly("chat.completion"),
            "choices": [choice],
            "usage": USAGE,
        },
        answer,
    )
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    check(UUID, headers["x-litellm-call-id"])
    check(HASH, headers["x-litellm-model-id"])
    assert headers["x-litellm-model-group"] == "mock-fast" and headers["x-litellm-attempted-retries"] == "0"
    assert headers["x-litellm-response-cost"] == "0.00005", "no noise, no exponent (D19)"
    assert headers["x-litellm-key-max-budget"] == "1" and Decimal(headers["x-litellm-key-spend"]) > 0
    assert float(headers["x-litellm-response-duration-ms"]) > 0


async def test_a_streamed_completion(world: World) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    text, headers = await world.text("POST", "/v1/chat/completions", body, key=world.key["key"])
    assert headers["Content-Type"].startswith("text/event-stream") and "x-litellm-response-cost" not in headers
    assert text.endswith("\n\n")
    lines = [line.removeprefix("data: ") for line in text.split("\n\n")[:-1]]
    assert lines[-1] == "[DONE]"
    first, *middle, last, usage = [read(line) for line in lines[:-1]]
    chunk = {"id": str, "created": int, "model": exactly("mock-fast"), "object": exactly("chat.completion.chunk")}
    delta = {"index": exactly(0), "delta": {"content": str, "role": exactly("assistant")}}
    check({**chunk, "choices": [{**delta, "finish_reason": maybe(str)}]}, _with_reason(first))
    for each in middle:
        check(
            {**chunk, "choices": [{"index": int, "delta": {"content": str}, "finish_reason": maybe(str)}]},
            _with_reason(each),
        )
    check({**chunk, "choices": [{"index": int, "delta": exactly({}), "finish_reason": exactly("stop")}]}, last)
    check({**chunk, "choices": exactly([]), "usage": {**USAGE, "cost": money}}, usage)
    assert str(usage["usage"]["cost"]) == "0.00005"
    assert {each["id"] for each in (first, *middle, last, usage)} == {first["id"]}


def _with_reason(chunk: dict[str, Any]) -> dict[str, Any]:
    """The recorded proxy leaves `finish_reason` out before the end, OpenAI sends null: either will do."""
    return {**chunk, "choices": [{"finish_reason": None, **choice} for choice in chunk["choices"]]}


async def test_a_text_completion_and_an_embedding(world: World) -> None:
    body = {"model": "mock-fast", "prompt": "Say hello.", "max_tokens": 20}
    answer = await world.ask("POST", "/v1/completions", body, key=world.key["key"])
    assert answer["object"] == "text_completion" and answer["model"] == "mock-fast"
    check(USAGE, answer["usage"])
    assert isinstance(answer["choices"][0]["text"], str)
    answer = await world.ask(
        "POST", "/v1/embeddings", {"model": "mock-fast", "input": ["a", "b"]}, key=world.key["key"]
    )
    row = {"object": exactly("embedding"), "index": int, "embedding": [number]}
    check([row], answer["data"])
    assert answer["object"] == "list" and [len(each["embedding"]) for each in answer["data"]] == [8, 8]


async def _rows(world: World, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = await world.ask("GET", f"/spend/logs?user_id={world.user_id}&summarize=false")
        return len(found) >= count

    await eventually(are_there)
    return found


async def test_the_rows_of_calls(world: World) -> None:
    key = await world.ask("POST", "/key/generate", {"key_alias": "for rows", "max_budget": 1}, key=world.session)
    body = {**CHAT, "user": "end-user-7", "metadata": {"tags": ["t1"]}}
    await world.ask("POST", "/v1/chat/completions", body, key=key["key"])
    await world.ask("POST", "/v1/chat/completions", {"model": "mock-fast"}, key=key["key"])
    rows: list[dict[str, Any]] = []

    async def are_there() -> bool:
        rows[:] = await world.ask("GET", f"/spend/logs?api_key={key['token']}&summarize=false")
        return len(rows) == 2

    await eventually(are_there)
    check([SPEND_ROW], rows)
    failed, succeeded = sorted(rows, key=lambda row: str(row["status"]))
    assert (failed["status"], failed["spend"], failed["total_tokens"]) == ("failure", 0, 0)
    assert failed["metadata"]["error_information"]["error_code"] == "400"
    assert str(succeeded["spend"]) == "0.00005" and succeeded["metadata"]["error_information"] is None
    assert (succeeded["prompt_tokens"], succeeded["completion_tokens"], succeeded["total_tokens"]) == (10, 20, 30)
    costs = {name: str(cost) for name, cost in succeeded["metadata"]["cost_breakdown"].items()}
    assert costs == {"input_cost": "0.00001", "output_cost": "0.00004", "total_cost": "0.00005"}
    assert (succeeded["model"], succeeded["model_group"]) == ("openai/mock-fast", "mock-fast")
    assert succeeded["custom_llm_provider"] == "openai" and succeeded["end_user"] == "end-user-7"
    assert succeeded["request_tags"] == ["t1", "User-Agent: curl", "User-Agent: curl/7.88.1"]
    assert succeeded["cache_hit"] == "False" and succeeded["metadata"]["user_agent"] == "curl/7.88.1"
    assert succeeded["metadata"]["user_api_key_user_email"] == "ada@example.test"
    assert succeeded["metadata"]["user_api_key_alias"] == "for rows"


async def test_the_sums_of_days(world: World) -> None:
    row = (await _rows(world, 1))[0]
    day = row["startTime"][:10]
    sums = await world.ask("GET", f"/spend/logs?start_date={day}&end_date={day}")
    hashes = {name: money for name in sums[0] if HASH.fullmatch(name)}
    shape = {"startTime": exactly(day), "spend": money, "users": dict, "models": dict, **hashes}
    check([shape], sums)
    (only,) = sums
    assert only["users"][world.user_id] and hashes
    for amounts in (only["users"].values(), only["models"].values(), [only[name] for name in hashes]):
        assert all(money(each) for each in amounts)
        assert sum(map(amount, amounts)) == amount(only["spend"])


async def test_what_a_key_and_a_user_have_spent(world: World) -> None:
    """Exact: no float noise however many are added up (D19)."""
    key = await world.ask("POST", "/key/generate", {"max_budget": 1}, key=world.session)
    for _ in range(3):
        await world.ask("POST", "/v1/chat/completions", CHAT, key=key["key"])

    async def is_shown() -> bool:
        info = (await world.ask("GET", f"/key/info?key={key['key_id']}"))["info"]
        return (str(info["spend"]), str(info["total_spend"])) == ("0.00015", "0.00015") and info["last_active"]

    await eventually(is_shown)
    info = await world.ask("GET", "/user/info", key=world.session)
    check(USER_INFO, info)
    assert isinstance(info["user_info"]["spend"], Number)


async def test_a_budget(world: World) -> None:
    window = {
        "budget_duration": exactly("1d"),
        "window_start": TIME,
        "window_end": TIME,
        "limit": money,
        "spent": money,
        "presumed": money,
        "leased": money,
        "remaining": money,
        "pending_limit": maybe(money),
    }
    scope = f"key:{world.key['key_id']}"
    budget = await world.ask("GET", f"/keystead/v1/budgets/{scope}", key=world.session)
    check({"scope": exactly(scope), "enforcement": exactly("strict"), "windows": [window]}, budget)
    (only,) = budget["windows"]
    assert amount(only["remaining"]) == amount(only["limit"]) - amount(only["spent"]) - amount(only["leased"])


async def test_health(world: World) -> None:
    services = dict.fromkeys(["identity", "invitations", "keys", "budgets", "gateway"], exactly("healthy"))
    ready = {
        "status": exactly("healthy"),
        "db": exactly("connected"),
        "nats": exactly("connected"),
        "services": services,
    }
    for path in ("/health/readiness", "/readyz"):
        check(ready, await world.ask("GET", path, key=None))
    for path in ("/health/liveliness", "/health/liveness", "/livez"):
        text, _ = await world.text("GET", path, key=None)
        assert text == '"I\'m alive!"'
    deployment = {"model": str, "model_id": str}
    counts = {"healthy_count": int, "unhealthy_count": int}
    health = await world.ask("GET", "/health")
    check({"healthy_endpoints": [deployment], "unhealthy_endpoints": [{**deployment, "error": str}], **counts}, health)


async def test_metrics_name_no_person_and_no_key(world: World) -> None:
    text, headers = await world.text("GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    for name in ("litellm_spend_metric", "litellm_total_tokens_metric", "litellm_proxy_total_requests_metric"):
        assert f"# TYPE {name}" in text
    assert "ada@example.test" not in text and world.key["key"] not in text


# Errors as they were recorded, in the one shape of §1.4.


async def test_recorded_errors(world: World) -> None:
    chat = {"model": "mock-fast"}
    for method, path, body, key, wanted in (
        ("GET", "/v1/models", None, None, ("401", "auth_error", None)),
        ("GET", "/key/info?key=sk-doesnotexist", None, "sk-doesnotexist", ("401", "token_not_found_in_db", "key")),
        ("POST", "/v1/chat/completions", chat, world.key["key"], ("400", "invalid_request_error", "messages")),
        ("GET", "/user/list", None, world.session, ("403", "auth_error", None)),
        (
            "POST",
            "/key/update",
            {"key": world.key["key"], "max_budget": 0.5},
            world.session,
            ("403", "auth_error", "max_budget"),
        ),
    ):
        error = (await world.ask(method, path, body, key=key))["error"]
        assert (error["code"], error["type"], error["param"]) == wanted, error
    weak = world.answers["weak"]["error"]
    assert (weak["code"], weak["type"], weak["param"]) == ("400", "validation_error", "password")


async def test_the_contracts_own_example_of_an_error(world: World) -> None:
    body = {"key_alias": "too-big", "max_budget": 100000}
    assert await world.ask("POST", "/key/generate", body, key=world.session) == {
        "error": {
            "message": "max_budget is over the upper bound: 100000 > 100",
            "type": "invalid_request_error",
            "param": "max_budget",
            "code": "400",
            "reason": "over_upper_bound",
        }
    }


async def test_money_is_answered_to_the_nano(world: World) -> None:
    """Rounded half-even to nine decimals, and never written as a float would be."""
    for sent, told in (
        ("0.1", "0.1"),
        ("0.00005", "0.00005"),
        ("4.9999999999999996e-05", "0.00005"),
        ("0.0000000005", "0"),
        ("0.0000000015", "0.000000002"),
        ("1e-9", "0.000000001"),
        ("99.999999999", "99.999999999"),
        ("33.0", "33"),
        ('"0.30"', "0.3"),
        ('"1e1"', "10"),
    ):
        data = f'{{"max_budget": {sent}, "auto_create_key": false}}'
        headers = {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"}
        async with world.it.http.post(f"{world.it.url}/user/new", data=data, headers=headers) as response:
            text = await response.text()
        assert re.search(rf'"max_budget":{re.escape(told)}[,}}]', text), (sent, text)
