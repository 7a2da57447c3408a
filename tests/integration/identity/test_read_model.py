"""What identity reads is what its log says: folded again, the same rows come out (design §4)."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from services.budgets.events import ScopeTotal, SpendTotalsPublished
from services.identity import read_model
from services.identity.service import SERVICE
from shared.event_store import Transaction, read_log
from shared.events import Event, UnknownEvent, from_cloudevent
from shared.projections import Projection
from shared.schema import async_url
from shared.service import Service
from tests.support.identity import an_email, new_user, session_of
from tests.support.installation import PASSWORD, Installation


@pytest.fixture(scope="module")
async def lived_in(it: Installation) -> Installation:
    """An installation in which all kinds of things happened."""
    people = [await it.invite(user_role=role) for role in ("internal_user", "proxy_admin", "internal_user_viewer")]
    first, second, third = people
    await session_of(it, first.email, PASSWORD)
    body = {
        "user_id": first.user_id,
        "user_alias": "Ada",
        "max_budget": 5,
        "budget_duration": "5d",
        "models": ["mock-fast"],
    }
    await it.ok("POST", "/user/update", body)
    await it.ok("POST", "/user/update", {"user_id": first.user_id, "user_role": "proxy_admin_viewer"})
    await it.ok("POST", "/user/update", {"user_id": first.user_id, "user_alias": None, "metadata": {"a": [1, 2.5]}})
    await it.ok("POST", "/session/logout", key=second.session)
    await it.ok("POST", "/user/update", {"user_id": second.user_id, "user_email": an_email()})
    await new_user(it, user_email=second.email)
    await it.ok("POST", "/user/delete", {"user_ids": [third.user_id]})
    await new_user(it, user_email=third.email, user_alias="successor")
    for spent in (1, 2):
        await publish_spend(it, {first.user_id: spent, second.user_id: 10 * spent})
    await it.running("identity").fence({"budgets"})
    return it


async def publish_spend(it: Installation, nano_usd: dict[str, int]) -> None:
    totals = tuple(
        ScopeTotal(
            scope=scope,
            window_start=None,
            window_end=datetime.now(UTC) + timedelta(days=1),
            window_spent_nano_usd=spent,
            total_spent_nano_usd=2 * spent,
            last_used_at=None,
        )
        for user_id, spent in nano_usd.items()
        for scope in (f"user:{user_id}", f"key:of {user_id}", "proxy")
    )

    async def publish(tx: Transaction) -> None:
        await tx.record("totals", SpendTotalsPublished(totals=totals, published_at=tx.now))

    await it.running("budgets").run(publish)


@pytest.fixture
async def fresh(lived_in: Installation) -> AsyncIterator[AsyncConnection]:
    """A connection that sees every read model of identity's empty, by tables of its own that hide the live ones."""
    options = {"server_settings": {"search_path": "identity"}}
    engine = create_async_engine(async_url(lived_in.owner_url), connect_args=options)
    try:
        async with engine.connect() as connection, connection.begin():
            for table in read_model.METADATA.tables:
                await connection.exec_driver_sql(
                    f"create temporary table {table} (like identity.{table} including all) on commit drop"
                )
            yield connection
    finally:
        await engine.dispose()


async def log_of(it: Installation, service: str) -> list[Event]:
    """A service's events in order, as its subscribers hear them."""
    running = it.running(service)

    async def read(tx: Transaction) -> list[Event]:
        envelopes, _ = await read_log(tx.connection, tx.catalog, 0, 100_000)
        return [from_cloudevent(json.dumps(envelope).encode(), tx.catalog).event for envelope in envelopes]

    events: list[Event] = await running.run(read)
    return events


async def fold(it: Installation, connection: AsyncConnection, projection: Projection, events: list[Event]) -> None:
    async def nothing(_: Transaction, __: Event) -> None: ...

    tx = Transaction(connection, SERVICE.catalog, nothing, datetime.now(UTC), settings=it.settings["identity"])
    for event in events:
        await projection.project(tx, event)


async def rows(connection: AsyncConnection, schema: str, table: Table) -> list[Any]:
    key = ", ".join(column.name for column in table.primary_key)
    found = await connection.exec_driver_sql(f"select t::text from {schema}.{table.name} t order by {key}")
    return list(found.scalars())


@pytest.mark.parametrize("projection", SERVICE.projections, ids=[each.name for each in SERVICE.projections])
async def test_a_read_model_that_is_built_again_is_the_live_one_row_for_row(
    lived_in: Installation, fresh: AsyncConnection, projection: Projection
) -> None:
    await fold(lived_in, fresh, projection, await log_of(lived_in, projection.source))
    for table in projection.tables:
        live = await rows(fresh, "identity", table)
        assert len(live) > 1
        assert await rows(fresh, "pg_temp", table) == live


@pytest.mark.parametrize("projection", SERVICE.projections, ids=[each.name for each in SERVICE.projections])
async def test_events_that_do_not_concern_it_change_no_row(
    lived_in: Installation, fresh: AsyncConnection, projection: Projection
) -> None:
    others = [each for each in ("identity", "budgets", "invitations", "keys") if each != projection.source]
    events = [event for service in others for event in await log_of(lived_in, service)]
    await fold(
        lived_in, fresh, projection, [*events, UnknownEvent(type="UserPainted", version=1, data={"user_id": "x"})]
    )
    for table in projection.tables:
        assert await rows(fresh, "pg_temp", table) == []


def test_every_table_is_some_projections() -> None:
    service: Service[Any] = SERVICE
    projected = {table.name for projection in service.projections for table in projection.tables}
    assert projected == set(service.metadata.tables)
