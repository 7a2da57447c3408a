"""What calls cost and what is left of a budget, over the routes: fields, filters, who may see what (§3.8, §5.10)."""

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest

from services.budgets import api, jobs, workers
from tests.support.budgets import NOON, USD
from tests.support.budgets_world import ADMIN, VIEWER, Caller, Key, World

LOGS = "/spend/logs"
DAY = timedelta(days=1)


async def ada(world: World) -> tuple[Caller, Key]:
    """A user with a key of her own."""
    user_id = await world.new_user()
    return Caller(user_id), await world.new_key(10 * USD, user_id=user_id)


async def refused(world: World, who: Caller, path: str, **query: Any) -> tuple[int, str, str | None]:
    status, answer, _ = await world.call(who, path, **query)
    error = answer.get("error") or {"reason": answer["type"].rpartition(":")[2], "param": answer.get("param")}
    return status, error["reason"], error["param"]


# Rows


async def test_a_call_is_shown_with_its_exact_cost_and_whose_it_was(world: World) -> None:
    who, key = await ada(world)
    world.emails[who.user_id] = "ada@example.test"
    details = {"input_nano_usd": 11_000, "output_nano_usd": 40_000, "request_tags": ("t1",), "end_user": "end-user-7"}
    await world.spend(key, 51_000, ip="127.0.0.1", user_agent="curl/7.88.1", **details)
    (row,) = await world.ok(who, LOGS)
    assert (row["spend"], row["api_key"], row["user"], row["end_user"]) == (
        Decimal("0.000051"),
        key.token,
        who.user_id,
        "end-user-7",
    )
    assert (row["requester_ip_address"], row["metadata"]["user_agent"]) == ("127.0.0.1", "curl/7.88.1")
    assert row["metadata"]["user_api_key_user_email"] == "ada@example.test"
    assert row["metadata"]["cost_breakdown"]["output_cost"] == Decimal("0.00004")
    assert row["request_tags"] == ["t1"]


async def test_the_newest_call_is_first(world: World) -> None:
    who, key = await ada(world)
    for minute in (3, 1, 2):
        await world.spend(key, minute, started_at=NOON + timedelta(minutes=minute))
    assert [row["startTime"][14:16] for row in await world.ok(who, LOGS)] == ["03", "02", "01"]


async def test_a_refused_call_is_shown_without_spend(world: World) -> None:
    who, key = await ada(world)
    await world.refuse(key, error_code="429", error_class="budget_exceeded", error_message="no")
    (row,) = await world.ok(who, LOGS)
    assert (row["status"], row["spend"]) == ("failure", 0)
    assert row["metadata"]["error_information"]["error_code"] == "429"


async def test_rows_are_found_by_request_key_hash_and_key_id(world: World) -> None:
    who, key = await ada(world)
    other = await world.new_key(user_id=who.user_id)
    request_id = f"chatcmpl-{uuid.uuid4()}"
    await world.spend(key, 1, request_id=request_id)
    await world.spend(other, 2)
    assert [row["request_id"] for row in await world.ok(who, LOGS, request_id=request_id)] == [request_id]
    for name in (key.key, key.token, key.key_id):
        assert [row["api_key"] for row in await world.ok(who, LOGS, api_key=name)] == [key.token]


async def test_dates_are_days_in_utc_both_included(world: World) -> None:
    who, key = await ada(world)
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    for start in (midnight - timedelta(microseconds=1), midnight, midnight + DAY - timedelta(microseconds=1)):
        world.clock.now = start
        await world.spend(key, 1)
    day = {"start_date": "2026-11-24", "end_date": "2026-11-24", "summarize": "false"}
    assert len(await world.ok(who, LOGS, **day)) == 2
    assert len(await world.ok(who, LOGS, start_date="2026-11-24")) == 2
    assert len(await world.ok(who, LOGS, end_date="2026-11-23")) == 1
    assert len(await world.ok(who, LOGS, end_date="9999-12-31")) == 3
    assert len(await world.ok(who, LOGS, start_date="0001-01-01")) == 3


async def test_more_rows_than_an_answer_holds_are_cut_and_it_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, key = await ada(world)
    monkeypatch.setattr(api, "ROWS_MAX", 2)
    await world.spend(key, 1)
    await world.spend(key, 2)
    _, rows, headers = await world.call(who, LOGS)
    assert (len(rows), "x-litellm-spend-logs-truncated" in headers) == (2, False)
    await world.spend(key, 3)
    _, rows, headers = await world.call(who, LOGS)
    assert (len(rows), headers["x-litellm-spend-logs-truncated"]) == (2, "true")


