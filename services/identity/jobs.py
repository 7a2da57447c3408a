"""What time causes in identity: sessions end; passwords that nobody claimed and failed log-ins are forgotten."""

from typing import Any

from services.identity import credentials, handlers, throttle
from shared.event_store import Transaction
from shared.service import Job, Running

BATCH = 100


async def expire_sessions(running: Running[Any]) -> None:
    while await running.run(handlers.expire_sessions, BATCH) == BATCH:
        pass


async def forget_pending_passwords(running: Running[Any]) -> None:
    # Only with every accept heard: one that is still on its way must find its password.
    await running.fence({"invitations"})

    async def drop(tx: Transaction) -> None:
        await credentials.drop_stale(tx, tx.now)

    await running.run(drop)


async def forget_failed_log_ins(running: Running[Any]) -> None:
    await running.run(throttle.forget)


JOBS = (
    Job("expire_sessions", 10.0, expire_sessions),
    Job("forget_pending_passwords", 60.0, forget_pending_passwords),
    Job("forget_failed_log_ins", 60.0, forget_failed_log_ins),
)
