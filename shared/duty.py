"""Duty: what one replica of a service does at a time (relay, consuming, jobs), and how the others know."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

if TYPE_CHECKING:
    from shared.service import Running

log = structlog.get_logger()

HEARTBEAT_SECONDS = 1.0
# A frozen process sends no heartbeat; the server then ends its session, and with it the lock.
SESSION_TIMEOUT_MS = 4000
RETRY_SECONDS = 1.0
CANCEL_AGAIN_SECONDS = 1.0  # long enough to close a connection properly

Work = Callable[[], Awaitable[None]]


async def keep_duty(running: "Running[Any]", works: Sequence[Work]) -> None:
    """For ever: wait for the service's duty, do ``works`` while it is ours, begin again when it was lost."""
    while True:
        try:
            await _serve(running, works)
        except Exception as fault:  # noqa: BLE001 - whatever it is: without duty nothing is published or heard
            log.warning("duty.lost", service=running.service.name, fault=repr(fault))
        await asyncio.sleep(RETRY_SECONDS)


async def _serve(running: "Running[Any]", works: Sequence[Work]) -> None:
    settings = {"idle_session_timeout": str(SESSION_TIMEOUT_MS), "application_name": "keystead duty"}
    connection = await asyncpg.connect(running.dsn, server_settings=settings)
    try:
        name = f"{running.service.name}.duty"
        while not await connection.fetchval("select pg_try_advisory_lock(hashtextextended($1, 0))", name):  # noqa: ASYNC110
            await asyncio.sleep(RETRY_SECONDS)
        tasks = [asyncio.ensure_future(work()) for work in works]
        try:
            while True:
                await connection.execute("select 1", timeout=SESSION_TIMEOUT_MS / 1000)
                running.on_duty.set()
                await asyncio.sleep(HEARTBEAT_SECONDS)
        finally:
            running.on_duty.clear()
            await end(*tasks, again_seconds=CANCEL_AGAIN_SECONDS)
    finally:
        connection.terminate()


async def end(*tasks: "asyncio.Future[Any]", again_seconds: float) -> None:
    """Cancel ``tasks`` and wait until they have ended; those that go on are cancelled again.

    A cancellation gets lost if it comes together with the reply that is waited for (``asyncio.wait_for`` of Python 3.11
    returns the reply), and what works in a loop would then work on for ever.
    """
    pending = {*tasks}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_seconds)
    await asyncio.gather(*tasks, return_exceptions=True)
