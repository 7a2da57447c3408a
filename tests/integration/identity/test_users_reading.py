"""``/user/info``, ``/user/list`` and ``/user/available_roles``: who sees whom, filtered, sorted and in pages (§3.2)."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.budgets.events import ScopeTotal, SpendTotalsPublished
from services.identity.domain.user import DEFAULT_USER_ID
from services.keys.events import KeyTerms
from services.keys.handlers import generate_key
from shared.event_store import Transaction
from tests.support.identity import USER_FIELDS, an_email, new_user, refusal
from tests.support.installation import Installation

ROLES = ["proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer"]
SEEING_ALL = ROLES[:2]
SEEING_OWN = ROLES[2:]


# One user


@pytest.mark.parametrize("role", ROLES)
async def test_without_an_id_everyone_gets_their_own_record(it: Installation, role: str) -> None:
    person = await it.invite(user_role=role)
    answer = await it.ok("GET", "/user/info", key=person.session)
    assert (answer["user_id"], answer["user_info"]["user_email"]) == (person.user_id, person.email)
    assert answer == await it.ok("GET", f"/user/info?user_id={person.user_id}", key=person.session)


async def test_the_master_key_gets_its_own_users_record(it: Installation) -> None:
    assert (await it.ok("GET", "/user/info"))["user_id"] == DEFAULT_USER_ID


async def test_the_answer_has_every_field_of_the_contract_and_no_other(it: Installation) -> None:
    answer = await it.ok("GET", "/user/info")
    assert set(answer) == {"user_id", "user_info", "keys", "teams", "total_keys", "total_teams"}
    assert set(answer["user_info"]) == USER_FIELDS
    assert (answer["teams"], answer["total_teams"]) == ([], 0)


@pytest.mark.parametrize("role", SEEING_ALL)
async def test_an_admin_and_a_viewer_of_all_see_anyone(it: Installation, role: str) -> None:
    person, other = await it.invite(user_role=role), await new_user(it, user_email=an_email())
    answer = await it.ok("GET", f"/user/info?user_id={other['user_id']}", key=person.session)
    assert answer["user_info"]["user_email"] == other["user_email"]


@pytest.mark.parametrize("role", SEEING_OWN)
async def test_others_are_not_told_whether_another_user_exists(it: Installation, role: str) -> None:
    person, other = await it.invite(user_role=role), await new_user(it)
    foreign = await it.call("GET", f"/user/info?user_id={other['user_id']}", key=person.session)
    assert refusal(foreign) == (403, "not_yours", None)
    assert await it.call("GET", f"/user/info?user_id={uuid.uuid4()}", key=person.session) == foreign


@pytest.mark.parametrize("role", SEEING_ALL)
async def test_a_user_who_never_was_is_not_found(it: Installation, role: str) -> None:
    person = await it.invite(user_role=role)
    outcome = await it.call("GET", f"/user/info?user_id={uuid.uuid4()}", key=person.session)
    assert refusal(outcome) == (404, "not_found", "user_id")


async def test_a_deleted_user_is_not_found(it: Installation) -> None:
    user = await new_user(it)
    await it.ok("POST", "/user/delete", {"user_ids": [user["user_id"]]})
    outcome = await it.call("GET", f"/user/info?user_id={user['user_id']}")
    assert refusal(outcome) == (404, "not_found", "user_id")


async def test_an_id_may_hold_anything_that_an_id_may(it: Installation) -> None:
    user_id = f"Ada & co/#1?% {uuid.uuid4()} é"
    await new_user(it, user_id=user_id)
    status, answer = await it.call("GET", "/user/info", params={"user_id": user_id})
    assert (status, answer["user_id"]) == (200, user_id)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"user_id": ""}, (400, "out_of_range", "user_id")),
        ({"user_id": " x"}, (400, "out_of_range", "user_id")),
        ({"user_id": "x" * 256}, (400, "out_of_range", "user_id")),
        ({"user_id": "a\x00"}, (400, "out_of_range", "user_id")),
        ([("user_id", "a"), ("user_id", "b")], (400, "wrong_type", "user_id")),
        ({"userid": "a"}, (400, "field_unknown", "userid")),
    ],
    ids=str,
)
async def test_a_bad_query_is_refused_by_name(it: Installation, query: Any, expected: tuple[Any, ...]) -> None:
    assert refusal(await it.call("GET", "/user/info", params=query)) == expected


async def test_keys_are_shown_newest_first_with_money_as_numbers_and_without_the_key(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"user_role": "internal_user"})
    body = {"user_id": user["user_id"], "max_budget": "0.00005", "metadata": {"a": "usd:5"}, "key_alias": None}
    second = await it.ok("POST", "/key/generate", body)
    answer = await it.ok("GET", f"/user/info?user_id={user['user_id']}")
    assert [key["key_id"] for key in answer["keys"]] == [second["key_id"], user["key_id"]]
    assert answer["total_keys"] == 2
    newest = answer["keys"][0]
    assert (newest["max_budget"], newest["spend"], newest["metadata"]) == (0.00005, 0, {"a": "usd:5"})
    assert newest["team_alias"] is None
    assert {name: value for name, value in newest.items() if name not in ("team_alias", "token")} == (
        await it.ok("GET", f"/key/info?key={second['token']}")
    )["info"]


async def test_no_more_than_100_keys_are_shown_and_all_are_counted(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {})

    async def make_100(tx: Transaction) -> None:
        for _ in range(100):
            await generate_key(tx, user["user_id"], KeyTerms())

    await it.running("keys").run(make_100)
    answer = await it.ok("GET", f"/user/info?user_id={user['user_id']}")
    assert (len(answer["keys"]), answer["total_keys"]) == (100, 101)
    assert user["token"] not in [key["token"] for key in answer["keys"]]


async def test_deleted_keys_are_not_shown(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {})
    await it.ok("POST", "/key/delete", {"keys": [user["token"]]})
    answer = await it.ok("GET", f"/user/info?user_id={user['user_id']}")
    assert (answer["keys"], answer["total_keys"]) == ([], 0)


# Spend


async def spent(it: Installation, user_id: str, *, window: int, total: int, window_end: datetime | None) -> None:
    """Budgets says what a user spent."""
    scope_total = ScopeTotal(
        scope=f"user:{user_id}",
        window_start=None,
        window_end=window_end,
        window_spent_nano_usd=window,
        total_spent_nano_usd=total,
        last_used_at=None,
    )

    async def publish(tx: Transaction) -> None:
        await tx.record("totals", SpendTotalsPublished(totals=(scope_total,), published_at=tx.now))

    await it.running("budgets").run(publish)
    await it.running("identity").fence({"budgets"})


async def test_spend_is_this_windows_and_total_spend_all(it: Installation) -> None:
    user_id = (await new_user(it))["user_id"]
    await spent(it, user_id, window=2, total=3_000_000_005, window_end=datetime.now(UTC) + timedelta(hours=1))
    user = (await it.ok("GET", f"/user/info?user_id={user_id}"))["user_info"]
    assert (user["spend"], user["total_spend"]) == (2e-9, 3.000000005)


async def test_when_the_window_is_over_its_spend_is_nothing(it: Installation) -> None:
    """By the clock: nobody says so (D18)."""
    user_id = (await new_user(it))["user_id"]
    await spent(it, user_id, window=2, total=5, window_end=datetime.now(UTC))
    user = (await it.ok("GET", f"/user/info?user_id={user_id}"))["user_info"]
    assert (user["spend"], user["total_spend"]) == (0, 5e-9)


async def test_without_a_window_spend_is_all(it: Installation) -> None:
    user_id = (await new_user(it))["user_id"]
    await spent(it, user_id, window=5, total=5, window_end=None)
    user = (await it.ok("GET", f"/user/info?user_id={user_id}"))["user_info"]
    assert (user["spend"], user["total_spend"]) == (5e-9, 5e-9)


# Many


async def listed(it: Installation, key: str | None = None, **query: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await it.ok("GET", "/user/list", params=query, **({"key": key} if key else {}))
    return answer


async def ids(it: Installation, **query: Any) -> list[str]:
    return [user["user_id"] for user in (await listed(it, **query))["users"]]


class Crowd:
    """Users whose ids begin alike, so that a test finds its own."""

    def __init__(self, it: Installation) -> None:
        self.it = it
        self.mark = uuid.uuid4().hex

    async def add(self, name: str, **fields: Any) -> str:
        user_id = f"{self.mark}-{name}"
        await new_user(self.it, user_id=user_id, **fields)
        return user_id

    async def names(self, **query: Any) -> list[str]:
        found = await ids(self.it, **({"search": self.mark} | query))
        return [user_id.removeprefix(f"{self.mark}-") for user_id in found]


@pytest.fixture
def crowd(it: Installation) -> Crowd:
    return Crowd(it)


async def test_a_page_has_every_field_of_the_contract_and_no_other(it: Installation) -> None:
    page = await listed(it)
    assert set(page) == {"users", "total", "page", "page_size", "total_pages"}
    assert (page["page"], page["page_size"]) == (1, 25)
    assert set(page["users"][0]) == USER_FIELDS | {"key_count"}


async def test_the_first_made_come_first(it: Installation, crowd: Crowd) -> None:
    for name in ("c", "a", "b"):
        await crowd.add(name)
    assert await crowd.names() == ["c", "a", "b"]
    assert await crowd.names(sort_order="desc") == ["b", "a", "c"]


async def test_users_are_sorted_by_id(crowd: Crowd) -> None:
    for name in ("c", "a", "b"):
        await crowd.add(name)
    assert await crowd.names(sort_by="user_id") == ["a", "b", "c"]
    assert await crowd.names(sort_by="user_id", sort_order="desc") == ["c", "b", "a"]


async def test_users_are_sorted_by_email_those_without_one_last(crowd: Crowd) -> None:
    await crowd.add("none")
    for name in ("c", "a"):
        await crowd.add(name, user_email=f"{name}{crowd.mark}@example.test")
    assert await crowd.names(sort_by="user_email") == ["a", "c", "none"]
    assert await crowd.names(sort_by="user_email", sort_order="desc") == ["c", "a", "none"]


async def test_users_are_sorted_by_the_spend_that_is_shown(it: Installation, crowd: Crowd) -> None:
    """Who spent much, but in a window that is over, has spent nothing in this one."""
    now = datetime.now(UTC)
    for name, window, end in (("much", 9, None), ("over", 10, now), ("little", 1, now + timedelta(hours=1))):
        user_id = await crowd.add(name)
        await spent(it, user_id, window=window, total=100, window_end=end)
    await crowd.add("nothing")
    assert await crowd.names(sort_by="spend") == ["nothing", "over", "little", "much"]
    assert await crowd.names(sort_by="spend", sort_order="desc") == ["much", "little", "nothing", "over"]


@pytest.mark.parametrize("role", ROLES)
async def test_users_are_filtered_by_role(crowd: Crowd, role: str) -> None:
    for each in ROLES:
        await crowd.add(each, user_role=each)
    assert await crowd.names(role=role) == [role]


async def test_users_are_filtered_by_ids(it: Installation, crowd: Crowd) -> None:
    a, b, _ = [await crowd.add(name) for name in "abc"]
    assert await ids(it, user_ids=f" {b} ,{a},nobody") == [a, b]
    assert await ids(it, user_ids="nobody") == []


async def test_users_are_filtered_by_a_part_of_their_email_in_any_case(it: Installation, crowd: Crowd) -> None:
    email = f"Ada.{crowd.mark}@Example.test"
    user_id = await crowd.add("ada", user_email=email)
    await crowd.add("bob")
    for part in (crowd.mark, f"ADA.{crowd.mark.upper()}@", f"{crowd.mark}@example.test"):
        assert await ids(it, user_email=part) == [user_id]
    assert await ids(it, user_email=f"bob.{crowd.mark}") == []


async def test_a_search_looks_in_ids_and_emails_in_any_case(it: Installation, crowd: Crowd) -> None:
    by_id = await crowd.add("Ada")
    by_email = (await new_user(it, user_email=f"x.{crowd.mark}-ada@example.test"))["user_id"]
    assert await ids(it, search=f"{crowd.mark.upper()}-aDA") == [by_id, by_email]


async def test_signs_that_mean_something_to_like_mean_themselves(crowd: Crowd) -> None:
    for name in ("a%b", "a_b", "a\\b", "axb"):
        await crowd.add(name)
    for name in ("a%b", "a_b", "a\\b"):
        assert await crowd.names(search=f"{crowd.mark}-{name}") == [name]


async def test_filters_are_taken_together(it: Installation, crowd: Crowd) -> None:
    ada = await crowd.add("ada", user_role="internal_user", user_email=f"ada{crowd.mark}@example.test")
    bob = await crowd.add("bob", user_role="internal_user")
    await crowd.add("eve", user_role="proxy_admin", user_email=f"eve{crowd.mark}@example.test")
    assert await ids(it, search=crowd.mark, role="internal_user") == [ada, bob]
    assert await ids(it, search=crowd.mark, role="internal_user", user_email=crowd.mark) == [ada]
    assert await ids(it, search=crowd.mark, role="internal_user", user_email=crowd.mark, user_ids=bob) == []


async def test_a_list_is_cut_into_pages(it: Installation, crowd: Crowd) -> None:
    made = [await crowd.add(str(number)) for number in range(5)]
    pages = [await listed(it, search=crowd.mark, page=number, page_size=2) for number in (1, 2, 3)]
    assert [[user["user_id"] for user in page["users"]] for page in pages] == [made[:2], made[2:4], made[4:]]
    for number, page in enumerate(pages, 1):
        assert {name: page[name] for name in page if name != "users"} == {
            "total": 5,
            "page": number,
            "page_size": 2,
            "total_pages": 3,
        }


async def test_a_page_past_the_end_is_empty(it: Installation, crowd: Crowd) -> None:
    await crowd.add("a")
    page = await listed(it, search=crowd.mark, page=2)
    assert (page["users"], page["total"], page["total_pages"]) == ([], 1, 1)
    assert (await listed(it, page=1_000_000, page_size=100))["users"] == []


async def test_a_list_of_nobody_has_no_page(it: Installation, crowd: Crowd) -> None:
    page = await listed(it, search=crowd.mark)
    assert (page["users"], page["total"], page["page"], page["total_pages"]) == ([], 0, 1, 0)


async def test_a_deleted_user_is_not_listed(it: Installation, crowd: Crowd) -> None:
    user_id = await crowd.add("gone", user_email=f"gone{crowd.mark}@example.test")
    await it.ok("POST", "/user/delete", {"user_ids": [user_id]})
    for query in ({"search": crowd.mark}, {"user_ids": user_id}, {"user_email": crowd.mark}):
        assert await ids(it, **query) == []


async def test_each_user_is_listed_with_the_number_of_their_keys(it: Installation, crowd: Crowd) -> None:
    for name, keys in (("none", 0), ("two", 2)):
        user_id = await crowd.add(name)
        for _ in range(keys):
            await it.ok("POST", "/key/generate", {"user_id": user_id})
    deleted = await it.ok("POST", "/key/generate", {"user_id": f"{crowd.mark}-two"})
    await it.ok("POST", "/key/delete", {"keys": [deleted["token"]]})
    users = (await listed(it, search=crowd.mark))["users"]
    assert [user["key_count"] for user in users] == [0, 2]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"page": 0}, (400, "out_of_range", "page")),
        ({"page": -1}, (400, "out_of_range", "page")),
        ({"page": "one"}, (400, "wrong_type", "page")),
        ({"page": "1.5"}, (400, "wrong_type", "page")),
        ({"page": "9" * 5000}, (400, "out_of_range", "page")),
        ({"page_size": 0}, (400, "out_of_range", "page_size")),
        ({"page_size": 101}, (400, "out_of_range", "page_size")),
        ({"page_size": ""}, (400, "wrong_type", "page_size")),
        ({"sort_by": "password"}, (400, "out_of_range", "sort_by")),
        ({"sort_order": "sideways"}, (400, "out_of_range", "sort_order")),
        ({"role": "emperor"}, (400, "out_of_range", "role")),
        ({"search": ""}, (400, "out_of_range", "search")),
        ({"search": "a\x00"}, (400, "out_of_range", "search")),
        ({"team": "nobody's"}, (404, "not_found", "team")),
        ({"sso_user_ids": "okta"}, (400, "field_unsupported", "sso_user_ids")),
        ({"organization_ids": "acme"}, (400, "field_unsupported", "organization_ids")),
        ({"rolle": "proxy_admin"}, (400, "field_unknown", "rolle")),
        ([("page", "1"), ("page", "2")], (400, "wrong_type", "page")),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_a_bad_filter_or_page_is_refused_by_name(it: Installation, query: Any, expected: tuple[Any, ...]) -> None:
    assert refusal(await it.call("GET", "/user/list", params=query)) == expected


@pytest.mark.parametrize("role", SEEING_OWN)
async def test_who_sees_only_themselves_lists_nobody(it: Installation, role: str) -> None:
    person = await it.invite(user_role=role)
    for path in ("/user/list", f"/user/list?user_ids={person.user_id}", "/user/list?page=0"):
        assert refusal(await it.call("GET", path, key=person.session)) == (403, "role_not_allowed", None)


async def test_a_viewer_of_all_lists_everyone(it: Installation, crowd: Crowd) -> None:
    person = await it.invite(user_role="proxy_admin_viewer")
    user_id = await crowd.add("a")
    assert await ids(it, key=person.session, search=crowd.mark) == [user_id]


async def test_everyone_may_know_the_four_roles(it: Installation) -> None:
    person = await it.invite(user_role="internal_user_viewer")
    roles = await it.ok("GET", "/user/available_roles", key=person.session)
    assert list(roles) == ROLES
    assert all(set(role) == {"description", "ui_label"} for role in roles.values())


@pytest.mark.parametrize("path", ["/user/info", "/user/list", "/user/available_roles"])
async def test_nothing_is_told_without_a_credential(it: Installation, path: str) -> None:
    assert refusal(await it.call("GET", path, key=None)) == (401, "credentials_missing", None)
