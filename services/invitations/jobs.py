"""What time causes: invitations expire. They do so by the clock; the job sees to it that others hear of it."""

from typing import Any

from services.invitations import handlers
from shared.service import Job, Running

BATCH = 100


async def expire_invitations(running: Running[Any]) -> None:
    while await running.run(handlers.expire_invitations, limit=BATCH) == BATCH:
        pass


JOBS = [Job("expire_invitations", every_seconds=10.0, run=expire_invitations)]