async def test_with_both_dates_it_is_a_row_a_day(world: World) -> None:
    who, key = await ada(world)
    for days in (0, 1):
        world.clock.now = NOON + days * DAY
        await world.spend(key, 1000, model="openai/one")
        await world.spend(key, 500, model="openai/two")
    assert await world.ok(who, LOGS, start_date="2026-11-24", end_date="2026-11-25") == [
        {
            "startTime": day,
            "spend": Decimal("0.0000015"),
            "users": {who.user_id: Decimal("0.0000015")},
            "models": {"openai/one": Decimal("0.000001"), "openai/two": Decimal("0.0000005")},
            key.token: Decimal("0.0000015"),
        }
        for day in ("2026-11-24", "2026-11-25")
    ]


async def test_a_lost_workers_call_is_shown_with_what_it_is_presumed_to_have_cost(world: World) -> None:
    who, key = await ada(world)
    await world.join("lost")
    await world.hold(key, 60, worker_id="lost")
    await world.budgets.run(workers.leave, "lost")
    world.clock.now = NOON + timedelta(minutes=2)
    await jobs.write_off_holds(world.budgets)
    (row,) = await world.ok(who, LOGS)
    assert (row["spend"], row["status"], row["api_key"]) == (Decimal("0.00000006"), "failure", key.token)


# Who may see what


async def test_a_user_sees_own_calls_only_and_an_admin_all(world: World) -> None:
    who, key = await ada(world)
    other, others_key = await ada(world)
    await world.spend(key, 1)
    await world.spend(others_key, 2)
    assert {row["user"] for row in await world.ok(who, LOGS)} == {who.user_id}
    for all_seeing in (ADMIN, VIEWER):
        assert {who.user_id, other.user_id} <= {row["user"] for row in await world.ok(all_seeing, LOGS)}
        assert {row["user"] for row in await world.ok(all_seeing, LOGS, user_id=who.user_id)} == {who.user_id}


async def test_a_filter_by_what_one_may_not_see_is_refused_whether_it_exists_or_not(world: World) -> None:
    who, _ = await ada(world)
    other, others_key = await ada(world)
    for user_id in (other.user_id, "nobody"):
        assert await refused(world, who, LOGS, user_id=user_id) == (403, "not_yours", None)
    for name in (others_key.key, others_key.token, others_key.key_id, "nothing"):
        assert await refused(world, who, LOGS, api_key=name) == (403, "not_yours", "api_key")


async def test_an_admin_is_told_that_there_is_no_such_user_or_key(world: World) -> None:
    assert await refused(world, ADMIN, LOGS, user_id="nobody") == (404, "not_found", "user_id")
    assert await refused(world, ADMIN, LOGS, api_key="nothing") == (404, "not_found", "api_key")
    dates = {"start_date": "2026-11-24", "end_date": "2026-11-24"}
    assert await refused(world, ADMIN, LOGS, api_key="f" * 64, **dates) == (404, "not_found", "api_key")


async def test_an_admin_finds_the_master_keys_calls_by_its_hash(world: World) -> None:
    master = Key("", f"sk-{uuid.uuid4()}", None)
    hold_id = await world.hold(master, 5, scopes=("proxy",))
    await world.settle(hold_id, 5, token=master.token, key_id=None, user_id="default_user_id")
    (row,) = await world.ok(ADMIN, LOGS, api_key=master.key)
    assert row["api_key"] == master.token


async def test_a_user_without_calls_sees_none(world: World) -> None:
    who, key = await ada(world)
    assert await world.ok(who, LOGS) == []
    assert await world.ok(who, LOGS, api_key=key.key_id) == []
    assert await world.ok(ADMIN, LOGS, user_id=who.user_id) == []


# Bad input


