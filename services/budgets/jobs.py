"""What time causes: totals are told, lost workers given up, their holds written off, the ledger's months made."""

from typing import Any

from services.budgets import handlers
from services.budgets.barrier import look
from shared.service import Job, Running

TOTALS_MAX = 500
HOLDS_MAX = 200


async def publish_totals(running: Running[Any]) -> None:
    """Tell of all scopes whose spend changed."""
    while await running.run(handlers.publish_totals, limit=TOTALS_MAX) == TOTALS_MAX:
        pass


async def give_up_workers(running: Running[Any]) -> None:
    """So that no barrier has to wait for a worker that was lost before anybody raised one."""
    await look(running)


async def write_off_holds(running: Running[Any]) -> None:
    """End the holds of workers that are gone."""
    while await running.run(handlers.write_off_holds, limit=HOLDS_MAX) == HOLDS_MAX:
        pass


async def add_ledger_months(running: Running[Any]) -> None:
    """A month of the ledger is there before it begins; one that is not is made by the first settlement in it."""
    running.own.ledger_months = await running.run(handlers.add_ledger_months)


async def forget_old(running: Running[Any]) -> None:
    """Rows that nobody asks about any more."""
    await running.run(handlers.forget_old)


JOBS = [
    Job("publish_totals", every_seconds=0.5, run=publish_totals),
    Job("give_up_workers", every_seconds=1.0, run=give_up_workers),
    Job("write_off_holds", every_seconds=5.0, run=write_off_holds),
    Job("add_ledger_months", every_seconds=3600.0, run=add_ledger_months),
    Job("forget_old", every_seconds=3600.0, run=forget_old),
]
