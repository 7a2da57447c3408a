"""Credentials over HTTP: every way to send one, what each is, and who is asked about it (§1.2)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from shared.secret import draw_key, draw_session
from tests.support.gateway_world import World, gateway_world, listening, model
from tests.support.installation import BASE_URL, MASTER_KEY, Person

OWN_HEADER = "X-Our-Key"
NOBODYS = "sk-nobody-has-ever-had-this-key"


@pytest_asyncio.fixture(scope="module")
async def world(provider: str) -> AsyncIterator[World]:
    content = {"general_settings": {"litellm_key_header_name": OWN_HEADER}}
    async with gateway_world(provider, [model("paid", provider)], content) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def ada(world: World) -> Person:
    return await world.it.invite()


async def me(world: World, **headers: str) -> tuple[int, Any]:
    """Who a request with these headers is by: the user, or the reason why nobody."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer = await world.it.call("GET", "/keystead/v1/me", key=None, headers=named)
    if status == 200:
        return status, answer["user_id"]
    return status, answer["type"].removeprefix("urn:keystead:problem:")


# Every way to send one


async def test_a_key_may_be_sent_in_four_headers(world: World) -> None:
    key = await world.key()
    for name in ("authorization", "x-api-key", "api-key", OWN_HEADER):
        for value in (key.key, f"Bearer {key.key}", f"bearer {key.key}"):
            assert await me(world, **{name: value}) == (200, key.user_id)


async def test_the_first_place_that_holds_a_credential_counts_and_a_bad_one_is_not_skipped(
    world: World, ada: Person
) -> None:
    key = await world.key()
    cookie = f"token={ada.jwt}"
    everywhere = {OWN_HEADER: "", "authorization": "", "x-api-key": "", "api-key": "", "cookie": cookie}
    assert await me(world, **everywhere) == (200, ada.user_id)
    for name in ("api-key", "x-api-key", "authorization", OWN_HEADER):
        everywhere[name] = key.key
        assert await me(world, **everywhere) == (200, key.user_id)
        everywhere[name] = NOBODYS
        assert await me(world, **everywhere) == (401, "key_unknown")


async def test_a_request_without_a_credential_is_refused_whatever_its_body(world: World) -> None:
    for path in ("/v1/chat/completions", "/key/generate"):
        async with world.it.http.post(world.it.url + path, data=b"no json") as response:
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert (await response.json())["error"]["reason"] == "credentials_missing"


async def test_a_session_is_a_credential_as_itself_as_its_jwt_and_as_a_cookie(world: World, ada: Person) -> None:
    for headers in (
        {"authorization": f"Bearer {ada.session}"},
        {"authorization": f"Bearer {ada.jwt}"},
        {"x-api-key": ada.jwt},
        {"cookie": f"token={ada.jwt}"},
        {"cookie": f"token={ada.session}"},
    ):
        assert await me(world, **headers) == (200, ada.user_id)


async def test_the_master_key_is_an_admin(world: World) -> None:
    assert await me(world, authorization=f"Bearer {MASTER_KEY}") == (200, "default_user_id")
    assert await me(world, authorization=f"Bearer {MASTER_KEY}x") == (401, "key_unknown")


async def test_who_claims_to_act_for_another_acts_for_themselves(world: World) -> None:
    key = await world.key()
    headers = {"authorization": key.key, "litellm-changed-by": "default_user_id", "x-keystead-principal": "admin"}
    assert await me(world, **headers) == (200, key.user_id)


# Bad ones


async def test_jwts_that_are_not_ours_are_not_valid(world: World, ada: Person) -> None:
    header, claims, signature = ada.jwt.split(".")
    unsigned = "eyJhbGciOiJub25lIn0"
    forged = signature[:-4] + ("AAAA" if not signature.endswith("AAAA") else "BBBB")
    senseless = "eyJhbGciOiJFZERTQSIsImNyaXQiOjV9"  # {"alg":"EdDSA","crit":5}
    texts = (f"{header}.{claims}.{forged}", f"{unsigned}.{claims}.", f"{senseless}.{claims}.{signature}")
    for text in (*texts, f"{header}.{claims}.", "a.b.c", ".."):
        assert await me(world, authorization=f"Bearer {text}") == (401, "jwt_invalid")
        assert await me(world, x_keystead_visitor=text) == (401, "credentials_missing")


async def test_a_session_that_was_logged_out_is_unknown_in_all_its_forms(world: World) -> None:
    person = await world.it.invite()
    await world.it.ok("POST", "/session/logout", {}, key=person.session)
    for text in (person.session, person.jwt):
        assert await me(world, authorization=f"Bearer {text}") == (401, "key_unknown")


