"""Which models a key and its user may call (§5.4), and which budgets a call falls under (§5.1)."""

import pytest

from services.gateway.admission import Caller, callable_models
from services.identity.requests import FoundUser
from services.keys.requests import FoundKey
from shared.permissions import Role
from shared.principal import Principal

NAMES = ("a", "b", "c")
BY_KEY = Principal("ada", Role.INTERNAL_USER, "key", key_id="K", token="t")


def key(*models: str, **fields: object) -> FoundKey:
    given = {"position": 7, "exists": True, "key_id": "K", "token": "t", "models": models, **fields}
    return FoundKey.model_validate(given)


def user(*models: str, **fields: object) -> FoundUser:
    return FoundUser.model_validate({"position": 9, "exists": True, "user_id": "ada", "models": models, **fields})


@pytest.mark.parametrize(
    ("of_key", "of_user", "expected"),
    [
        ((), (), "abc"),
        (("a",), (), "a"),
        ((), ("b", "c"), "bc"),
        (("a", "b"), ("b", "c"), "b"),
        (("a",), ("b",), ""),
        (("all-proxy-models",), (), "abc"),
        (("all-team-models",), ("a",), "a"),
        (("a", "all-proxy-models"), (), "abc"),
        ((), ("no-default-models",), ""),
        (("a",), ("no-default-models",), ""),
        ((), ("no-default-models", "a"), ""),
        (("gone from the file",), (), ""),
        (("c", "gone", "a"), (), "ac"),
    ],
)
def test_key_and_user_must_both_list_a_model(of_key: tuple[str, ...], of_user: tuple[str, ...], expected: str) -> None:
    assert callable_models(key(*of_key), user(*of_user), NAMES) == list(expected)


def test_the_master_key_may_call_all() -> None:
    assert callable_models(None, None, NAMES) == ["a", "b", "c"]


def test_a_personal_call_falls_under_key_user_and_proxy() -> None:
    caller = Caller(BY_KEY, "t", key(), user())
    assert set(caller.scopes) == {"proxy", "key:K", "user:ada"}
    assert caller.positions == {"keys": 7, "identity": 9}


def test_a_call_by_the_master_key_falls_under_the_proxy_alone() -> None:
    caller = Caller(Principal("default_user_id", Role.PROXY_ADMIN, "master_key"), "master_key", None, None)
    assert caller.scopes == ("proxy",)
    assert caller.positions == {}
    assert not caller.limited


def test_a_key_without_user_falls_under_no_users_budget() -> None:
    caller = Caller(BY_KEY, "t", key(), None)
    assert set(caller.scopes) == {"proxy", "key:K"}
    assert caller.positions == {"keys": 7}


@pytest.mark.parametrize(
    ("of_key", "of_user", "limited"), [(None, None, False), (1, None, True), (None, 1, True), (0, None, True)]
)
def test_a_budget_of_either_limits_the_call(of_key: int | None, of_user: int | None, limited: bool) -> None:
    caller = Caller(BY_KEY, "t", key(max_budget_nano_usd=of_key), user(max_budget_nano_usd=of_user))
    assert caller.limited is limited
