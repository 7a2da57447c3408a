"""Databases of tests: each a copy of a migrated template, made and dropped in a few hundredths of a second."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from tests.support.servers import postgres_url

LOCK = 0x7465  # a template can't be copied while another worker migrates it

_migrated: set[str] = set()


def url_of(database: str) -> str:
    """The owner's address of a database of this run's server."""
    return f"{postgres_url().rpartition('/')[0]}/{database}"


@asynccontextmanager
async def copy_of(template: str, migrate: Callable[[str], Awaitable[None]]) -> AsyncIterator[str]:
    """The owner's URL of a new copy of ``template``, which ``migrate`` brings up to date once a process."""
    name = f"{template}_{uuid.uuid4().hex[:12]}"
    owner = await asyncpg.connect(postgres_url())
    try:
        async with _locked(owner):
            await _bring_up_to_date(owner, template, migrate)
            await owner.execute(f"create database {name} template {template}")
        try:
            yield url_of(name)
        finally:
            await owner.execute(f"drop database {name} with (force)")
    finally:
        await owner.close()


async def _bring_up_to_date(
    owner: "asyncpg.Connection[asyncpg.Record]", template: str, migrate: Callable[[str], Awaitable[None]]
) -> None:
    if template in _migrated:
        return
    if not await owner.fetchval("select 1 from pg_database where datname = $1", template):
        await owner.execute(f"create database {template}")
    await migrate(url_of(template))
    _migrated.add(template)


@asynccontextmanager
async def _locked(owner: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[None]:
    await owner.execute("select pg_advisory_lock($1)", LOCK)
    try:
        yield
    finally:
        await owner.execute("select pg_advisory_unlock($1)", LOCK)
