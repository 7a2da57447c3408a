"""While the database is away nothing is admitted, nothing is lost, and whoever asks is told to ask again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from shared.errors import Refused, Unavailable
from shared.schema import role_of
from tests.support.budgets_world import World
from tests.support.servers import postgres_url


@asynccontextmanager
async def database_away(world: World) -> AsyncIterator[None]:
    """Budgets' database takes no connection of any service, and ends those that there are."""
    name = await world.owner.fetchval("select current_database()")
    admin = await asyncpg.connect(postgres_url())
    try:
        await admin.execute(f"alter database {name} with allow_connections false")
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename = $2",
            name,
            role_of("budgets"),
        )
        yield
    finally:
        await admin.execute(f"alter database {name} with allow_connections true")
        await admin.close()


async def test_holds_and_settlements_wait_for_the_database(world: World) -> None:
    key = await world.new_key(100)
    hold_id = await world.hold(key, 60)
    positions = await world.positions()
    async with database_away(world):
        for asked in (world.place(key, 1, positions=positions), world.settle(hold_id, 25, key)):
            with pytest.raises(Refused) as refused:
                await asked
            assert isinstance(refused.value, Unavailable)
            assert refused.value.code == "budgets_unavailable"
            assert refused.value.headers == {"Retry-After": "1"}
    assert (await world.settle(hold_id, 25, key)).charged_nano_usd == 25
    await world.spend(key, 75)
    assert (await world.window(key.scope)).spent == 100