@pytest.mark.parametrize(
    ("query", "reason", "param"),
    [
        ({"start_date": "2026-11-25", "end_date": "2026-11-24"}, "range_malformed", "end_date"),
        ({"start_date": "yesterday"}, "time_malformed", "start_date"),
        ({"end_date": "2026-02-30"}, "time_malformed", "end_date"),
        ({"summarize": "perhaps"}, "wrong_type", "summarize"),
        ({"strat_date": "2026-11-24"}, "field_unknown", "strat_date"),
        ({"user_id": " ada"}, "out_of_range", "user_id"),
        ({"api_key": "k" * 300}, "out_of_range", "api_key"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_by_name(
    world: World, query: dict[str, str], reason: str, param: str
) -> None:
    assert await refused(world, ADMIN, LOGS, **query) == (400, reason, param)


# Budgets


def budget_of(scope: str) -> str:
    return f"/keystead/v1/budgets/{quote(scope, safe='')}"


async def test_a_budget_shows_its_window_and_what_is_left(world: World) -> None:
    user_id = await world.new_user()
    key = await world.new_key(USD, "30d", user_id=user_id)
    await world.spend(key, USD // 4)
    await world.hold(key, USD // 2)
    assert await world.ok(Caller(user_id), budget_of(key.scope)) == {
        "scope": key.scope,
        "enforcement": "strict",
        "windows": [
            {
                "budget_duration": "30d",
                "window_start": "2026-11-01T00:00:00.000000Z",
                "window_end": "2026-12-01T00:00:00.000000Z",
                "limit": 1,
                "spent": Decimal("0.25"),
                "presumed": 0,
                "leased": Decimal("0.5"),
                "remaining": Decimal("0.25"),
                "pending_limit": None,
            }
        ],
    }


async def test_a_limit_is_shown_at_once_after_it_was_set(world: World) -> None:
    who, key = await ada(world)
    await world.update_key(key, 5 * USD)
    budget = await world.ok(who, budget_of(key.scope))
    assert budget["windows"][0]["limit"] == 5


async def test_a_lowered_limit_is_pending_while_holds_take_more(world: World) -> None:
    who, key = await ada(world)
    hold_id = await world.hold(key, 6 * USD)
    await world.update_key(key, 4 * USD)
    (window,) = (await world.ok(who, budget_of(key.scope)))["windows"]
    assert (window["limit"], window["pending_limit"], window["remaining"]) == (4, 4, 0)
    await world.settle(hold_id, 0, key)
    (window,) = (await world.ok(who, budget_of(key.scope)))["windows"]
    assert (window["pending_limit"], window["remaining"]) == (None, 4)


async def test_a_scope_without_a_budget_shows_its_spend(world: World) -> None:
    user_id = await world.new_user()
    key = await world.new_key(user_id=user_id)
    await world.spend(key, USD)
    (window,) = (await world.ok(Caller(user_id), budget_of(f"user:{user_id}")))["windows"]
    assert (window["limit"], window["remaining"], window["spent"]) == (None, None, 1)
    assert (window["budget_duration"], window["window_start"], window["window_end"]) == (None, None, None)


async def test_the_proxys_budget_is_for_those_who_see_everything(world: World) -> None:
    who, _ = await ada(world)
    for all_seeing in (ADMIN, VIEWER):
        assert (await world.ok(all_seeing, budget_of("proxy")))["windows"][0]["limit"] is None
    assert (await refused(world, who, budget_of("proxy")))[:2] == (403, "not_yours")


async def test_a_users_budgets_are_their_own(world: World) -> None:
    who, key = await ada(world)
    other, others_key = await ada(world)
    for scope in (key.scope, f"user:{who.user_id}"):
        for seeing in (who, ADMIN, VIEWER, Caller(who.user_id, "internal_user_viewer")):
            assert (await world.ok(seeing, budget_of(scope)))["scope"] == scope
    for scope in (others_key.scope, f"user:{other.user_id}", "key:nothing", "user:nobody", "team:t1", "anything"):
        assert (await refused(world, who, budget_of(scope)))[:2] == (403, "not_yours")


@pytest.mark.parametrize("scope", ["key:nothing", "user:nobody", "team:t1", "member:t1/ada", "anything", "key:", ":"])
async def test_an_admin_is_told_that_there_is_no_such_scope(world: World, scope: str) -> None:
    assert await refused(world, ADMIN, budget_of(scope)) == (404, "not_found", "scope")


async def test_a_scope_may_have_any_characters_that_an_id_may_have(world: World) -> None:
    who, _ = await ada(world)
    assert " " in who.user_id
    assert (await world.ok(who, budget_of(f"user:{who.user_id}")))["scope"] == f"user:{who.user_id}"
