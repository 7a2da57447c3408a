"""Answers about users, invitations, log-ins and keys, field by field (contract §3, §1.3): what is promised, no more.

Where the contract is silent a recorded answer of LiteLLM's holds; the fields here were written out from both. Those of
models, calls and spend stand in ``test_shapes_calls.py``.
"""

import json
import re
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.installation import BASE_URL, PASSWORD, claims_of
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
    UPDATED_KEY,
    USER,
    USER_INFO,
)
from tests.support.shapes import HASH, TIME, UUID, check, exactly, maybe, read
from tests.support.shapes_world import World, shapes_world

JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with shapes_world() as made:
        yield made


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
    assert len(keys["keys"]) == 2, "sessions' and that of what /keystead/v1/verify answers"


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
