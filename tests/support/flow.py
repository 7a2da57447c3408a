"""The self-serve flow with no pause between its steps: ``examples/self-serve.sh``, with every answer checked."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from tests.support.installation import PASSWORD, Client, claims_of

# With a cap of its own a call's worst case is the same however little is left (§3.7).
CHAT = {"model": "mock-fast", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}
# A mock's usage is fixed (§3.7): 3 + 4 + ⌈10 / 4⌉ tokens in, 20 out, at 1 and 2 USD a million.
PROMPT_TOKENS, COMPLETION_TOKENS = 10, 20
COST = 0.00005


@dataclass
class Made:
    """What the flow made on its way."""

    user_id: str
    email: str
    session: str
    key: str
    key_id: str
    token: str


async def self_serve(it: Client) -> Made:
    """Steps 1 to 7. Raises AssertionError at the first answer that is not the contract's."""
    made = await _key_of_a_new_person(it)
    await _call_models(it, made.key)
    await _see_the_spend(it, made)
    await _use_the_budget_up(it, made.key)
    await _end_the_key(it, made)
    return made


async def _key_of_a_new_person(it: Client) -> Made:
    email = f"ada.{uuid.uuid4().hex[:12]}@example.test"
    user = await it.ok(
        "POST", "/user/new", {"user_email": email, "user_role": "internal_user", "auto_create_key": False}
    )
    assert user["key"] == "" and user["user_email"] == email
    user_id = user["user_id"]
    invitation = await it.ok("POST", "/invitation/new", {"user_id": user_id})
    assert not invitation["is_accepted"] and invitation["status"] == "open"
    link = invitation["id"]

    opened = await it.ok("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    assert opened["user_email"] == email
    claimed = await it.ok(
        "POST",
        "/onboarding/claim_token",
        {"invitation_link": link, "user_id": user_id, "password": PASSWORD},
        key=claims_of(opened["token"])["key"],
    )
    assert claimed["user"]["user_id"] == user_id
    logged_in = await it.ok("POST", "/v2/login", {"username": email, "password": PASSWORD}, key=None)
    session = claims_of(logged_in["token"])["key"]

    key = await it.ok(
        "POST",
        "/key/generate",
        {"key_alias": f"laptop-{user_id}", "max_budget": 0.0003, "budget_duration": "1d", "duration": "30d"},
        key=session,
    )
    listed = await it.ok("GET", "/key/list", key=session)
    assert listed["keys"] == [key["token"]] and listed["total_count"] == 1
    info = await it.ok("GET", "/key/info", key=key["key"])
    assert info["key"] == key["token"] and info["info"]["user_id"] == user_id
    assert info["info"]["max_budget"] == 0.0003
    return Made(user_id, email, session, key["key"], key["key_id"], key["token"])


async def _call_models(it: Client, key: str) -> None:
    models = await it.ok("GET", "/v1/models", key=key)
    assert {model["id"] for model in models["data"]} == {"mock-fast", "mock-priced"}
    status, answer, headers = await it.request("POST", "/v1/chat/completions", CHAT, key=key)
    assert status == 200, answer
    assert answer["choices"][0]["message"]["content"].startswith("Hello from the mock model.")
    assert answer["model"] == "mock-fast"
    assert answer["usage"] == {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }
    assert headers["x-litellm-response-cost"] == "0.00005"
    assert headers["x-litellm-key-spend"] == "0.00005"
    status, text = await it.call("POST", "/v1/chat/completions", {**CHAT, "stream": True}, key=key)
    assert status == 200, text
    chunks = events_of(text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == (
        "Hello from the mock model. This is a canned answer."
    )


async def _see_the_spend(it: Client, made: Made) -> None:
    rows = await it.ok("GET", f"/spend/logs?user_id={made.user_id}&summarize=false", key=made.session)
    assert [row["spend"] for row in rows] == [COST, COST]
    assert {row["api_key"] for row in rows} == {made.token}
    assert {row["status"] for row in rows} == {"success"}
    assert rows[0]["prompt_tokens"] == PROMPT_TOKENS and rows[0]["completion_tokens"] == COMPLETION_TOKENS
    budget = await it.ok("GET", f"/keystead/v1/budgets/key:{made.key_id}", key=made.session)
    (window,) = budget["windows"]
    assert (window["limit"], window["spent"], window["leased"]) == (0.0003, 2 * COST, 0)


async def _use_the_budget_up(it: Client, key: str) -> None:
    """Four more calls of 0.00005 fit into what is left of 0.0003, and not one more."""
    for _ in range(4):
        status, answer = await it.call("POST", "/v1/chat/completions", CHAT, key=key)
        assert status == 200, answer
    status, answer, headers = await it.request("POST", "/v1/chat/completions", CHAT, key=key)
    assert (status, answer["error"]["reason"]) == (429, "budget_exceeded"), answer
    assert headers["x-should-retry"] == "false" and int(headers["Retry-After"]) > 0
    assert await it.ok("GET", "/v1/models", key=key)  # reading works without a budget


async def _end_the_key(it: Client, made: Made) -> None:
    blocked = await it.ok("POST", "/key/block", {"key": made.key})
    assert blocked["status"] == "revoked"
    assert await refusal(it, made.key) == (401, "key_blocked")
    await it.ok("POST", "/key/unblock", {"key": made.key})
    assert await refusal(it, made.key) == (429, "budget_exceeded")
    deleted = await it.ok("POST", "/key/delete", {"keys": [made.token]}, key=made.session)
    assert deleted == {"deleted_keys": [made.token]}
    assert await refusal(it, made.key) == (401, "key_unknown")


async def refusal(it: Client, key: str, url: str | None = None) -> tuple[int, str]:
    """How a call with this key is refused."""
    status, answer = await it.call("POST", "/v1/chat/completions", CHAT, key=key, url=url)
    return status, answer["error"]["reason"]


def events_of(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream that ended as it should."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]", text
    return [json.loads(line) for line in lines[:-1]]
