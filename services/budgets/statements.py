"""SQL as it is written, with numbered parameters: what the rooms of rows speak to the database with."""

from collections.abc import Sequence
from typing import Any

from shared.event_store import Transaction


async def fetch(tx: Transaction, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """The rows of a statement that returns some."""
    rows: Sequence[Any] = (await tx.connection.exec_driver_sql(sql, parameters)).all()
    return [tuple(row) for row in rows]


async def execute(tx: Transaction, sql: str, *parameters: object) -> None:
    """Run a statement whose rows nobody needs."""
    await tx.connection.exec_driver_sql(sql, parameters)
