"""The table itself: complete, no wider than the contract, and narrowed by a key's type (§2.2)."""

from itertools import product

import pytest

from shared.permissions import (
    PERMISSIONS,
    KeyTypeNotAllowed,
    Kind,
    Operation,
    Reach,
    Role,
    RoleNotAllowed,
    check_key_type,
    reach_of,
)

VIEWERS = (Role.PROXY_ADMIN_VIEWER, Role.INTERNAL_USER_VIEWER)
# Everyone ends their own sessions, also one who changes nothing else (§2.1).
A_VIEWERS_CHANGES = {Operation.SESSION_LOG_OUT, Operation.SESSION_END}  # of their own
KEY_TYPES = ("default", "llm_api", "management", "read_only")


def test_every_operation_has_a_row_and_every_row_an_operation() -> None:
    assert set(PERMISSIONS) == set(Operation)


@pytest.mark.parametrize("operation", Operation)
def test_an_operation_is_named_resource_and_verb(operation: Operation) -> None:
    resource, verb = operation.split(":")
    assert resource.isalpha()
    assert verb.replace("-", "").isalpha()


@pytest.mark.parametrize(("operation", "role"), [*product(Operation, Role)])
def test_a_role_reaches_as_far_as_its_cell_says_or_is_refused(operation: Operation, role: Role) -> None:
    cell = PERMISSIONS[operation].cell(role)
    if cell is Reach.NONE:
        with pytest.raises(RoleNotAllowed, match=f"the role {role} does not allow {operation}"):
            reach_of(operation, role)
    else:
        assert reach_of(operation, role) is cell


@pytest.mark.parametrize("operation", Operation)
def test_who_has_no_role_may_nothing(operation: Operation) -> None:
    with pytest.raises(RoleNotAllowed):
        reach_of(operation, None)


@pytest.mark.parametrize("operation", Operation)
def test_an_admin_may_at_least_what_anyone_may(operation: Operation) -> None:
    row = PERMISSIONS[operation]
    assert all(row.cell(Role.PROXY_ADMIN) >= row.cell(role) for role in Role)


@pytest.mark.parametrize("operation", [o for o in Operation if PERMISSIONS[o].kind is Kind.CHANGES])
def test_a_viewer_changes_nothing(operation: Operation) -> None:
    reaches = {PERMISSIONS[operation].cell(role) for role in VIEWERS}
    assert reaches == {Reach.OWN if operation in A_VIEWERS_CHANGES else Reach.NONE}


@pytest.mark.parametrize("operation", Operation)
def test_a_users_viewer_reaches_no_further_than_the_user(operation: Operation) -> None:
    row = PERMISSIONS[operation]
    assert row.cell(Role.INTERNAL_USER_VIEWER) <= row.cell(Role.INTERNAL_USER)


@pytest.mark.parametrize(("operation", "key_type"), [*product(Operation, KEY_TYPES)])
def test_a_key_of_a_type_may_what_its_type_is_for(operation: Operation, key_type: str) -> None:
    kind = PERMISSIONS[operation].kind
    itself = {Operation.KEY_INFO, Operation.MODEL_LIST}
    allowed = (
        kind is Kind.OPEN
        or {
            "default": True,
            "llm_api": kind is Kind.CALLS_A_MODEL or operation in itself,
            "management": kind is not Kind.CALLS_A_MODEL,
            "read_only": kind is Kind.READS,
        }[key_type]
    )
    if allowed:
        check_key_type(operation, key_type)
    else:
        with pytest.raises(KeyTypeNotAllowed, match=f"a key of type {key_type} does not allow {operation}"):
            check_key_type(operation, key_type)


def test_a_key_type_that_is_none_is_not_taken_for_one() -> None:
    with pytest.raises(KeyError):
        check_key_type(Operation.ME, "admin")
