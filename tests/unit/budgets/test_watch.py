"""A worker is given up once its number stood still for the bound, from this process's first look at it."""

from services.budgets.watch import Watch
from services.budgets.workers import Worker

BOUND = 5.0


def at(number: int, worker_id: str = "w1") -> Worker:
    return Worker(worker_id, number, {})


def test_a_worker_is_given_up_at_the_bound_and_not_before() -> None:
    watch = Watch()
    assert watch.unmoved([at(3)], 100.0, BOUND) == {}
    assert watch.unmoved([at(3)], 104.9, BOUND) == {}
    assert watch.unmoved([at(3)], 105.0, BOUND) == {"w1": 3}


def test_a_worker_that_renews_is_waited_for_anew() -> None:
    watch = Watch()
    for second in range(30):
        assert watch.unmoved([at(second)], float(second), BOUND) == {}


def test_each_worker_has_a_time_of_its_own() -> None:
    watch = Watch()
    watch.unmoved([at(1, "old")], 0.0, BOUND)
    watch.unmoved([at(1, "old"), at(1, "new")], 4.0, BOUND)
    assert watch.unmoved([at(1, "old"), at(1, "new")], 5.0, BOUND) == {"old": 1}


def test_a_worker_that_went_is_forgotten() -> None:
    watch = Watch()
    watch.unmoved([at(1)], 0.0, BOUND)
    watch.unmoved([], 1.0, BOUND)
    assert watch.unmoved([at(1)], 60.0, BOUND) == {}


def test_what_is_applied_further_than_asked_is_applied() -> None:
    worker = Worker("w1", 1, {"keys": 7, "identity": 3})
    assert worker.has_applied({"keys": 7})
    assert worker.has_applied({"keys": 6, "identity": 3})
    assert not worker.has_applied({"keys": 8})
    assert not worker.has_applied({"keys": 7, "identity": 4})


def test_what_a_worker_never_named_it_has_not_applied() -> None:
    assert not Worker("w1", 0, {}).has_applied({"keys": 1})
