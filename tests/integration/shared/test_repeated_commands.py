"""A request that may come again: the log knows what it did, and takes it once; and who is at work on it."""

import asyncio

import pytest

from shared import seed as sowing
from shared import trace
from shared.errors import Unavailable
from shared.event_store import Transaction
from shared.events import Event, Recorded
from shared.kept_answers import KeptAnswers
from shared.secret import draw_uuid
from shared.seed import Seed
from shared.trace import Trace
from tests.support.toys import (
    ACCOUNT,
    NOON,
    AccountExists,
    Deposit,
    Opened,
    Overdrawn,
    Toys,
    balance_of,
    deposit,
    eventually,
    open_account,
    stream_of,
)

SEED = Seed(b"s" * 32)


async def under_seed(toys: Toys, account: str, amount: int, seed: Seed = SEED) -> list[Event]:
    """Deposit as a route would that takes the header; what was decided."""

    async def put(tx: Transaction) -> list[Event]:
        return [*await tx.execute(stream_of(account), ACCOUNT, Deposit(account, amount, tx.now))]

    with sowing.sown(seed), trace.tracing(Trace("a request", causation_id=seed.command_id)):
        return await toys.ledger.run(put)


async def test_what_it_decided_is_returned_and_not_decided_again(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    first = await under_seed(toys, "a", 5)
    assert await under_seed(toys, "a", 5) == first != []
    assert await toys.ledger.run(balance_of, "a") == 5


async def test_another_requests_is_decided(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    await under_seed(toys, "a", 5)
    await under_seed(toys, "a", 5, Seed(b"t" * 32))
    await toys.ledger.run(deposit, "a", 5)
    assert await toys.ledger.run(balance_of, "a") == 15


async def test_what_was_refused_is_decided_when_it_comes_again(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    with pytest.raises(Overdrawn):
        await under_seed(toys, "a", -5)
    await toys.ledger.run(deposit, "a", 5)
    assert len(await under_seed(toys, "a", -5)) == 1


async def test_without_a_seed_the_same_command_is_another(toys: Toys) -> None:
    await toys.ledger.run(open_account, "a")
    with pytest.raises(AccountExists):
        await toys.ledger.run(open_account, "a")


async def test_four_at_once_under_one_seed_are_taken_once(toys: Toys) -> None:
    """Without any lock: each decides, one append fits, the others find that it is done."""
    await toys.ledger.run(open_account, "a")
    decided = await asyncio.gather(*(under_seed(toys, "a", 5) for _ in range(4)))
    assert all(events == decided[0] for events in decided)
    assert await toys.ledger.run(balance_of, "a") == 5


async def test_what_is_drawn_under_a_seed_is_the_same_in_each_attempt(toys: Toys) -> None:
    async def draw(tx: Transaction) -> tuple[str, str]:
        return draw_uuid(tx.draw("user")), draw_uuid(tx.draw("key"))

    with sowing.sown(SEED):
        drawn = [await toys.ledger.run(draw) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *await toys.ledger.run(draw), *await toys.ledger.run(draw)}) == 6


async def test_a_reaction_is_not_the_requests_even_where_it_waits_for_it(toys: Toys) -> None:
    """A fence applies others' events in the request's own task."""
    opened = Recorded("id", "ledger", "s", 1, 1, NOON, "ada", "a call", None, Opened(account="a"))

    async def react(tx: Transaction) -> bool:
        before = tx.seed
        tx.caused_by(opened)
        return before is SEED and tx.seed is None

    with sowing.sown(SEED):
        assert await toys.ledger.run(react)


async def test_one_works_on_it_and_others_are_told(toys: Toys) -> None:
    one, other = (KeptAnswers("ledger", toys.ledger.dsn) for _ in range(2))
    async with one.at_work("x") as alone:
        assert alone
        for each in (one, other):
            async with each.at_work("x") as too:
                assert not too
            async with each.at_work("y") as elsewhere:
                assert elsewhere
    async with other.at_work("x") as alone:
        assert alone
        await other.close()  # as its process would
        await eventually(lambda: works_on(one, "x"))
    for each in (one, other):
        await each.close()


async def works_on(answers: KeptAnswers, id_: str) -> bool:
    async with answers.at_work(id_) as alone:
        return alone


async def test_the_first_begun_and_the_first_kept_stay(toys: Toys) -> None:
    kept = KeptAnswers("ledger", toys.ledger.dsn)
    begun = await kept.begin("x", "a body", "a seed", NOON)
    assert await kept.begin("x", "another", "another", NOON) == begun
    await kept.keep("x", "an answer")
    await kept.keep("x", "another")
    found = await kept.find("x", NOON)
    assert found is not None
    assert (found.body_hash, found.sealed_seed, found.sealed_answer) == ("a body", "a seed", "an answer")
    assert await kept.find("y", NOON) is None
    await kept.close()


async def test_a_database_that_is_away_is_told_as_such() -> None:
    with pytest.raises(Unavailable):
        await KeptAnswers("ledger", "postgresql://nobody@127.0.0.1:1/none").find("x", NOON)
