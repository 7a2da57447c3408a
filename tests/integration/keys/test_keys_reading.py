"""GET /key/info and /key/list (contract §3.6, §5.7, §5.10)."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.keys import NOON, USD
from tests.support.keys_world import ADMIN, VIEWER, Caller, World

DAY = timedelta(days=1)


async def generate(world: World, who: Caller, **body: Any) -> Any:
    return await world.ok(who, "POST", "/key/generate", body)


async def info(world: World, who: Caller, key: str) -> Any:
    return (await world.ok(who, "GET", "/key/info?" + urlencode({"key": key})))["info"]


async def listed(world: World, who: Caller, **query: Any) -> Any:
    return await world.ok(who, "GET", "/key/list?" + urlencode(query))


async def list_refused(world: World, who: Caller, **query: Any) -> tuple[int, str, str | None]:
    return await world.refused(who, "GET", "/key/list?" + urlencode(query))


async def test_a_key_is_found_by_its_hash_its_id_and_itself(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, key_alias="found")
    for name in (made["token"], made["key_id"], made["key"]):
        answer = await world.ok(ada, "GET", f"/key/info?key={name}")
        assert answer["key"] == made["token"]
        assert answer["info"].items() <= made.items()
        assert made.keys() - answer["info"].keys() == {"token", "key", "token_id", "duration"}


async def test_a_key_reads_itself_if_none_is_named(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, key_type="llm_api")
    with_key = Caller(ada.user_id, key_id=made["key_id"], key_type="llm_api")
    assert (await world.ok(with_key, "GET", "/key/info"))["key"] == made["token"]
    assert await world.refused(ada, "GET", "/key/info") == (400, "field_missing", "key")


async def test_a_key_for_model_calls_reads_no_other_key(world: World) -> None:
    ada = await world.new_user()
    made, other = await generate(world, ada, key_type="llm_api"), await generate(world, ada)
    with_key = Caller(ada.user_id, key_id=made["key_id"], key_type="llm_api")
    assert await world.refused(with_key, "GET", f"/key/info?key={other['key_id']}") == (
        403,
        "key_type_not_allowed",
        None,
    )
    assert await list_refused(world, with_key) == (403, "key_type_not_allowed", None)


async def test_a_foreign_key_is_answered_like_an_unknown_one_to_who_sees_only_some(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    made = await generate(world, ada)
    foreign, unknown = [await world.call(bob, "GET", f"/key/info?key={name}") for name in (made["token"], "nobody")]
    assert foreign == unknown
    assert (foreign[0], foreign[1]["error"]["reason"]) == (403, "not_yours")
    for who in (ADMIN, VIEWER):
        assert await world.refused(who, "GET", "/key/info?key=nobody") == (404, "not_found", "key")
        assert (await info(world, who, made["token"]))["user_id"] == ada.user_id


async def test_viewers_read_their_own(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    viewer = Caller(ada.user_id, "internal_user_viewer")
    assert (await info(world, viewer, made["key"]))["key_id"] == made["key_id"]
    assert (await listed(world, viewer))["keys"] == [made["token"]]


async def test_a_deleted_key_can_still_be_read(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    assert "deleted_at" not in made
    await world.ok(ADMIN, "POST", "/key/delete", {"keys": [made["key"]]})
    deleted = await info(world, ada, made["key"])
    assert (deleted["status"], deleted["deleted_by"]) == ("deleted", ADMIN.user_id)
    assert deleted["deleted_at"] == "2026-11-24T12:47:15.000000Z"


async def test_a_key_is_expired_by_the_clock(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, duration="1d")
    world.clock.now = NOON + DAY - timedelta(microseconds=1)
    assert (await info(world, ada, made["key"]))["status"] == "active"
    world.clock.now = NOON + DAY
    assert (await info(world, ada, made["key"]))["status"] == "expired"
    await world.ok(ADMIN, "POST", "/key/block", {"key": made["key"]})
    assert (await info(world, ada, made["key"]))["status"] == "revoked"


async def test_spend_is_this_windows_and_total_spend_all(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada, max_budget=1, budget_duration="1d")
    await world.spent(made["key_id"], window_end=NOON + DAY, window=50_000, total=2 * USD)
    await world.heard()
    now = await info(world, ada, made["key"])
    assert (now["spend"], now["total_spend"]) == (0.00005, 2)
    assert now["last_active"] == "2026-11-24T12:47:15.000000Z"
    world.clock.now = NOON + DAY
    later = await info(world, ada, made["key"])
    assert (later["spend"], later["total_spend"]) == (0, 2)
    assert later["budget_reset_at"] == "2026-11-26T00:00:00.000000Z"


async def test_spend_without_a_window_never_resets(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    await world.spent(made["key_id"], window_end=None, window=USD, total=USD)
    await world.heard()
    world.clock.now = NOON + 400 * DAY
    assert (await info(world, ada, made["key"]))["spend"] == 1


async def test_a_list_has_the_newest_first_in_pages(world: World) -> None:
    ada = await world.new_user()
    tokens = []
    for minute in range(5):
        world.clock.now = NOON + timedelta(minutes=minute)
        tokens.append((await generate(world, ada))["token"])
    first = await listed(world, ada, size=2)
    assert first == {"keys": tokens[:2:-1], "total_count": 5, "current_page": 1, "total_pages": 3}
    assert (await listed(world, ada, size=2, page=3))["keys"] == tokens[:1]
    assert (await listed(world, ada, size=2, page=4)) == {**first, "keys": [], "current_page": 4}
    assert (await listed(world, ada, sort_order="asc"))["keys"] == tokens
    whole = await listed(world, ada, return_full_object="true", size=1)
    assert whole["keys"][0]["token"] == tokens[-1]
    assert "key" not in whole["keys"][0]


async def test_one_sees_only_ones_own(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    mine, foreign = await generate(world, ada), await generate(world, bob, key_alias="bob's secret project")
    assert (await listed(world, ada))["keys"] == [mine["token"]]
    assert (await listed(world, ada, search="secret"))["total_count"] == 0
    assert (await listed(world, ada, key_alias="bob's secret project"))["total_count"] == 0
    assert (await listed(world, ada, user_id=ada.user_id))["keys"] == [mine["token"]]
    assert await list_refused(world, ada, user_id=bob.user_id) == (403, "not_yours", None)
    assert (await list_refused(world, ada, key_hash=foreign["token"]))[:2] == (403, "not_yours")
    assert (await list_refused(world, ada, key_hash="nobody"))[:2] == (403, "not_yours")
    assert await list_refused(world, ada, team_id="t") == (403, "not_yours", "team_id")


async def test_admins_and_their_viewers_see_all(world: World) -> None:
    ada, bob = await world.new_user(), await world.new_user()
    mine = await generate(world, ada)
    await generate(world, bob)
    for who in (ADMIN, VIEWER):
        assert (await listed(world, who))["total_count"] >= 2
        assert (await listed(world, who, user_id=ada.user_id))["keys"] == [mine["token"]]
        assert await list_refused(world, who, user_id="nobody") == (404, "not_found", "user_id")
        assert await list_refused(world, who, key_hash="nobody") == (404, "not_found", "key_hash")
        assert await list_refused(world, who, team_id="t") == (404, "not_found", "team_id")


async def test_a_filter_by_a_user_is_refused_only_after_catching_up(world: World) -> None:
    for _ in range(5):
        assert (await listed(world, ADMIN, user_id=(await world.new_user()).user_id))["total_count"] == 0


async def test_the_keys_of_a_deleted_user_can_be_listed(world: World) -> None:
    ada = await world.new_user()
    made = await generate(world, ada)
    await world.delete_user(ada)
    await world.heard()
    assert (await listed(world, ADMIN, user_id=ada.user_id))["keys"] == []
    assert (await listed(world, ADMIN, user_id=ada.user_id, status="deleted"))["keys"] == [made["token"]]


async def test_keys_are_filtered_by_status_and_expiry(world: World) -> None:
    ada = await world.new_user()
    plain, brief, blocked, deleted = [await generate(world, ada, duration=life) for life in (None, "1d", None, None)]
    await world.ok(ADMIN, "POST", "/key/block", {"key": blocked["key"]})
    await world.ok(ada, "POST", "/key/delete", {"keys": [deleted["key"]]})
    world.clock.now = NOON + DAY
    expected = {"active": plain, "expired": brief, "revoked": blocked, "deleted": deleted}
    for status, key in expected.items():
        assert (await listed(world, ada, status=status))["keys"] == [key["token"]]
    assert {*(await listed(world, ada))["keys"]} == {key["token"] for key in (plain, brief, blocked)}
    assert (await listed(world, ada, expires="expired"))["keys"] == [brief["token"]]
    assert {*(await listed(world, ada, expires="active"))["keys"]} == {plain["token"], blocked["token"]}


async def test_keys_are_filtered_by_text(world: World) -> None:
    ada = await world.new_user()
    one, two = await generate(world, ada, key_alias="CI_main 100%"), await generate(world, ada, key_alias="CI_other")
    assert (await listed(world, ada, key_alias="CI_other"))["keys"] == [two["token"]]
    assert (await listed(world, ada, key_alias="CI_"))["keys"] == []
    assert (await listed(world, ada, key_alias="ci_", substring_matching="true"))["total_count"] == 2
    assert (await listed(world, ada, search="100%"))["keys"] == [one["token"]]
    assert (await listed(world, ada, search="%"))["keys"] == [one["token"]]
    assert (await listed(world, ada, search=two["key_id"]))["keys"] == [two["token"]]
    assert (await listed(world, ada, key_hash=one["token"]))["keys"] == [one["token"]]


async def test_keys_that_a_user_made_for_others_count_as_theirs_if_asked_so(world: World) -> None:
    ada, admin = await world.new_user(), Caller((await world.new_user()).user_id, "proxy_admin")
    made = await generate(world, admin, user_id=ada.user_id)
    assert (await listed(world, admin, user_id=admin.user_id))["keys"] == []
    asked = await listed(world, admin, user_id=admin.user_id, include_created_by_keys="true")
    assert asked["keys"] == [made["token"]]


@pytest.mark.parametrize("sort_by", ["created_at", "updated_at", "key_alias", "expires", "max_budget", "spend"])
async def test_keys_are_sorted_and_what_has_no_value_comes_last(world: World, sort_by: str) -> None:
    ada = await world.new_user()
    less = await generate(world, ada, key_alias=f"a {sort_by}", duration="1d", max_budget=1)
    world.clock.now = NOON + timedelta(seconds=1)
    more = await generate(world, ada, key_alias=f"b {sort_by}", duration="2d", max_budget=2)
    await world.spent(more["key_id"], window_end=None, window=USD, total=USD)
    await world.heard()
    assert (await listed(world, ada, sort_by=sort_by))["keys"] == [more["token"], less["token"]]
    assert (await listed(world, ada, sort_by=sort_by, sort_order="asc"))["keys"] == [less["token"], more["token"]]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"page": 0}, "out_of_range"),
        ({"size": 101}, "out_of_range"),
        ({"size": "many"}, "wrong_type"),
        ({"sort_by": "luck"}, "out_of_range"),
        ({"status": "new"}, "out_of_range"),
        ({"user": "ada"}, "field_unknown"),
        ({"search": "\x00"}, "out_of_range"),
    ],
)
async def test_bad_queries_are_refused(world: World, query: dict[str, Any], reason: str) -> None:
    assert await list_refused(world, ADMIN, **query) == (400, reason, next(iter(query)))


async def test_what_says_nothing_in_a_query_is_no_filter(world: World) -> None:
    await listed(world, ADMIN, include_team_keys="true", include_created_by_keys="true", organization_id="")
