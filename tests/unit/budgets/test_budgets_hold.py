"""Budgets hold, in any order: holds, settlements, write-offs, late proofs and changed limits on rows kept in memory."""

from dataclasses import dataclass, field
from decimal import Decimal
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.budgets.domain.hold import CALLS_AT_ONCE, Ask, BudgetExceeded, BudgetHeld, Placement, place
from services.budgets.domain.window import Window, prove, set_aside, set_limit, settle, write_off
from tests.support.budgets import NOON, window

SCOPES = ("key:a", "key:b", "user:u", "proxy")
AMOUNTS = st.integers(0, 2000)
LIMITS = st.none() | AMOUNTS
PRICES = st.decimals(0, 50, places=3)
ASKS = st.builds(Ask, st.integers(0, 300), PRICES, st.none() | st.integers(0, 60), st.integers(1, 60))
WINDOWS = st.lists(
    st.builds(lambda limit, spent, leased: window(limit, spent=spent, leased=leased), LIMITS, AMOUNTS, AMOUNTS),
    min_size=1,
    max_size=4,
)


def placed(windows: list[Window], ask: Ask) -> Placement | None:
    try:
        return place(windows, ask, NOON)
    except (BudgetExceeded, BudgetHeld):
        return None


@given(WINDOWS, ASKS)
def test_what_is_placed_fits_every_scope(windows: list[Window], ask: Ask) -> None:
    placement = placed(windows, ask)
    if placement and placement.held_nano_usd:
        assert all(placement.held_nano_usd <= w.free for w in windows)
        assert placement.held_nano_usd == ask.worst(placement.output_cap)


@given(WINDOWS, ASKS.filter(lambda ask: ask.output_cap is not None))
def test_a_call_that_fits_is_not_refused(windows: list[Window], ask: Ask) -> None:
    worst = ask.worst(ask.output_cap or 0)
    if all(worst <= w.free for w in windows):
        assert placed(windows, ask) == Placement(worst, ask.output_cap or 0)


@given(WINDOWS, ASKS)
def test_only_what_no_settling_could_pay_for_is_called_exceeded(windows: list[Window], ask: Ask) -> None:
    given_back = [Window(w.key, w.limit, w.spent, 0, 0, w.ceiling) for w in windows]
    try:
        place(windows, ask, NOON)
    except BudgetExceeded:
        assert placed(given_back, ask) is None
    except BudgetHeld:
        assert placed(given_back, ask) is not None


@given(WINDOWS, ASKS.filter(lambda ask: ask.output_cap is None))
def test_a_cap_that_we_choose_lets_eight_such_calls_or_is_a_single_token(windows: list[Window], ask: Ask) -> None:
    placement = placed(windows, ask)
    if placement is None or placement.output_cap <= 1 or ask.output_nano_usd_per_token == 0:
        return
    unspent = min(w.unspent for w in windows)
    output = ask.worst(placement.output_cap) - ask.input_nano_usd
    assert ask.input_nano_usd + CALLS_AT_ONCE * (output - 1) <= unspent


@given(LIMITS.filter(lambda limit: limit is not None), st.lists(st.integers(1, 400), max_size=8))
def test_calls_of_one_size_are_admitted_whatever_their_order(limit: int, sizes: list[int]) -> None:
    """Where all fit together, all are admitted in any order; where they do not, never more than the limit."""
    for order in list(permutations(sizes))[:24]:
        row, admitted = window(limit), 0
        for size in order:
            if placement := placed([row], Ask(size, Decimal(0), 0, 0)):
                row = set_aside(row, placement.held_nano_usd)
                admitted += 1
        assert row.leased <= limit
        if sum(sizes) <= limit:
            assert admitted == len(sizes)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=5), st.randoms())
