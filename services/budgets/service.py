"""Budgets owns limits in force, windows, holds, workers and the usage ledger.

It tells of budgets set, thresholds reached, batches settled and totals; it hears what limits keys and users have.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.budgets import api, events, handlers, jobs, read_model, subscriptions
from services.budgets.batches import Batches
from services.budgets.desk import Desk, place
from services.budgets.settings import BudgetsSettings
from shared.service import Running, Service


@asynccontextmanager
async def lifespan(running: Running[Any]) -> AsyncIterator[Desk]:
    """The replica's desk; what was asked is answered before it goes."""
    desk = Desk(
        places=Batches(lambda asked: place(running, asked)),
        ends=Batches(lambda asked: running.run(handlers.end_calls, asked)),
        ledger_months=await running.run(handlers.add_ledger_months),
    )
    yield desk
    await desk.places.finished()
    await desk.ends.finished()


SERVICE = Service(
    name="budgets",
    settings=BudgetsSettings,
    catalog=events.CATALOG,
    routes=[api.router],
    metadata=read_model.METADATA,
    projections=read_model.PROJECTIONS,
    subscriptions=subscriptions.SUBSCRIPTIONS,
    answers=subscriptions.ANSWERS,
    jobs=jobs.JOBS,
    migrations=[Path(__file__).parent / "migrations"],
    lifespan=lifespan,
)
