"""A principal: what role and key type let it reach, and whose things (§1.2, §2)."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from shared.permissions import KeyTypeNotAllowed, NotYours, Operation, Role, RoleNotAllowed
from shared.principal import Permitted, Principal, may, operation_of, running

ADMIN = Principal("default_user_id", Role.PROXY_ADMIN, "master_key")
VIEWER = Principal("eve", Role.PROXY_ADMIN_VIEWER, "session")
ADA = Principal("ada", Role.INTERNAL_USER, "session")
ADAS_KEY = Principal("ada", Role.INTERNAL_USER, "key", key_id="k1", key_type="read_only")
SERVICE_KEY = Principal(None, None, "key", key_id="k2")


def test_events_name_the_user_or_the_key_that_has_none() -> None:
    assert (ADA.actor, ADAS_KEY.actor, SERVICE_KEY.actor) == ("ada", "ada", "key:k2")


def test_an_operation_that_the_role_allows_is_let_through() -> None:
    ADA.check(Operation.KEY_GENERATE)
    VIEWER.check(Operation.KEY_LIST)


def test_an_operation_that_the_role_does_not_allow_is_refused() -> None:
    for principal, operation in (
        (VIEWER, Operation.KEY_GENERATE),
        (ADA, Operation.USER_NEW),
        (SERVICE_KEY, Operation.ME),
    ):
        with pytest.raises(RoleNotAllowed):
            principal.check(operation)


def test_a_key_is_narrowed_by_its_type_and_a_session_is_not() -> None:
    with pytest.raises(KeyTypeNotAllowed):
        ADAS_KEY.check(Operation.KEY_GENERATE)
    ADAS_KEY.check(Operation.KEY_INFO)
    Principal("ada", Role.INTERNAL_USER, "session", key_type="read_only").check(Operation.KEY_GENERATE)


def test_who_reaches_all_needs_no_relation() -> None:
    assert ADMIN.reaches_all(Operation.KEY_DELETE)
    ADMIN.require(Operation.KEY_DELETE, owner_id="ada")
    ADMIN.require(Operation.KEY_DELETE, owner_id=None)


def test_who_reaches_their_own_reaches_no_others_and_nothing_that_is_nobodys() -> None:
    assert not ADA.reaches_all(Operation.KEY_DELETE)
    ADA.require(Operation.KEY_DELETE, owner_id="ada")
    for owner_id in ("bob", "", "Ada", None):
        with pytest.raises(NotYours):
            ADA.require(Operation.KEY_DELETE, owner_id=owner_id)


def test_what_is_nobodys_is_not_theirs_who_are_nobody() -> None:
    nobody = Principal(None, Role.INTERNAL_USER, "key", key_id="k")
    with pytest.raises(NotYours):
        nobody.require(Operation.KEY_DELETE, owner_id=None)


def test_a_foreign_thing_and_one_that_is_not_there_are_refused_alike() -> None:
    messages = set()
    for owner_id in ("bob", None):
        with pytest.raises(NotYours) as refused:
            ADA.require(Operation.KEY_DELETE, owner_id=owner_id)
        messages.add(refused.value.message)
    assert len(messages) == 1


def test_require_refuses_by_role_first() -> None:
    with pytest.raises(RoleNotAllowed):
        VIEWER.require(Operation.KEY_DELETE, owner_id="eve")


def test_a_principal_can_be_told_all_it_may() -> None:
    assert set(ADMIN.operations()) == set(Operation)
    assert Operation.KEY_GENERATE in ADA.operations()
    assert Operation.USER_NEW not in ADA.operations()
    assert Operation.KEY_GENERATE not in ADAS_KEY.operations()


def test_a_route_names_its_operation() -> None:
    router = APIRouter()

    @router.get("/named")
    async def named(_: Annotated[Principal, may(Operation.ME)]) -> None: ...

    @router.get("/unnamed")
    async def unnamed() -> None: ...

    operations = [operation_of(route.dependant.dependencies) for route in router.routes if isinstance(route, APIRoute)]
    assert operations == [Operation.ME, None]


async def test_a_route_gets_the_principal_that_the_gate_let_through() -> None:
    request: Any = type("Request", (), {"scope": {"keystead.principal": ADA}})
    assert await Permitted(Operation.ME)(request) is ADA
    without: Any = type("Request", (), {"scope": {}})
    assert await Permitted(Operation.ME)(without) is None


async def test_a_route_reaches_its_own_service_by_name() -> None:
    services = {"keys": object(), "identity": object()}
    state = type("State", (), {"services": services})
    request: Any = type("Request", (), {"app": type("App", (), {"state": state})})
    assert await running("keys")(request) is services["keys"]
    with pytest.raises(KeyError):
        await running("budgets")(request)
