"""The rules of a user: each decides, refuses, and stays quiet (§3.2, §5.8)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st

from services.identity.domain.user import (
    DEFAULT_USER_ID,
    USER,
    CreateUser,
    DefaultUserIsFixed,
    DeleteUser,
    SetPassword,
    UpdateUser,
    User,
    UserEvent,
    UserExists,
    UserHasNoEmail,
    UserUnknown,
    stream_of,
)
from services.identity.events import (
    FirstKey,
    PasswordSet,
    UserCreated,
    UserDeleted,
    UserLimits,
    UserRoleChanged,
    UserUpdated,
    WantedInvitation,
)
from tests.support.given import given

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
LIMITS = UserLimits(models=("fast",), max_budget_nano_usd=5, budget_duration="30d", budget_set_at=NOON)
FIRST_KEY = FirstKey(key_id="abc", token="e3b0", key_name="sk-...wxyz")

INVITED = WantedInvitation(ref="r1", send_email=True)
CREATE = CreateUser(
    user_id="ada",
    role="internal_user",
    sealed_email="an address, sealed",
    sealed_alias="a name, sealed",
    limits=LIMITS,
    metadata={"floor": 3},
    first_key=FIRST_KEY,
    now=NOON,
)
CREATED = UserCreated(
    user_id="ada",
    sealed_email="an address, sealed",
    sealed_alias="a name, sealed",
    role="internal_user",
    limits=LIMITS,
    metadata={"floor": 3},
    first_key=FIRST_KEY,
    created_at=NOON,
)
AS_CREATED = UpdateUser(
    user_id="ada",
    role="internal_user",
    sealed_email="an address, sealed",
    sealed_alias="a name, sealed",
    limits=LIMITS,
    metadata={"floor": 3},
    now=LATER,
)
UPDATED = UserUpdated(
    user_id="ada",
    sealed_email="an address, sealed",
    sealed_alias="another name, sealed",
    limits=LIMITS,
    metadata={"floor": 3},
    updated_at=LATER,
)
DELETE = DeleteUser("ada", LATER)
DELETED = UserDeleted(user_id="ada", deleted_at=LATER)
SET = SetPassword("ada", "claim 1", LATER)
PASSWORD_SET = PasswordSet(user_id="ada", claim_id="claim 1", set_at=LATER)
MASTER = CREATED.model_copy(update={"user_id": DEFAULT_USER_ID, "role": "proxy_admin"})

CHANGES: list[dict[str, Any]] = [
    {"sealed_email": "another address, sealed"},
    {"sealed_email": None},
    {"sealed_alias": "another name, sealed"},
    {"sealed_alias": None},
    {"limits": UserLimits()},
    {"limits": LIMITS.model_copy(update={"models": ("fast", "slow")})},
    {"limits": LIMITS.model_copy(update={"max_budget_nano_usd": 0})},
    {"metadata": {}},
]


def test_a_user_is_created_with_the_whole_plan_in_the_first_event() -> None:
    given(USER).when(CREATE).then(CREATED)


def test_a_user_may_have_no_email_no_alias_and_no_first_key() -> None:
    bare: dict[str, Any] = {"sealed_email": None, "sealed_alias": None, "first_key": None}
    given(USER).when(replace(CREATE, **bare)).then(CREATED.model_copy(update=bare))


def test_a_user_who_is_to_be_invited_is_created_with_the_invitation() -> None:
    given(USER).when(replace(CREATE, invitation=INVITED)).then(CREATED.model_copy(update={"invitation": INVITED}))


def test_nobody_without_an_email_is_created_to_be_invited() -> None:
    refused = given(USER).when(replace(CREATE, sealed_email=None, invitation=INVITED)).refused(UserHasNoEmail)
    assert (refused.status, refused.param) == (400, "user_email")


@pytest.mark.parametrize("happened", [[CREATED], [CREATED, DELETED]], ids=["there", "deleted"])
def test_an_id_that_is_or_was_a_users_is_refused(happened: list[UserEvent]) -> None:
    refused = given(USER, *happened).when(CREATE).refused(UserExists)
    assert (refused.status, refused.param) == (409, "user_id")


@pytest.mark.parametrize("change", CHANGES, ids=[next(iter(change)) for change in CHANGES])
def test_a_change_is_told_with_everything_of_the_user(change: dict[str, Any]) -> None:
    as_it_was = UPDATED.model_copy(update={"sealed_alias": CREATED.sealed_alias})
    given(USER, CREATED).when(replace(AS_CREATED, **change)).then(as_it_was.model_copy(update=change))


def test_a_change_of_role_alone_is_told_alone() -> None:
    given(USER, CREATED).when(replace(AS_CREATED, role="proxy_admin")).then(
        UserRoleChanged(user_id="ada", role="proxy_admin", updated_at=LATER)
    )


def test_a_change_of_role_and_of_something_else_is_told_by_two_events() -> None:
    command = replace(AS_CREATED, role="proxy_admin_viewer", sealed_alias="another name, sealed")
    role_changed = UserRoleChanged(user_id="ada", role="proxy_admin_viewer", updated_at=LATER)
    given(USER, CREATED).when(command).then(UPDATED, role_changed)


def test_bringing_a_user_to_what_they_are_is_quiet() -> None:
    given(USER, CREATED).when(AS_CREATED).then()


def test_the_same_update_twice_is_quiet_the_second_time() -> None:
    command = replace(AS_CREATED, role="proxy_admin", sealed_alias="another name, sealed")
    role_changed = UserRoleChanged(user_id="ada", role="proxy_admin", updated_at=LATER)
    given(USER, CREATED, UPDATED, role_changed).when(command).then()


@pytest.mark.parametrize("happened", [[], [CREATED, DELETED]], ids=["never there", "deleted"])
@pytest.mark.parametrize("command", [AS_CREATED, replace(SET, claim_id=None), SET], ids=["update", "password", "claim"])
def test_a_user_who_is_not_there_is_not_changed(happened: list[UserEvent], command: UpdateUser | SetPassword) -> None:
    assert given(USER, *happened).when(command).refused(UserUnknown).status == 404


def test_the_master_keys_user_keeps_its_role() -> None:
    command = replace(AS_CREATED, user_id=DEFAULT_USER_ID, role="internal_user")
    refused = given(USER, MASTER).when(command).refused(DefaultUserIsFixed)
    assert (refused.status, refused.param) == (400, "user_role")


def test_the_master_keys_user_is_changed_in_all_else() -> None:
    command = replace(AS_CREATED, user_id=DEFAULT_USER_ID, role="proxy_admin", sealed_alias=UPDATED.sealed_alias)
    given(USER, MASTER).when(command).then(UPDATED.model_copy(update={"user_id": DEFAULT_USER_ID}))


def test_a_user_is_deleted() -> None:
    given(USER, CREATED, UPDATED).when(DELETE).then(DELETED)


def test_deleting_the_master_keys_user_is_refused() -> None:
    refused = given(USER, MASTER).when(DeleteUser(DEFAULT_USER_ID, LATER)).refused(DefaultUserIsFixed)
    assert (refused.status, refused.param) == (400, "user_ids")


def test_deleting_a_user_who_never_was_is_refused() -> None:
    given(USER).when(DELETE).refused(UserUnknown)


def test_deleting_twice_is_quiet_the_second_time() -> None:
    given(USER, CREATED, DELETED).when(DELETE).then()


def test_an_accepted_claim_sets_a_password() -> None:
    given(USER, CREATED).when(SET).then(PASSWORD_SET)


def test_a_claim_sets_a_password_once() -> None:
    given(USER, CREATED, PASSWORD_SET).when(SET).then()


def test_a_claim_that_set_a_password_is_quiet_even_when_the_user_is_deleted() -> None:
    given(USER, CREATED, PASSWORD_SET, DELETED).when(SET).then()


def test_another_claim_sets_another_password() -> None:
    another = PASSWORD_SET.model_copy(update={"claim_id": "claim 2"})
    given(USER, CREATED, PASSWORD_SET).when(replace(SET, claim_id="claim 2")).then(another)


def test_a_password_set_without_a_claim_is_set_each_time() -> None:
    unclaimed = PASSWORD_SET.model_copy(update={"claim_id": None})
    given(USER, CREATED, unclaimed).when(replace(SET, claim_id=None)).then(unclaimed)


ROLES = st.sampled_from(["proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer"])
SEALED = st.none() | st.text(min_size=1, max_size=5)
COMMANDS: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        UpdateUser,
        user_id=st.just("ada"),
        role=ROLES,
        sealed_email=SEALED,
        sealed_alias=SEALED,
        limits=st.builds(UserLimits, max_budget_nano_usd=st.none() | st.integers(0, 3)),
        metadata=st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
        now=st.just(LATER),
    ),
    st.builds(SetPassword, user_id=st.just("ada"), claim_id=st.sampled_from(["1", "2"]), now=st.just(LATER)),
)


@for_any(st.lists(COMMANDS, max_size=6))
def test_whatever_was_commanded_the_same_again_decides_nothing(commands: list[Any]) -> None:
    user = USER.fold([CREATED])
    for command in commands:
        user = _after(user, command)
        assert [*USER.decide(user, command)] == []


def _after(user: User, command: Any) -> User:
    for event in USER.decide(user, command):
        user = USER.evolve(user, event)
    return user


def test_each_user_has_a_stream() -> None:
    assert stream_of("ada") == "user-ada"