async def test_what_no_credential_looks_like_is_unknown(world: World) -> None:
    for text in ("x", "sk-", "Basic YTpi", "sk-" + "x" * 5000, "sk-\u00e4\u00f6", "sk-kss1_short", "a b c"):
        assert await me(world, authorization=text) == (401, "key_unknown")


async def test_a_mistyped_key_is_refused_without_a_look_up(world: World) -> None:
    key = (await world.key()).key
    swapped = key[:-8] + key[-7] + key[-8] + key[-6:]
    mistyped = [key[:-1] + ("0" if key[-1] != "0" else "1"), key[:-1], key + "0", key.replace("ks1_", "ks1_0", 1)]
    async with listening(world.it, "keys", "FindKey") as asked:
        for text in mistyped + ([swapped] if swapped != key else []):
            assert await me(world, authorization=f"Bearer {text}") == (401, "key_unknown")
        assert await asked.count() == 0
        for text in (draw_key().key, NOBODYS):
            assert await me(world, authorization=f"Bearer {text}") == (401, "key_unknown")
        assert await asked.count() == 2


async def test_a_key_in_use_is_looked_up_once(world: World) -> None:
    key = await world.key()
    async with (
        listening(world.it, "keys", "FindKey") as of_keys,
        listening(world.it, "identity", "FindUser") as of_users,
    ):
        for _ in range(5):
            assert (await world.call(key, max_tokens=1)).status == 200
        assert (await of_keys.count(), await of_users.count()) == (1, 1)


async def test_a_session_is_looked_up_by_its_hash_and_never_sent_itself(world: World) -> None:
    session = draw_session()
    async with listening(world.it, "identity", "FindSession") as asked:
        assert await me(world, authorization=f"Bearer {session}") == (401, "key_unknown")
        assert await asked.count() == 1
    assert session not in str(asked.questions)


# What a credential may not do


async def test_a_change_by_cookie_must_come_from_the_site_itself(world: World, ada: Person) -> None:
    cookie = {"cookie": f"token={ada.jwt}"}

    async def generate(**headers: str) -> tuple[int, str | None]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answer = await world.it.call("POST", "/key/generate", {}, key=None, headers={**cookie, **named})
        return status, answer["error"]["reason"] if status != 200 else None

    for headers in (
        {},
        {"sec_fetch_site": "cross-site"},
        {"origin": "https://evil.test"},
        {"sec_fetch_site": "same-site", "origin": BASE_URL},
    ):
        assert await generate(**headers) == (403, "csrf")
    assert await generate(sec_fetch_site="same-origin") == (200, None)
    assert await generate(origin=BASE_URL) == (200, None)
    # A header is sent by who means it: no site can make a browser add it.
    elsewhere = {"origin": "https://evil.test"}
    assert (await world.it.call("POST", "/key/generate", {}, key=ada.session, headers=elsewhere))[0] == 200


async def test_a_session_calls_no_model(world: World, ada: Person) -> None:
    assert (await world.call(ada.session)).told == (403, "role_not_allowed")
    assert (await world.it.ok("GET", "/v1/models", key=ada.session))["data"]


async def test_a_key_does_what_its_type_allows(world: World) -> None:
    user_id = await world.user(user_role="proxy_admin")
    told = {}
    for key_type in ("default", "llm_api", "management", "read_only"):
        key = await world.key(user_id=user_id, key_type=key_type)
        generated, _ = await world.it.call("POST", "/key/generate", {"user_id": user_id}, key=key.key)
        listed, _ = await world.it.call("GET", "/key/list", key=key.key)
        models, _ = await world.it.call("GET", "/v1/models", key=key.key)
        told[key_type] = ((await world.call(key, max_tokens=1)).status, generated, listed, models)
    assert told == {
        "default": (200, 200, 200, 200),
        "llm_api": (200, 403, 403, 200),
        "management": (403, 200, 200, 200),
        "read_only": (403, 403, 200, 200),
    }


async def test_a_key_of_a_viewer_calls_models_and_changes_nothing(world: World) -> None:
    user_id = await world.user(user_role="internal_user_viewer")
    key = await world.key(user_id=user_id)
    assert (await world.call(key, max_tokens=1)).status == 200
    status, answer = await world.it.call("POST", "/key/generate", {}, key=key.key)
    assert (status, answer["error"]["reason"]) == (403, "role_not_allowed")


async def test_a_key_that_expires_is_refused_from_that_second_on(world: World) -> None:
    key = await world.key(duration="1s")
    told = set()
    while (answer := await world.call(key, max_tokens=1)).status == 200:
        told.add(answer.told)
    assert answer.told == (401, "key_expired")
    assert answer.body["error"]["type"] == "expired_key"
    assert told == {(200, None)}
