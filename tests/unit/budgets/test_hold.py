"""What one call may hold: all scopes or none, sound, and shortened only when the budget is small (§3.7, §5.2)."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from services.budgets.domain.hold import Ask, BudgetExceeded, BudgetHeld, Placement, place, settled_charge
from services.budgets.domain.window import Window
from tests.support.budgets import FOR_EVER, NOON, THIS_MONTH, TODAY, USD, ask, window


def exceeded(windows: list[Window], wanted: Ask) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as refused:
        place(windows, wanted, NOON)
    return refused.value


def held(windows: list[Window], wanted: Ask) -> BudgetHeld:
    with pytest.raises(BudgetHeld) as refused:
        place(windows, wanted, NOON)
    return refused.value


# With a cap of the caller's


def test_a_hold_is_the_input_and_the_capped_output() -> None:
    assert place([window()], ask(10, price="3", input_nano_usd=5), NOON) == Placement(35, 10)


def test_a_hold_is_rounded_up() -> None:
    assert place([window()], ask(1, price="0.1"), NOON).held_nano_usd == 1


def test_a_price_of_many_digits_is_rounded_once() -> None:
    price = "0.3333333333333333333333333333333333"
    assert place([window()], ask(3, price=price), NOON).held_nano_usd == 1


def test_a_call_that_takes_all_that_is_free_fits() -> None:
    assert place([window(100, spent=40, leased=50)], ask(10), NOON).held_nano_usd == 10


def test_a_call_that_holds_stand_in_the_way_of_is_told_to_wait() -> None:
    refused = held([window(100, spent=40, leased=50)], ask(11))
    assert refused.headers == {"Retry-After": "1"}
    assert (refused.code, refused.status) == ("budget_held", 429)


def test_a_call_that_what_is_not_spent_does_not_pay_is_refused() -> None:
    refused = exceeded([window(100, spent=40, leased=50)], ask(61))
    assert refused.headers == {"x-should-retry": "false"}
    assert (refused.code, refused.status) == ("budget_exceeded", 429)


def test_one_scope_that_can_not_pay_refuses() -> None:
    windows = [window(1000), window(5, scope="user:ada")]
    assert "user:ada" in exceeded(windows, ask(10)).message


def test_a_used_up_scope_outweighs_one_that_is_only_held() -> None:
    windows = [window(10, leased=10), window(5, scope="user:ada")]
    assert "user:ada" in exceeded(windows, ask(10)).message


def test_a_scope_without_limit_lets_everything_pass() -> None:
    assert place([window(None, spent=10**15)], ask(10**6), NOON).held_nano_usd == 10**6


def test_even_without_a_limit_a_sum_has_an_end() -> None:
    exceeded([window(None)], ask(2**53, price="1000000"))


# Refusals name what a person needs


def test_the_message_names_scope_limit_spend_and_reset() -> None:
    refused = exceeded([window(USD, spent=USD // 2, bounds=THIS_MONTH)], ask(1, price=str(USD)))
    for part in ("key:k1", "0.5 USD of 1 USD", "2026-12-01T00:00:00Z"):
        assert part in refused.message


def test_the_message_of_a_budget_that_never_resets_says_so() -> None:
    assert "never resets" in exceeded([window(5)], ask(10)).message


def test_retry_after_is_the_latest_end_of_the_refusing_windows() -> None:
    windows = [
        window(100, spent=100, bounds=TODAY),
        window(100, spent=100, bounds=THIS_MONTH, scope="user:ada"),
        window(1000, bounds=FOR_EVER, scope="proxy"),
    ]
    until = datetime(2026, 12, 1, tzinfo=UTC) - NOON
    assert exceeded(windows, ask(10)).headers["Retry-After"] == str(int(until.total_seconds()))


def test_retry_after_is_left_out_where_one_never_resets() -> None:
    windows = [window(100, spent=100, bounds=TODAY), window(100, spent=100, scope="user:ada")]
    assert "Retry-After" not in exceeded(windows, ask(10)).headers


def test_retry_after_is_left_out_where_a_reset_would_not_help() -> None:
    assert "Retry-After" not in exceeded([window(5, bounds=TODAY)], ask(10)).headers


# Free models, and nothing allowed


def test_a_free_model_fits_a_limit_of_nothing() -> None:
    assert place([window(0)], ask(price="0", most=77), NOON) == Placement(0, 77)


def test_a_free_model_fits_where_more_is_spent_than_a_lowered_limit() -> None:
    assert place([window(5, spent=10)], ask(3, price="0"), NOON) == Placement(0, 3)


def test_a_limit_of_nothing_refuses_all_else() -> None:
    exceeded([window(0)], ask(price="0.000001"))


# Without a cap of the caller's


def test_the_models_maximum_while_eight_such_calls_are_affordable() -> None:
    assert place([window(8 * 110)], ask(input_nano_usd=10, most=100), NOON) == Placement(110, 100)


def test_below_that_an_eighth_of_what_is_not_spent() -> None:
    assert place([window(8 * 110 - 1)], ask(input_nano_usd=10, most=100), NOON).output_cap == 100
    assert place([window(410)], ask(input_nano_usd=10, most=100), NOON).output_cap == 50


def test_the_last_cents_buy_one_token() -> None:
    assert place([window(100, spent=99)], ask(), NOON) == Placement(1, 1)


def test_if_not_even_one_token_is_affordable_it_is_refused() -> None:
    exceeded([window(100, spent=100)], ask())
    exceeded([window(100, spent=95)], ask(input_nano_usd=5))


def test_open_holds_do_not_shorten_an_answer() -> None:
    windows = [window(880, leased=500)]
    assert place(windows, ask(), NOON).output_cap == 100
    held([window(880, leased=800)], ask())


def test_the_tightest_scope_shortens() -> None:
    windows = [window(None), window(10**6), window(80, scope="user:ada")]
    assert place(windows, ask(), NOON).output_cap == 10


def test_without_any_limit_it_is_the_models_maximum() -> None:
    assert place([window(None)], ask(most=128_000), NOON).output_cap == 128_000


def test_a_model_without_output_is_held_for_its_input() -> None:
    assert place([window(100)], ask(price="0", input_nano_usd=60, most=0), NOON) == Placement(60, 0)


def test_a_small_budget_serves_eight_calls_at_once() -> None:
    first = place([window(1000)], ask(most=10_000), NOON)
    leased = 0
    for _ in range(8):
        again = place([window(1000, leased=leased)], ask(most=10_000), NOON)
        assert again == first
        leased += again.held_nano_usd
    assert leased <= 1000


# Settling, and nonsense


@pytest.mark.parametrize(("billed", "charged"), [(0, 0), (7, 7), (10, 10), (11, 10), (None, 10), (-3, 0)])
def test_a_bill_is_charged_up_to_the_hold_and_an_unknown_one_is_all_of_it(billed: int | None, charged: int) -> None:
    assert settled_charge(10, billed) == charged


def test_a_call_that_costs_less_than_nothing_is_no_call() -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        Ask(-1, Decimal(1), None, 1)
    with pytest.raises(ValueError, match="less than nothing"):
        Ask(0, Decimal("-0.1"), None, 1)
