"""How the gaps of a new user are filled: the request, the default parameters, the internal user's budget (§5.9)."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from keystead.app import compose
from services.identity import handlers
from services.identity.domain.user import DEFAULT_USER_ID, stream_of
from services.identity.service import SERVICE as IDENTITY
from shared.event_store import Transaction
from tests.support.identity import USER_FIELDS, new_user, replica_with, types_of, user_info
from tests.support.installation import Installation, connections_to, database, installation, keyring, settings

BUDGET = {"max_internal_user_budget": 9, "internal_user_budget_duration": "30d"}
RATES = {"tpm_limit": 1000, "rpm_limit": 10, "max_parallel_requests": 2}
DEFAULTS: dict[str, Any] = {
    "default_internal_user_params": {
        "user_role": "internal_user",
        "max_budget": 5,
        "budget_duration": "7d",
        "models": ["mock-fast"],
        **RATES,
    }
}
ROLE_ONLY = {"default_internal_user_params": {"user_role": "internal_user"}}
ADMIN_DEFAULT = {
    "default_internal_user_params": {**DEFAULTS["default_internal_user_params"], "user_role": "proxy_admin"}
}

NO_LIMITS: dict[str, Any] = {"max_budget": None, "budget_duration": None, "models": []} | dict.fromkeys(RATES)
ALL_DEFAULTS: dict[str, Any] = {"max_budget": 5, "budget_duration": "7d", "models": ["mock-fast"], **RATES}
VIEWER = {"user_role": "internal_user_viewer"}
INTERNAL = {"user_role": "internal_user"}
ADMIN = {"user_role": "proxy_admin"}

# What is set, what is said, what comes of it.
FILLED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing set, nothing said": ({}, {}, VIEWER | NO_LIMITS),
    "the budget is for internal users, and by default one is a viewer": (BUDGET, {}, VIEWER | NO_LIMITS),
    "an internal user gets it": (BUDGET, INTERNAL, INTERNAL | NO_LIMITS | {"max_budget": 9, "budget_duration": "30d"}),
    "other roles do not": (BUDGET, {"user_role": "proxy_admin_viewer"}, NO_LIMITS),
    "what is said comes first": (
        BUDGET,
        INTERNAL | {"max_budget": 1, "budget_duration": "1d"},
        {"max_budget": 1, "budget_duration": "1d"},
    ),
    "each field for itself": (BUDGET, INTERNAL | {"max_budget": 1}, {"max_budget": 1, "budget_duration": "30d"}),
    "zero is something said": (BUDGET, INTERNAL | {"max_budget": 0}, {"max_budget": 0}),
    "null is something said, and is no limit": (BUDGET, INTERNAL | {"max_budget": None}, {"max_budget": None}),
    "the default parameters fill everything": (DEFAULTS, {}, INTERNAL | ALL_DEFAULTS),
    "they come before the internal user's budget": (DEFAULTS | BUDGET, {}, INTERNAL | ALL_DEFAULTS),
    "which fills what they leave": (ROLE_ONLY | BUDGET, {}, INTERNAL | {"max_budget": 9, "budget_duration": "30d"}),
    "they are for viewers, too": (DEFAULTS, VIEWER, VIEWER | ALL_DEFAULTS),
    "and not for admins": (DEFAULTS | BUDGET, ADMIN, ADMIN | NO_LIMITS),
    "nor where they make one": (ADMIN_DEFAULT | BUDGET, {}, ADMIN | NO_LIMITS),
    "what is said comes before them": (
        DEFAULTS,
        {"max_budget": 2, "models": ["mock-priced"]},
        ALL_DEFAULTS | {"max_budget": 2, "models": ["mock-priced"]},
    ),
    "an empty list is something said, and is all": (DEFAULTS, {"models": []}, {"models": []}),
}

UPPER = {"max_budget": 3, "duration": "30d", "tpm_limit": 500}


@pytest.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation({"litellm_settings": {"upperbound_key_generate_params": UPPER}}) as running:
        yield running


@pytest.mark.parametrize("case", FILLED)
async def test_a_new_users_gaps_are_filled_in_order(it: Installation, case: str) -> None:
    configured, said, expected = FILLED[case]
    async with replica_with(it, {"litellm_settings": configured}) as replica:
        user = await new_user(replica, **said)
    assert {name: user[name] for name in expected} == expected
    assert await user_info(it, user["user_id"]) == {name: user[name] for name in USER_FIELDS}


async def test_the_first_key_has_what_the_upper_bounds_give_and_nothing_of_the_users(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"max_budget": 50, "budget_duration": "1d"})
    key = (await it.ok("GET", f"/key/info?key={user['token']}"))["info"]
    assert (key["max_budget"], key["tpm_limit"], key["budget_duration"]) == (3, 500, None)
    assert key["expires"] == user["expires"]
    life = datetime.fromisoformat(key["expires"]) - datetime.fromisoformat(key["created_at"])
    assert life == timedelta(days=30)


async def test_the_first_key_of_an_admin_is_bounded_too(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", ADMIN)
    assert (await it.ok("GET", f"/key/info?key={user['token']}"))["info"]["max_budget"] == 3


# The master key's user (D11)


async def test_the_master_keys_user_is_there_from_the_first_start(it: Installation) -> None:
    user = (await it.ok("GET", "/user/info"))["user_info"]
    assert (user["user_id"], user["user_role"], user["user_email"]) == (DEFAULT_USER_ID, "proxy_admin", None)
    assert {name: user[name] for name in NO_LIMITS} == NO_LIMITS


async def test_starting_again_makes_no_second_one(it: Installation) -> None:
    async with replica_with(it, {}):
        await it.running("identity").run(handlers.ensure_default_user)
    assert await types_of(it, stream_of(DEFAULT_USER_ID)) == ["UserCreated"]


async def test_two_replicas_that_start_at_once_make_one_of_it() -> None:
    namespace, both_up = f"t{uuid.uuid4().hex[:10]}.", asyncio.Barrier(2)

    async def replica(owner_url: str) -> Sequence[str]:
        composition = compose([IDENTITY], settings(), connections_to(owner_url, namespace), keyring=keyring())
        running = composition.services["identity"]
        async with running.started():
            await both_up.wait()
            types = await running.run(_types)
            await both_up.wait()
            with suppress(NotFoundError):
                await running.wire.jetstream.delete_stream(running.wire.stream_of("identity"))
        return types

    async def _types(tx: Transaction) -> Sequence[str]:
        return (await tx.connection.exec_driver_sql("select type from events")).scalars().all()

    async with database() as owner_url:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            replicas = [group.create_task(replica(owner_url)) for _ in range(2)]
        assert [task.result() for task in replicas] == [["UserCreated"]] * 2
