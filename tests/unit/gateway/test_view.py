"""What a worker keeps of the owners' answers, and what it remembers of their events."""

from services.gateway import view as viewing
from services.gateway.view import CHANGES_KEPT, KEPT_MAX, Changes, Kept
from services.keys.requests import FoundKey


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def found(position: int = 1, **fields: object) -> FoundKey:
    return FoundKey.model_validate({"position": position, "exists": True, "token": "t", **fields})


# Changes


def test_a_thing_that_never_changed_has_changed_at_nought() -> None:
    assert Changes().last("a") == 0


def test_the_last_change_of_a_thing_counts() -> None:
    changes = Changes()
    changes.note("a", 3)
    changes.note("b", 4)
    changes.note("a", 7)
    assert (changes.last("a"), changes.last("b")) == (7, 4)


def test_what_was_never_heard_of_may_have_changed_up_to_where_the_hearing_began() -> None:
    changes = Changes(floor=40)
    changes.note("a", 41)
    assert (changes.last("a"), changes.last("b")) == (41, 40)


def test_what_was_forgotten_may_have_changed_when_the_last_of_the_forgotten_did() -> None:
    changes = Changes()
    for position in range(1, CHANGES_KEPT + 4):
        changes.note(f"key {position}", position)
    assert changes.last("key 1") == changes.last("key 3") == changes.last("unheard of") == 3
    assert changes.last("key 4") == 4


def test_a_thing_that_changes_again_is_not_the_oldest_any_more() -> None:
    changes = Changes()
    changes.note("a", 1)
    for position in range(2, CHANGES_KEPT + 1):
        changes.note(f"key {position}", position)
    changes.note("a", CHANGES_KEPT + 1)
    changes.note("one more", CHANGES_KEPT + 2)
    assert changes.last("a") == CHANGES_KEPT + 1
    assert changes.last("key 2") == 2


# Kept


def test_an_answer_is_kept_until_it_is_forgotten() -> None:
    kept: Kept[FoundKey] = Kept(Clock())
    answer = found()
    kept.keep("a", answer)
    assert kept.get("a") is answer
    kept.forget("a")
    assert kept.get("a") is None
    kept.forget("a")


def test_an_answer_is_kept_no_longer_than_said() -> None:
    clock = Clock()
    kept: Kept[FoundKey] = Kept(clock, seconds=30)
    kept.keep("a", found())
    clock.now += 29.9
    assert kept.get("a") is not None
    clock.now += 0.1
    assert kept.get("a") is None


def test_memory_does_not_grow_and_the_oldest_answer_goes_first() -> None:
    kept: Kept[FoundKey] = Kept(Clock())
    for number in range(KEPT_MAX):
        kept.keep(f"key {number}", found())
    kept.keep("key 0", found())
    kept.keep("one more", found())
    assert kept.get("key 1") is None
    assert kept.get("key 0") is not None
    assert kept.get("one more") is not None


def test_nothing_is_kept_once_all_is_cleared() -> None:
    kept: Kept[FoundKey] = Kept(Clock())
    kept.keep("a", found())
    kept.clear()
    assert kept.get("a") is None


# Two look-ups at once


def test_of_two_equal_answers_both_go_by_the_one_that_was_kept_first() -> None:
    kept: Kept[FoundKey] = Kept(Clock())
    first = viewing._keep(kept, "t", found(1))
    assert viewing._keep(kept, "t", found(5)) is first
    assert kept.get("t") is first


def test_an_answer_that_says_something_else_takes_the_place_of_the_one_before() -> None:
    kept: Kept[FoundKey] = Kept(Clock())
    viewing._keep(kept, "t", found(1))
    blocked = viewing._keep(kept, "t", found(1, blocked=True))
    assert kept.get("t") is blocked


def test_nothing_is_kept_of_what_is_not_there() -> None:
    kept: Kept[FoundKey] = Kept(Clock())
    gone = viewing._keep(kept, "t", FoundKey(position=3, exists=False))
    assert not gone.exists
    assert kept.get("t") is None
