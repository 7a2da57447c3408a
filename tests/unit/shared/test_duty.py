"""Work that is ended ends, also where its cancellation gets lost on the way."""

import asyncio

from shared.duty import end


async def test_what_works_for_ever_is_ended() -> None:
    tasks = [asyncio.ensure_future(asyncio.Event().wait()) for _ in range(3)]
    await end(*tasks, again_seconds=60)
    assert all(task.cancelled() for task in tasks)


async def test_work_that_lost_its_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    await end(task, again_seconds=0.01)
    assert task.cancelled()


async def test_a_cancellation_that_comes_with_the_reply_is_lost_by_wait_for_and_not_by_end() -> None:
    reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await asyncio.wait_for(reply, timeout=60)
        await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    reply.set_result(None)
    await end(task, again_seconds=0.01)
    assert task.done()


async def test_work_that_failed_ends_quietly() -> None:
    async def fail() -> None:
        raise OSError("the server is away")

    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    await end(task, again_seconds=60)
    assert isinstance(task.exception(), OSError)


async def test_nothing_to_end_is_ended() -> None:
    await end(again_seconds=60)
