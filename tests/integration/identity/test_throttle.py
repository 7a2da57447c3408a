"""Who fails to log in too often is not heard for a while, at whichever replica (§5.6)."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from services.identity import jobs
from tests.support.identity import PassingClock, an_email, refusal, replica_with
from tests.support.installation import MASTER_KEY, PASSWORD, Installation, Person, installation

# The tests' own machine is a proxy that is believed, so that each test comes from addresses of its own.
TRUSTED = {"general_settings": {"trusted_proxy_ranges": ["127.0.0.0/8"]}}
WRONG = (401, "credentials_wrong", "invalid_credentials")
THROTTLED = (429, "login_throttled", None)
OTHER_PASSWORD = "nine lives of a purple cat"


@pytest.fixture(scope="module")
def clock() -> PassingClock:
    return PassingClock()


@pytest.fixture(scope="module")
async def it(clock: PassingClock) -> AsyncIterator[Installation]:
    async with installation(TRUSTED, clock=clock) as running:
        yield running


@pytest.fixture(scope="module")
async def replica(it: Installation, clock: PassingClock) -> AsyncIterator[Installation]:
    async with replica_with(it, TRUSTED, clock=clock) as running:
        yield running


@pytest.fixture(scope="module")
async def ada(it: Installation) -> Person:
    return await it.invite()


@pytest.fixture(scope="module")
def addresses() -> Iterator[str]:
    """Addresses that nobody had before."""
    return (f"198.51.{number // 250}.{number % 250}" for number in itertools.count(1))


@pytest.fixture
def address(addresses: Iterator[str]) -> str:
    return next(addresses)


async def guess(it: Installation, address: str | None, name: str, password: str = OTHER_PASSWORD) -> tuple[int, Any]:
    """Log in from an address; from this machine itself without one."""
    headers = {"X-Forwarded-For": address} if address else {}
    return await it.call("POST", "/v2/login", {"username": name, "password": password}, key=None, headers=headers)


async def guesses(it: Installation, number: int, address: str | None, name: str) -> Counter[int]:
    """The statuses of so many, one after the other."""
    return Counter([(await guess(it, address, name))[0] for _ in range(number)])


async def spray(it: Installation, number: int, address: str) -> Counter[int]:
    """So many at once, each at a name of its own."""
    outcomes = await asyncio.gather(*(guess(it, address, an_email()) for _ in range(number)))
    return Counter(status for status, _ in outcomes)


# A source at one name


async def test_after_ten_wrong_passwords_at_one_name_the_right_one_is_not_heard_either(
    it: Installation, ada: Person, address: str, clock: PassingClock
) -> None:
    for _ in range(10):
        assert refusal(await guess(it, address, ada.email)) == WRONG
    assert refusal(await guess(it, address, ada.email)) == THROTTLED
    assert refusal(await guess(it, address, ada.email, PASSWORD)) == THROTTLED
    clock.passes(seconds=295)
    assert refusal(await guess(it, address, ada.email, PASSWORD)) == THROTTLED
    clock.passes(seconds=5)
    assert (await guess(it, address, ada.email, PASSWORD))[0] == 200


async def test_the_answer_says_when_to_come_again_and_by_what_id_it_is_known(
    it: Installation, address: str, clock: PassingClock
) -> None:
    name = an_email()
    await guesses(it, 10, address, name)
    body, headers = {"username": name, "password": PASSWORD}, {"X-Forwarded-For": address}
    told = []
    for passes in (0, 100):
        clock.passes(seconds=passes)
        status, answer, answered = await it.request("POST", "/v2/login", body, key=None, headers=headers)
        assert status == 429 and answered["x-litellm-call-id"]
        assert answer["error"]["type"] == "rate_limit_error"
        told.append(int(answered["Retry-After"]))
        assert answered["Retry-After"] in answer["error"]["message"]
        assert name not in answer["error"]["message"]
    assert told[0] == 300
    assert 195 <= told[1] <= 200


async def test_a_name_that_nobody_has_is_throttled_just_as_one_that_somebody_has(
    it: Installation, ada: Person, address: str
) -> None:
    expected = [await guess(it, address, ada.email) for _ in range(11)]
    assert [refusal(outcome) for outcome in expected] == [WRONG] * 10 + [THROTTLED]
    for name in (an_email(), "x" * 10_000):
        assert [await guess(it, address, name) for _ in range(11)] == expected


async def test_a_name_is_the_same_however_it_is_spelled(it: Installation, address: str) -> None:
    name = an_email()
    for spelled in (name, name.upper(), f"  {name} ", name.title(), name.capitalize()) * 2:
        assert refusal(await guess(it, address, spelled)) == WRONG
    assert refusal(await guess(it, address, f" {name.upper()}")) == THROTTLED


async def test_the_admins_name_is_throttled_too(it: Installation, address: str, addresses: Iterator[str]) -> None:
    assert await guesses(it, 10, address, "admin") == {401: 10}
    assert refusal(await guess(it, address, "admin", MASTER_KEY)) == THROTTLED
    assert (await guess(it, next(addresses), "admin", MASTER_KEY))[0] == 200


async def test_the_admins_name_is_told_by_nothing_in_the_time_that_an_answer_takes(it: Installation) -> None:
    async def seconds(name: str) -> float:
        began = time.perf_counter()
        assert refusal(await guess(it, None, name)) == WRONG
        return time.perf_counter() - began

    fastest = {name: min([await seconds(name) for _ in range(5)]) for name in ("admin", an_email())}
    assert min(fastest.values()) > max(fastest.values()) / 2, fastest


async def test_no_account_is_locked_for_another_source(
    it: Installation, ada: Person, address: str, addresses: Iterator[str]
) -> None:
    assert await guesses(it, 11, address, ada.email) == {401: 10, 429: 1}
    assert (await guess(it, next(addresses), ada.email, PASSWORD))[0] == 200
    assert (await guess(it, None, ada.email, PASSWORD))[0] == 200


async def test_another_name_is_heard_from_a_source_that_is_blocked_at_one(
    it: Installation, ada: Person, address: str
) -> None:
    assert await guesses(it, 11, address, an_email()) == {401: 10, 429: 1}
    assert (await guess(it, address, ada.email, PASSWORD))[0] == 200


async def test_ten_failures_count_only_if_a_minute_holds_them(
    it: Installation, ada: Person, address: str, clock: PassingClock
) -> None:
    assert await guesses(it, 9, address, ada.email) == {401: 9}
    clock.passes(seconds=60)
    assert await guesses(it, 9, address, ada.email) == {401: 9}
    assert (await guess(it, address, ada.email, PASSWORD))[0] == 200


async def test_who_was_right_has_not_failed(it: Installation, ada: Person, address: str) -> None:
    for _ in range(15):
        assert (await guess(it, address, ada.email, PASSWORD))[0] == 200
    assert await guesses(it, 11, address, ada.email) == {401: 10, 429: 1}


async def test_a_body_that_is_none_counts_for_nothing(it: Installation, ada: Person, address: str) -> None:
    for _ in range(11):
        outcome = await it.call("POST", "/v2/login", {}, key=None, headers={"X-Forwarded-For": address})
        assert refusal(outcome)[:2] == (400, "field_missing")
    assert (await guess(it, address, ada.email, PASSWORD))[0] == 200


# All at once


async def test_of_fifty_guesses_at_once_ten_are_looked_at(it: Installation, ada: Person, address: str) -> None:
    outcomes = await asyncio.gather(*(guess(it, address, ada.email) for _ in range(50)))
    assert Counter(refusal(outcome) for outcome in outcomes) == {WRONG: 10, THROTTLED: 40}


async def test_of_fifty_at_once_at_two_replicas_ten_are_looked_at(
    it: Installation, replica: Installation, ada: Person, address: str
) -> None:
    outcomes = await asyncio.gather(*(guess(one, address, ada.email) for _ in range(25) for one in (it, replica)))
    assert Counter(refusal(outcome) for outcome in outcomes) == {WRONG: 10, THROTTLED: 40}


async def test_fifty_that_are_right_are_let_in_at_once(it: Installation, ada: Person, address: str) -> None:
    outcomes = await asyncio.gather(*(guess(it, address, ada.email, PASSWORD) for _ in range(50)))
    assert Counter(status for status, _ in outcomes) == {200: 50}


# Replicas


async def test_what_one_replica_counted_the_other_goes_by(
    it: Installation, replica: Installation, ada: Person, address: str
) -> None:
    for one in (it, replica) * 5:
        assert refusal(await guess(one, address, ada.email)) == WRONG
    for one in (replica, it):
        assert refusal(await guess(one, address, ada.email, PASSWORD)) == THROTTLED


async def test_a_replica_that_starts_later_goes_by_it_too(
    it: Installation, ada: Person, address: str, clock: PassingClock
) -> None:
    assert await guesses(it, 11, address, ada.email) == {401: 10, 429: 1}
    async with replica_with(it, TRUSTED, clock=clock) as later:
        assert refusal(await guess(later, address, ada.email, PASSWORD)) == THROTTLED


# A source


async def test_after_a_hundred_failures_at_many_names_a_source_is_not_heard_at_any(
    it: Installation, ada: Person, address: str, addresses: Iterator[str], clock: PassingClock
) -> None:
    assert await spray(it, 120, address) == {401: 100, 429: 20}
    for name in (ada.email, an_email(), "admin"):
        assert refusal(await guess(it, address, name, PASSWORD)) == THROTTLED
    assert (await guess(it, next(addresses), ada.email, PASSWORD))[0] == 200
    clock.passes(seconds=300)
    assert (await guess(it, address, ada.email, PASSWORD))[0] == 200


FEW = {"general_settings": {**TRUSTED["general_settings"], "max_failed_login_attempts_per_source": 12}}


async def test_a_blocked_pair_counts_no_longer_against_its_source(
    it: Installation, ada: Person, address: str, clock: PassingClock
) -> None:
    async with replica_with(it, FEW, clock=clock) as strict:
        assert await guesses(strict, 30, address, an_email()) == {401: 10, 429: 20}
        assert (await guess(strict, address, ada.email, PASSWORD))[0] == 200
        assert await guesses(strict, 2, address, an_email()) == {401: 2}
        assert refusal(await guess(strict, address, ada.email, PASSWORD)) == THROTTLED


async def test_addresses_of_one_64th_of_ipv6_are_one_source(it: Installation, ada: Person, clock: PassingClock) -> None:
    async with replica_with(it, FEW, clock=clock) as strict:
        for number in range(12):
            assert refusal(await guess(strict, f"2001:db8:1:2::{number:x}", an_email())) == WRONG
        assert refusal(await guess(strict, "2001:db8:1:2:ffff::", ada.email, PASSWORD)) == THROTTLED
        assert (await guess(strict, "2001:db8:1:3::1", ada.email, PASSWORD))[0] == 200


async def test_this_machine_itself_is_exempt_and_whom_it_forwards_is_not(it: Installation, ada: Person) -> None:
    assert await guesses(it, 15, None, ada.email) == {401: 15}
    assert (await guess(it, None, ada.email, PASSWORD))[0] == 200
    assert await guesses(it, 11, "127.0.0.1", ada.email) == {401: 10, 429: 1}
    assert (await guess(it, None, ada.email, PASSWORD))[0] == 200


async def test_a_proxy_that_is_not_trusted_chooses_no_source(
    it: Installation, addresses: Iterator[str], clock: PassingClock
) -> None:
    name = an_email()
    async with replica_with(it, {}, clock=clock) as untrusting:
        assert Counter([(await guess(untrusting, next(addresses), name))[0] for _ in range(11)]) == {401: 10, 429: 1}


@pytest.mark.parametrize(
    "name", ["max_failed_login_attempts_per_source", "failed_login_window_seconds", "failed_login_block_seconds"]
)
async def test_zero_turns_it_off(it: Installation, address: str, clock: PassingClock, name: str) -> None:
    off = {"general_settings": {**TRUSTED["general_settings"], name: 0}}
    async with replica_with(it, off, clock=clock) as lenient:
        assert await guesses(lenient, 12, address, an_email()) == {401: 12}


async def test_window_and_block_are_settings(it: Installation, address: str, clock: PassingClock) -> None:
    times = {"failed_login_window_seconds": 1000, "failed_login_block_seconds": 30}
    name = an_email()
    async with replica_with(it, {"general_settings": {**TRUSTED["general_settings"], **times}}, clock=clock) as own:
        assert await guesses(own, 9, address, name) == {401: 9}
        clock.passes(seconds=900)
        assert await guesses(own, 2, address, name) == {401: 1, 429: 1}
        clock.passes(seconds=30)
        assert refusal(await guess(own, address, name)) == WRONG


# What is kept


async def rows_of(it: Installation) -> list[Any]:
    connection = await asyncpg.connect(it.owner_url)
    try:
        return list(await connection.fetch("select * from identity.failed_log_ins"))
    finally:
        await connection.close()


async def test_neither_name_nor_address_is_kept(it: Installation, address: str) -> None:
    name = an_email()
    await guess(it, address, name)
    rows = await rows_of(it)
    assert len({len(row["who"]) for row in rows}) == 1
    kept = " ".join(str(dict(row)) for row in rows)
    assert name not in kept and address not in kept


async def test_a_source_that_is_not_heard_leaves_no_row_for_each_name_it_thinks_of(
    it: Installation, address: str, clock: PassingClock
) -> None:
    async with replica_with(it, FEW, clock=clock) as strict:
        before = len(await rows_of(it))
        assert await spray(strict, 50, address) == {401: 12, 429: 38}
        assert len(await rows_of(it)) - before <= 1 + 12 + 1  # the source, those looked at, the first that was not


async def test_a_failure_is_no_event(it: Installation, address: str) -> None:
    identity = it.running("identity")
    before = await identity.run(lambda tx: tx.last_position())
    await guesses(it, 12, address, an_email())
    assert await identity.run(lambda tx: tx.last_position()) == before


async def test_what_no_longer_counts_is_forgotten_and_nothing_else(
    it: Installation, ada: Person, address: str, clock: PassingClock
) -> None:
    clock.passes(seconds=1000)  # more than any test here counts for
    await jobs.forget_failed_log_ins(it.running("identity"))
    assert await rows_of(it) == []
    await guesses(it, 11, address, ada.email)
    clock.passes(seconds=290)
    await jobs.forget_failed_log_ins(it.running("identity"))
    assert refusal(await guess(it, address, ada.email, PASSWORD)) == THROTTLED
    assert len(await rows_of(it)) == 1
    clock.passes(seconds=10)
    await jobs.forget_failed_log_ins(it.running("identity"))
    assert await rows_of(it) == []
