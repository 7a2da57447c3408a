"""What arrives while a batch is done waits for the next; and nobody pays for another's fault."""

import asyncio
from collections.abc import Sequence

import pytest

from services.budgets.batches import BATCH_MAX, Batches
from shared import trace
from shared.errors import Refused, Unavailable


async def test_what_arrives_meanwhile_is_done_together_in_the_order_of_its_arrival() -> None:
    seen: list[list[int]] = []
    going_on = asyncio.Event()

    async def work(questions: Sequence[int]) -> list[int | Refused]:
        seen.append(list(questions))
        await going_on.wait()
        return list(questions)

    batches = Batches(work)
    asking = [asyncio.ensure_future(batches.ask(number)) for number in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking += [asyncio.ensure_future(batches.ask(number)) for number in range(3, 6)]
    await asyncio.sleep(0)
    going_on.set()
    assert await asyncio.gather(*asking) == [0, 1, 2, 3, 4, 5]
    assert seen == [[0, 1, 2], [3, 4, 5]]


async def test_a_batch_has_an_end() -> None:
    sizes: list[int] = []

    async def work(questions: Sequence[int]) -> list[int | Refused]:
        sizes.append(len(questions))
        return list(questions)

    batches = Batches(work)
    await asyncio.gather(*(batches.ask(number) for number in range(BATCH_MAX + 1)))
    assert sizes == [BATCH_MAX, 1]


async def test_each_gets_its_own_refusal() -> None:
    async def work(questions: Sequence[int]) -> list[int | Refused]:
        return [Refused("odd", reason="budget_held") if number % 2 else number for number in questions]

    batches = Batches(work)
    even, odd = await asyncio.gather(batches.ask(2), batches.ask(3), return_exceptions=True)
    assert even == 2
    assert isinstance(odd, Refused)


async def test_all_are_refused_when_the_database_is_away() -> None:
    async def work(questions: Sequence[int]) -> list[int | Refused]:
        raise Unavailable("away")

    batches = Batches(work)
    answers = await asyncio.gather(batches.ask(1), batches.ask(2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]


async def test_one_that_can_not_be_done_is_nobody_elses_fault() -> None:
    async def work(questions: Sequence[int]) -> list[int | Refused]:
        if 13 in questions:
            raise ArithmeticError
        return list(questions)

    batches = Batches(work)
    answers = await asyncio.gather(*(batches.ask(n) for n in (12, 13, 14)), return_exceptions=True)
    assert answers[0] == 12
    assert isinstance(answers[1], ArithmeticError)
    assert answers[2] == 14


async def test_whoever_gives_up_does_not_keep_the_others_from_their_answers() -> None:
    async def work(questions: Sequence[int]) -> list[int | Refused]:
        impatient.cancel()
        await asyncio.sleep(0)
        return list(questions)

    batches = Batches(work)
    impatient = asyncio.ensure_future(batches.ask(1))
    assert await batches.ask(2) == 2
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_batch_is_traced_to_none_of_those_who_asked() -> None:
    async def work(questions: Sequence[int]) -> list[str | Refused]:
        return [trace.current().actor for _ in questions]

    batches = Batches(work)
    with trace.tracing(trace.Trace("c1", actor="ada")):
        assert await batches.ask(1) == trace.SYSTEM


async def test_it_is_finished_when_all_is_answered() -> None:
    async def work(questions: Sequence[int]) -> list[int | Refused]:
        await asyncio.sleep(0)
        return list(questions)

    batches = Batches(work)
    asked = asyncio.ensure_future(batches.ask(1))
    await asyncio.sleep(0)
    await batches.finished()
    assert asked.done() or await asked == 1
