"""Who is refused, in which order, and how it is told (contract §1.2, §1.4).

What the rules refuse stands in ``test_errors_rules.py``, calls in ``test_errors_calls.py``, bodies and fields in
``test_errors_bodies.py``, ``test_errors_fields.py`` and ``test_errors_queries.py``.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared.secret import draw_key
from tests.support.errors_world import CALL, UNKNOWN, World, errors_world, keyed
from tests.support.flow import CHAT
from tests.support.installation import BASE_URL, MASTER_KEY, claims_of, installation
from tests.support.refusals import read_refusal, refused, refused_raw
from tests.support.routes import routes_of

OPEN = frozenset(
    """
    /v2/login /logout /onboarding/get_token /onboarding/claim_token /.well-known/jwks.json /openapi.json
    /health/liveliness /health/liveness /livez /health/readiness /readyz
    """.split()
)
# §1.4: unknown, deleted, ended; expired; blocked; a JWT that is not valid.
BAD_CREDENTIALS = {
    "blocked": "key_blocked",
    "expired": "key_expired",
    "no JWT of ours": "jwt_invalid",
    "a forged JWT": "jwt_invalid",
    **dict.fromkeys(
        [
            "deleted",
            "of a deleted user",
            "unknown",
            "mistyped",
            "unknown of another make",
            "nonsense",
            "an ended session",
            "the JWT of an ended session",
            "too long",
        ],
        "key_unknown",
    ),
}


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with errors_world() as made:
        yield made


async def test_every_protected_route_asks_for_a_credential_first(world: World) -> None:
    """401 whatever the body: a broken one is not even looked at (§1.2)."""
    for served in routes_of(world.it):
        path = served.route.path
        if path in OPEN:
            continue
        refusal = await world.refused(served.method, path, key=None)
        assert (refusal.status, refusal.reason, refusal.param) == (401, "credentials_missing", None), path
        if served.method == "POST":
            broken = await refused_raw(world.it, path, b'{"a": ', key=None, headers={"Content-Type": "text/plain"})
            assert broken == refusal, path


@pytest.mark.parametrize("name", BAD_CREDENTIALS)
async def test_every_protected_route_refuses_a_bad_credential(world: World, name: str) -> None:
    for served in routes_of(world.it):
        path = served.route.path
        if path in OPEN:
            continue
        refusal = await refused(world.it, served.method, path, key=world.bad[name])
        assert (refusal.status, refusal.reason) == (401, BAD_CREDENTIALS[name]), path
        if refusal.reason == "key_unknown":
            assert refusal.param == "key"
        assert world.bad[name] not in refusal.message


async def test_the_credential_of_an_invitation_is_good_for_nothing_else(world: World) -> None:
    opened = await world.it.ok("GET", f"/onboarding/get_token?invite_link={world.links['open']}", key=None)
    for credential in (opened["token"], claims_of(opened["token"])["key"]):
        refusal = await world.refused("GET", "/keystead/v1/me", key=credential)
        assert refusal.reason in ("jwt_invalid", "key_unknown")


async def test_a_credential_is_found_in_the_contracts_order_and_a_bad_one_not_skipped(world: World) -> None:
    """§1.2: the named header, Authorization, x-api-key, api-key, the cookie."""
    names = ["X-Litellm-Key", "Authorization", "x-api-key", "api-key"]
    good, bad = world.key["key"], draw_key().key
    for place, name in enumerate(names):
        for value in (good, f"Bearer {good}", f"bEaReR  {good}"):
            assert await world.it.ok("GET", "/v1/models", key=None, headers={name: value}), name
        headers = {name: bad, **dict.fromkeys(names[place + 1 :], good), "Cookie": f"token={world.dora.jwt}"}
        refusal = await refused(world.it, "GET", "/v1/models", key=None, headers=headers)
        assert refusal.reason == "key_unknown", name
    for cookie in (world.dora.jwt, world.dora.session):
        me = await world.it.ok("GET", "/keystead/v1/me", key=None, headers={"Cookie": f"token={cookie}"})
        assert me["credential"]["kind"] == "session"
    assert (await world.it.ok("GET", "/keystead/v1/me", key=world.dora.jwt))["user_id"] == world.dora.user_id


async def test_a_change_by_cookie_must_come_from_the_site_itself(world: World) -> None:
    cookie = {"Cookie": f"token={world.dora.jwt}"}
    for headers in (
        {},
        {"Origin": "https://elsewhere.test"},
        {"Origin": "null"},
        {"Origin": f"{BASE_URL}.elsewhere.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": BASE_URL},
    ):
        for path in ("/key/generate", "/session/logout", "/key/delete"):
            refusal = await refused(world.it, "POST", path, {}, key=None, headers={**cookie, **headers})
            assert (refusal.status, refusal.reason) == (403, "csrf"), (path, headers)
    for headers in ({"Origin": BASE_URL}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert await world.it.ok("POST", "/key/generate", {}, key=None, headers={**cookie, **headers})
    assert await world.it.ok("GET", "/keystead/v1/me", key=None, headers={**cookie, "Sec-Fetch-Site": "cross-site"})


# The order: credential, role, body, object, rules.

BROKEN = b'{"key": '


async def test_a_role_that_may_not_at_all_is_refused_before_the_body_is_read(world: World) -> None:
    changes = [
        served.route.path
        for served in routes_of(world.it)
        if served.method == "POST" and served.route.path not in {*OPEN, "/session/logout"}
    ]
    for path in changes:
        if "completions" in path or "embeddings" in path:
            continue
        refusal = await refused_raw(world.it, path, BROKEN, key=world.vera.session)
        assert (refusal.status, refusal.reason) == (403, "role_not_allowed"), path
        refusal = await refused_raw(world.it, path, BROKEN, key=MASTER_KEY)
        assert (refusal.status, refusal.reason) == (400, "json_malformed"), path


async def test_the_body_is_looked_at_before_the_object(world: World) -> None:
    for path, body in (
        ("/user/update", {"user_id": UNKNOWN, "max_budget": -1}),
        ("/key/update", {"key": UNKNOWN, "max_budget": -1}),
        ("/key/block", {"key": UNKNOWN, "x": 1}),
        ("/invitation/new", {"user_id": UNKNOWN, "duration": "x"}),
        ("/user/delete", {"user_ids": [UNKNOWN], "x": 1}),
    ):
        assert (await world.refused("POST", path, body)).status == 400, path


async def test_the_object_is_looked_at_before_the_rules(world: World) -> None:
    over = {"max_budget": 100000}
    for who, path, body, reason in (
        (MASTER_KEY, "/key/update", {"key": UNKNOWN, **over}, "not_found"),
        (world.ada.session, "/key/update", {"key": world.key["token"], **over}, "not_yours"),
        (world.ada.session, "/key/generate", {"user_id": world.dora.user_id, **over}, "not_yours"),
        (world.ada.session, "/user/update", {"user_id": world.dora.user_id, "models": ["nothing"]}, "not_yours"),
        (MASTER_KEY, "/user/update", {"user_id": UNKNOWN, "models": ["nothing"]}, "not_found"),
        (MASTER_KEY, "/key/update", {"key": UNKNOWN, "models": ["nothing"]}, "not_found"),
        (MASTER_KEY, "/key/generate", {"user_id": UNKNOWN, **over}, "not_found"),
    ):
        assert (await world.refused("POST", path, body, key=who)).reason == reason, (path, body)


async def test_the_upper_bound_is_looked_at_before_what_the_caller_has(world: World) -> None:
    refusal = await world.refused("POST", "/key/generate", {"max_budget": 100000}, key=world.weak_key["key"])
    assert refusal.reason == "over_upper_bound"


async def test_the_checks_of_a_call_stand_in_the_contracts_order(world: World) -> None:
    """§5.3."""
    reading = await keyed(world, key_type="read_only")
    poor = await keyed(world, max_budget=0, models=["mock-fast", "unpriced"])
    blocked = world.bad["blocked"]
    await _expect(world, blocked, b"{", "key_blocked")
    await _expect(world, world.bad["expired"], b"{", "key_expired")
    await _expect(world, reading, b"{", "key_type_not_allowed")
    await _expect(world, world.dora.session, b"{", "role_not_allowed")
    await _expect(world, poor, b'{"model": "nothing"}', "field_missing")
    for body, reason in (
        ({**CHAT, "model": "nothing", "service_tier": "priority"}, "model_not_allowed"),
        ({**CHAT, "model": "unpriced", "service_tier": "priority"}, "price_unknown"),
        ({**CHAT, "service_tier": "priority"}, "parameter_unpriced"),
        (CHAT, "budget_exceeded"),
    ):
        assert (await world.refused("POST", CALL, body, key=poor)).reason == reason


async def _expect(world: World, key: str, raw: bytes, reason: str) -> None:
    assert (await refused_raw(world.it, CALL, raw, key=key)).reason == reason


# Shapes and headers.


async def test_own_routes_answer_with_problems(world: World) -> None:
    """RFC 9457, for every status; `read_refusal` looks at the rest."""
    resend = f"/keystead/v1/invitations/{world.links['used ref']}/resend"
    for request, reason in (
        (("GET", "/keystead/v1/me?x=1", MASTER_KEY), "field_unknown"),
        (("GET", "/keystead/v1/me", None), "credentials_missing"),
        (("GET", "/keystead/v1/me", world.bad["blocked"]), "key_blocked"),
        (("GET", "/keystead/v1/me", world.bad["expired"]), "key_expired"),
        (("GET", "/keystead/v1/invitations", world.ada.session), "role_not_allowed"),
        (("GET", "/keystead/v1/budgets/proxy", world.ada.session), "not_yours"),
        (("GET", "/keystead/v1/budgets/key:x", MASTER_KEY), "not_found"),
        (("GET", "/keystead/v1/nothing", MASTER_KEY), "route_unknown"),
        (("DELETE", "/keystead/v1/me", MASTER_KEY), "method_not_allowed"),
        (("POST", resend, MASTER_KEY), "invitation_not_resendable"),
    ):
        method, path, key = request
        assert (await world.refused(method, path, key=key)).reason == reason, request
    assert (await refused_raw(world.it, resend, b"{")).reason == "json_malformed"
    assert (await refused_raw(world.it, resend, b"{}", headers={"Content-Type": "text/plain"})).reason == "media_type"


async def test_unknown_routes_and_wrong_methods_are_told_apart_with_and_without_a_credential(world: World) -> None:
    for key in (None, MASTER_KEY, world.bad["unknown"]):
        for path in ("/team/new", "/nothing", "/user", "/user/new/", "//user/new", "/keystead/v1/teams"):
            assert (await world.refused("POST", path, {}, key=key)).reason == "route_unknown", path
        for method, path, allowed in (
            ("GET", "/key/generate", {"POST"}),
            ("DELETE", "/logout", {"GET", "POST"}),
            ("PUT", "/v1/models", {"GET"}),
            ("PATCH", "/keystead/v1/budgets/proxy", {"GET"}),
        ):
            status, answer, headers = await world.it.request(method, path, key=key)
            assert read_refusal(path, status, answer, headers).reason == "method_not_allowed"
            assert {name.strip() for name in headers["Allow"].split(",")} >= allowed


async def test_a_request_id_is_the_clients_if_it_is_safe(world: World) -> None:
    for path in ("/v1/models", "/nothing", "/keystead/v1/nothing"):
        for given, kept in (("a-1.b:c/d", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False)):
            _, _, headers = await world.it.request("GET", path, headers={"x-request-id": given})
            assert (headers["x-request-id"] == given) == kept, given


async def test_a_call_id_is_never_the_clients(world: World) -> None:
    given = str(uuid.uuid4())
    for method, path, body in (("GET", "/user/list", None), ("POST", CALL, CHAT)):
        headers = {"x-litellm-call-id": given}
        _, _, answered = await world.it.request(method, path, body, key=world.adas_key["key"], headers=headers)
        assert answered["x-litellm-call-id"] != given


async def test_what_another_service_must_say_is_unavailable_while_it_is_away() -> None:
    """503 with `Retry-After`, and for money its own reason."""
    async with installation() as it:
        key = (await it.ok("POST", "/key/generate", {}))["key"]
        await it.ok("POST", CALL, CHAT, key=key)
        brokers = [it.running(name).wire.broker for name in ("keys", "budgets")]
        for broker in brokers:
            await broker.stop()
        user, call = await asyncio.gather(refused(it, "GET", "/user/info"), refused(it, "POST", CALL, CHAT, key=key))
        assert (user.status, user.reason) == (503, "unavailable")
        assert (call.status, call.reason) == (503, "budgets_unavailable")
        status, answer = await it.call("GET", "/health/readiness", key=None)
        assert (status, answer["status"]) == (503, "unhealthy")
        assert answer["services"]["keys"] == "unhealthy" and answer["services"]["identity"] == "healthy"
        assert await it.ok("GET", "/livez", key=None) == "I'm alive!"
        for broker in brokers:
            await broker.start()
