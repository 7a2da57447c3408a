"""The life of a key: each command decides, refuses, and stays quiet (contract §5.7)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.keys.domain import (
    KEY,
    BlockKey,
    DeleteKey,
    ExpireKey,
    KeyTaken,
    KeyUnknown,
    UnblockKey,
)
from services.keys.events import KeyBlocked, KeyExpired, KeyUnblocked
from services.keys.limits import Limits, ModelNotAllowed
from tests.support.given import given
from tests.support.keys import DELETED, KEY_ID, NOON, TOKEN, USD, generate, generated, update, updated

LATER = NOON + timedelta(days=3)
BLOCKED = KeyBlocked(key_id=KEY_ID, token=TOKEN, updated_by="admin", updated_at=NOON)
UNBLOCKED = KeyUnblocked(key_id=KEY_ID, token=TOKEN, updated_by="admin", updated_at=NOON)
IN_A_DAY = NOON + timedelta(days=1)
EXPIRED = KeyExpired(key_id=KEY_ID, token=TOKEN, expired_at=IN_A_DAY)
DAY_KEY = generated(duration="1d", expires_at=IN_A_DAY)


def test_a_key_is_generated_as_it_was_asked_for() -> None:
    given(KEY).when(generate(key_alias="laptop", tags=("ci",))).then(generated(key_alias="laptop", tags=("ci",)))


def test_the_same_generation_again_decides_nothing() -> None:
    given(KEY, generated()).when(generate()).then()


def test_a_key_id_is_one_keys_only() -> None:
    given(KEY, generated().model_copy(update={"token": "b" * 64})).when(generate()).refused(KeyTaken)


def test_a_life_counts_from_its_generation() -> None:
    given(KEY).when(generate(duration="1d")).then(DAY_KEY)


def test_a_life_of_minus_one_never_ends() -> None:
    given(KEY).when(generate(duration="-1")).then(generated(duration="-1", expires_at=None))


def test_a_budget_says_when_it_was_set() -> None:
    asked = generate(max_budget_nano_usd=USD, budget_duration="10d")
    given(KEY).when(asked).then(generated(max_budget_nano_usd=USD, budget_duration="10d", budget_set_at=NOON))


def test_an_update_changes_what_was_sent_and_nothing_else() -> None:
    made = generated(key_alias="laptop", tags=("ci",))
    given(KEY, made).when(update(tags=("cd",))).then(updated(key_alias="laptop", tags=("cd",)))


def test_an_update_to_what_is_already_so_decides_nothing() -> None:
    given(KEY, generated(key_alias="laptop")).when(update(key_alias="laptop")).then()


def test_a_key_is_given_to_another_user_and_dies_with_that_one() -> None:
    moved = updated(key_alias="laptop").model_copy(update={"user_id": "bob"})
    given(KEY, generated(key_alias="laptop")).when(replace(update(), user_id="bob")).then(moved)
    deleted = DELETED.model_copy(update={"user_id": "bob"})
    given(KEY, generated(key_alias="laptop"), moved).when(DeleteKey(KEY_ID, "ada", NOON)).then(deleted)


def test_a_new_owner_must_be_one_who_may_call_its_models() -> None:
    limits = Limits(owner_models=("priced",), known_models=frozenset({"fast", "priced"}))
    command = replace(update(limits), user_id="bob")
    given(KEY, generated(models=("fast",))).when(command).refused(ModelNotAllowed)


def test_a_new_duration_counts_from_the_update() -> None:
    expected = updated(at=LATER, duration="1d", expires_at=LATER + timedelta(days=1))
    given(KEY, DAY_KEY).when(update(now=LATER, duration="1d")).then(expected)


def test_a_cleared_duration_is_a_life_without_end() -> None:
    given(KEY, DAY_KEY).when(update(duration=None)).then(updated())


def test_a_raised_budget_keeps_its_windows() -> None:
    made = generated(max_budget_nano_usd=USD, budget_duration="10d", budget_set_at=NOON)
    expected = updated(at=LATER, max_budget_nano_usd=2 * USD, budget_duration="10d", budget_set_at=NOON)
    given(KEY, made).when(update(now=LATER, max_budget_nano_usd=2 * USD)).then(expected)


def test_a_new_budget_duration_counts_from_its_day() -> None:
    made = generated(max_budget_nano_usd=USD, budget_duration="10d", budget_set_at=NOON)
    expected = updated(at=LATER, max_budget_nano_usd=USD, budget_duration="3d", budget_set_at=LATER)
    given(KEY, made).when(update(now=LATER, budget_duration="3d")).then(expected)


def test_a_cleared_budget_was_set_at_no_time() -> None:
    made = generated(max_budget_nano_usd=USD, budget_set_at=NOON)
    given(KEY, made).when(update(max_budget_nano_usd=None)).then(updated())


def test_a_key_is_blocked() -> None:
    given(KEY, generated()).when(BlockKey(KEY_ID, "admin", NOON)).then(BLOCKED)


def test_blocking_twice_says_so_once() -> None:
    given(KEY, generated(), BLOCKED).when(BlockKey(KEY_ID, "admin", LATER)).then()


def test_a_key_made_blocked_is_blocked_already() -> None:
    made = generated().model_copy(update={"blocked": True})
    given(KEY, made).when(BlockKey(KEY_ID, "admin", NOON)).then()


def test_a_blocked_key_is_unblocked() -> None:
    given(KEY, generated(), BLOCKED).when(UnblockKey(KEY_ID, "admin", NOON)).then(UNBLOCKED)


def test_unblocking_what_is_not_blocked_says_nothing() -> None:
    given(KEY, generated(), BLOCKED, UNBLOCKED).when(UnblockKey(KEY_ID, "admin", NOON)).then()


def test_a_key_expires_when_its_time_is_over_not_when_that_was_noted() -> None:
    given(KEY, DAY_KEY).when(ExpireKey(KEY_ID, LATER)).then(EXPIRED)


def test_a_key_expires_at_its_instant() -> None:
    given(KEY, DAY_KEY).when(ExpireKey(KEY_ID, IN_A_DAY)).then(EXPIRED)
    given(KEY, DAY_KEY).when(ExpireKey(KEY_ID, IN_A_DAY - timedelta(microseconds=1))).then()


def test_a_key_without_end_never_expires() -> None:
    given(KEY, generated()).when(ExpireKey(KEY_ID, datetime(2126, 1, 1, tzinfo=UTC))).then()


def test_expiry_is_said_once() -> None:
    given(KEY, DAY_KEY, EXPIRED).when(ExpireKey(KEY_ID, LATER)).then()


def test_expiry_is_not_said_again_because_something_else_changed() -> None:
    renamed = updated(at=LATER, key_alias="old", duration="1d", expires_at=IN_A_DAY)
    given(KEY, DAY_KEY, EXPIRED, renamed).when(ExpireKey(KEY_ID, LATER)).then()


def test_a_revived_key_expires_again() -> None:
    again = LATER + timedelta(days=1)
    revived = updated(at=LATER, duration="1d", expires_at=again)
    told = KeyExpired(key_id=KEY_ID, token=TOKEN, expired_at=again)
    given(KEY, DAY_KEY, EXPIRED, revived).when(ExpireKey(KEY_ID, again)).then(told)


def test_a_key_is_deleted() -> None:
    given(KEY, generated()).when(DeleteKey(KEY_ID, "ada", NOON)).then(DELETED)


def test_deleting_twice_says_so_once() -> None:
    given(KEY, generated(), DELETED).when(DeleteKey(KEY_ID, "admin", LATER)).then()


def test_a_deleted_key_does_not_expire() -> None:
    given(KEY, DAY_KEY, DELETED).when(ExpireKey(KEY_ID, LATER)).then()


def test_a_deleted_key_can_be_neither_changed_nor_blocked() -> None:
    given(KEY, generated(), DELETED).when(update(tags=())).refused(KeyUnknown)
    given(KEY, generated(), DELETED).when(BlockKey(KEY_ID, "admin", NOON)).refused(KeyUnknown)
    given(KEY, generated(), DELETED).when(UnblockKey(KEY_ID, "admin", NOON)).refused(KeyUnknown)