def test_the_order_of_settlements_makes_no_difference(holds: list[tuple[int, int]], random: object) -> None:
    leased = sum(held for held, _ in holds)
    before = window(leased, leased=leased)
    ends = set()
    for order in list(permutations(holds))[:24]:
        row = before
        for held, bill in order:
            row = settle(row, held=held, charged=min(held, bill))
        ends.add(row)
    assert len(ends) == 1


@dataclass
class Open:
    scopes: tuple[str, ...]
    held: int
    written_off: bool = False


@dataclass
class Books:
    """What the rows should say, kept apart from them: every hold and charge on its own."""

    holds: list[Open] = field(default_factory=list)
    charges: list[tuple[tuple[str, ...], int]] = field(default_factory=list)

    def leased(self, scope: str) -> int:
        return sum(h.held for h in self.holds if scope in h.scopes and not h.written_off)

    def presumed(self, scope: str) -> int:
        return sum(h.held for h in self.holds if scope in h.scopes and h.written_off)

    def charged(self, scope: str) -> int:
        return sum(amount for scopes, amount in self.charges if scope in scopes)


class Budgets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rows = {scope: window(None, scope=scope) for scope in SCOPES}
        self.books = Books()
        # The most that was ever allowed since the limit was set or lowered to less than what was used.
        self.allowed: dict[str, int | None] = dict.fromkeys(SCOPES)

    @rule(key=st.sampled_from(("key:a", "key:b")), ask=ASKS)
    def call(self, key: str, ask: Ask) -> None:
        scopes = (key, "user:u", "proxy")
        before = dict(self.rows)
        placement = placed([self.rows[scope] for scope in scopes], ask)
        if placement is None:
            assert self.rows == before
            return
        for scope in scopes:
            self.rows[scope] = set_aside(self.rows[scope], placement.held_nano_usd)
        self.books.holds.append(Open(scopes, placement.held_nano_usd))

    @precondition(lambda self: any(not h.written_off for h in self.books.holds))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from([h for h in self.books.holds if not h.written_off]))
        charged = data.draw(st.integers(0, hold.held))
        self._end(hold, charged)
        for scope in hold.scopes:
            self.rows[scope] = settle(self.rows[scope], held=hold.held, charged=charged)

    @precondition(lambda self: any(not h.written_off for h in self.books.holds))
    @rule(data=st.data())
    def lose_the_worker(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from([h for h in self.books.holds if not h.written_off]))
        hold.written_off = True
        for scope in hold.scopes:
            self.rows[scope] = write_off(self.rows[scope], held=hold.held)

    @precondition(lambda self: any(h.written_off for h in self.books.holds))
    @rule(data=st.data())
    def hear_from_the_lost_worker(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from([h for h in self.books.holds if h.written_off]))
        charged = data.draw(st.integers(0, hold.held))
        self._end(hold, charged)
        for scope in hold.scopes:
            self.rows[scope] = prove(self.rows[scope], held=hold.held, charged=charged)

    @rule(scope=st.sampled_from(SCOPES), limit=LIMITS)
    def change_a_limit(self, scope: str, limit: int | None) -> None:
        row = self.rows[scope] = set_limit(self.rows[scope], limit)
        self.allowed[scope] = None if limit is None else max(limit, row.spent + row.leased)

    def _end(self, hold: Open, charged: int) -> None:
        self.books.holds.remove(hold)
        self.books.charges.append((hold.scopes, charged))

    @invariant()
    def nothing_passes_its_ceiling(self) -> None:
        for row in self.rows.values():
            if row.limit is not None:
                assert row.ceiling is not None
                assert row.limit <= row.ceiling
                assert row.spent + row.leased <= row.ceiling
                assert row.ceiling <= (self.allowed[row.scope] or 0)

    @invariant()
    def the_rows_say_what_the_books_say(self) -> None:
        for scope, row in self.rows.items():
            assert row.leased == self.books.leased(scope)
            assert row.presumed == self.books.presumed(scope)
            assert row.spent == self.books.charged(scope) + self.books.presumed(scope)


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
