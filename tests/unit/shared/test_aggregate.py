"""An aggregate is the fold of its events, and what may be decided on it (design §3)."""

from hypothesis import given
from hypothesis import strategies as st

from shared.aggregate import Aggregate
from shared.events import Event
from tests.support.given import given as given_events
from tests.support.toys import ACCOUNT, NOON, Account, Close, Closed, Deposit, Deposited, Open, Opened, Overdrawn


def deposited(amount: int) -> Deposited:
    return Deposited(account="a", amount=amount, deposited_at=NOON)


def test_no_events_fold_to_the_beginning() -> None:
    assert ACCOUNT.fold([]) == Account()


def test_events_fold_in_their_order() -> None:
    order: Aggregate[str, None, Event] = Aggregate(
        "", lambda _, __: [], lambda state, event: state + event.stored().type[0]
    )
    assert order.fold([Opened(account="a"), deposited(1), Closed(account="a")]) == "ODC"


@given(st.lists(st.integers(0, 100)), st.lists(st.integers(0, 100)))
def test_a_fold_may_be_continued_where_it_stopped(first: list[int], second: list[int]) -> None:
    events = [Opened(account="a"), *map(deposited, first)]
    rest = [deposited(amount) for amount in second]
    continued = Aggregate(ACCOUNT.fold(events), ACCOUNT.decide, ACCOUNT.evolve).fold(rest)
    assert continued == ACCOUNT.fold([*events, *rest])


def test_a_command_is_decided_on_what_happened() -> None:
    given_events(ACCOUNT).when(Open("a", None)).then(Opened(account="a"))
    given_events(ACCOUNT, Opened(account="a")).when(Deposit("a", 5, NOON)).then(deposited(5))
    refused = given_events(ACCOUNT, Opened(account="a"), deposited(5)).when(Deposit("a", -6, NOON)).refused(Overdrawn)
    assert refused.param == "amount"


def test_the_same_command_twice_decides_nothing_the_second_time() -> None:
    given_events(ACCOUNT, Opened(account="a")).when(Close("a")).then(Closed(account="a"))
    given_events(ACCOUNT, Opened(account="a"), Closed(account="a")).when(Close("a")).then()
