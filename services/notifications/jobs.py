"""What time causes: mails that are due are sent; those of which nothing was heard any more are given up."""

from services.notifications import handlers
from services.notifications.delivery import LOST_AFTER, send_next
from services.notifications.settings import NotificationsSettings
from shared.service import Job, Running

# Mails that are sent at a time. A server that stalls holds up a lane each, and none of the others.
LANES = 4


async def send_due(running: Running[NotificationsSettings]) -> None:
    """One lane. Without a server, mails stay in the outbox."""
    server = running.own.server
    while server is not None and await send_next(running, server):
        pass


async def give_up_the_lost(running: Running[NotificationsSettings]) -> None:
    await running.run(handlers.give_up_the_lost, after=LOST_AFTER)


JOBS = (
    *(Job(f"send_due_{lane}", every_seconds=1.0, run=send_due) for lane in range(1, LANES + 1)),
    Job("give_up_the_lost", every_seconds=5.0, run=give_up_the_lost),
)
