"""Migrations: a schema and a role for each service, with what it needs and no more (design §2)."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from shared.schema import async_url, is_current, migrate, role_of
from tests.support.databases import url_of
from tests.support.servers import postgres_url
from tests.support.toys import Place

PASSWORD = "a 'quoted' password; -- with \\ and %"
MIGRATION = '''
"""A table of truth."""
from pathlib import Path
from shared.schema import run_script
revision = "{revision}"
down_revision = {down}

def upgrade() -> None:
    run_script(Path(__file__).parent / "{revision}.sql")
'''


@pytest.fixture
async def empty() -> AsyncIterator[Place]:
    """A database in which nothing was ever migrated, and names of services that nobody else migrates."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    owner = await asyncpg.connect(postgres_url())
    try:
        await owner.execute(f"create database {name}")
        yield Place(url_of(name), name, "")
        await owner.execute(f"drop database {name} with (force)")
        roles = await owner.fetch("select rolname from pg_roles where rolname like $1", f"%{name}%")
        for role in roles:
            await owner.execute(f'drop role "{role["rolname"]}"')
    finally:
        await owner.close()


def named(empty: Place, service: str) -> str:
    return f"{service}_{empty.namespace}"


async def migrated(empty: Place, *services: str, password: str = PASSWORD) -> None:
    names = [named(empty, service) for service in services]
    await migrate(empty.owner_url, dict.fromkeys(names, ()), dict.fromkeys(names, password))


async def logged_in(empty: Place, service: str, password: str = PASSWORD) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(empty.owner_url, user=role_of(named(empty, service)), password=password)


async def test_each_service_gets_a_schema_of_its_own_with_the_kernels_tables(empty: Place) -> None:
    await migrated(empty, "a", "b")
    for service in ("a", "b"):
        tables = await empty.fetch(
            "select tablename from pg_tables where schemaname = $1 order by 1", named(empty, service)
        )
        assert [name for (name,) in tables] == [
            "claims",
            "events",
            "kept_answers",
            "kernel_version",
            "relay",
            "subscriptions",
        ]


async def test_migrating_again_changes_nothing(empty: Place) -> None:
    await migrated(empty, "a")
    schema = named(empty, "a")
    await empty.fetch(f"insert into {schema}.claims (claim, stream) values ('kept', 's') returning 1")
    await migrated(empty, "a")
    assert await empty.fetch(f"select claim from {schema}.claims") == [("kept",)]


async def test_two_who_migrate_at_once_do_not_disturb_each_other(empty: Place) -> None:
    await asyncio.gather(*(migrated(empty, "a", "b") for _ in range(3)))
    assert await empty.value("select count(*) from pg_tables where tablename = 'events'") == 2


async def test_a_service_that_is_new_is_added_to_those_that_are_there(empty: Place) -> None:
    await migrated(empty, "a")
    await migrated(empty, "a", "b")
    assert await empty.value("select count(*) from pg_tables where tablename = 'events'") == 2


async def test_a_role_logs_in_with_its_password_of_the_last_migration(empty: Place) -> None:
    await migrated(empty, "a")
    await (await logged_in(empty, "a")).close()
    await migrated(empty, "a", password="another")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await logged_in(empty, "a")
    await (await logged_in(empty, "a", "another")).close()


async def test_a_role_is_nobody_special(empty: Place) -> None:
    await migrated(empty, "a")
    rights = await empty.fetch(
        "select rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls from pg_roles where rolname = $1",
        role_of(named(empty, "a")),
    )
    assert rights == [(False,) * 5]


@pytest.mark.parametrize(
    "statement",
    [
        "create table public.mine (a int)",
        "create temporary table mine (a int)",
        "create schema mine",
        "drop table {own}.events",
        "alter table {own}.events owner to current_user",
        "select 1 from {other}.events",
        "update {own}.kernel_version set version_num = version_num",
        "select 1 from {other}.kernel_version",
        "update {own}.events set actor = 'nobody'",
    ],
)
async def test_what_a_role_may_not(empty: Place, statement: str) -> None:
    await migrated(empty, "a", "b")
    connection = await logged_in(empty, "a")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement.format(own=named(empty, "a"), other=named(empty, "b")))
    finally:
        await connection.close()


async def test_who_is_no_service_of_this_installation_does_not_get_in(empty: Place) -> None:
    """Roles belong to the server: another installation's must not even connect."""
    stranger = role_of(named(empty, "stranger"))
    await migrated(empty, "a")
    await empty.fetch(f"create role {stranger} login password 'x'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(empty.owner_url, user=stranger, password="x")


async def test_a_service_brings_migrations_of_its_own(empty: Place, tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    (tmp_path / "env.py").write_text("")
    _write(versions, "first", None, "create table {schema}.truths (a int); grant select on {schema}.truths to {role};")
    service = named(empty, "a")

    async def bring_up_to_date() -> None:
        await migrate(empty.owner_url, {service: (tmp_path,)}, {service: PASSWORD})

    await bring_up_to_date()
    await bring_up_to_date()
    _write(
        versions,
        "second",
        "first",
        "alter table {schema}.truths add column b int; comment on table {schema}.truths is '%';",
    )
    await bring_up_to_date()
    connection = await logged_in(empty, "a")
    try:
        assert await connection.fetch(f"select a, b from {service}.truths") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"insert into {service}.truths values (1, 2)")
    finally:
        await connection.close()
    assert await empty.fetch(f"select version_num from {service}.service_version") == [("second",)]


def _write(versions: Path, revision: str, down: str | None, script: str) -> None:
    (versions / f"{revision}.py").write_text(MIGRATION.format(revision=revision, down=repr(down)))
    (versions / f"{revision}.sql").write_text(script)


async def test_a_migration_that_fails_leaves_nothing_half_done(empty: Place, tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    (tmp_path / "env.py").write_text("")
    _write(versions, "first", None, "create table {schema}.truths (a int); select nothing from nowhere;")
    service = named(empty, "a")
    with pytest.raises(asyncpg.UndefinedTableError):
        await migrate(empty.owner_url, {service: (tmp_path,)}, {service: PASSWORD})
    assert await empty.value("select count(*) from pg_namespace where nspname = $1", service) == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p@h:1/d?x=y", "postgresql+asyncpg://u:p@h:1/d?x=y"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_urls_are_taken_as_operators_write_them(given: str, expected: str) -> None:
    assert async_url(given) == expected


async def test_a_service_sees_whether_its_tables_are_of_its_version(empty: Place) -> None:
    await migrated(empty, "a", "b")
    connection, service = await logged_in(empty, "a"), named(empty, "a")
    assert await is_current(connection, service, [])
    await set_version(empty, "kernel_0001")
    assert not await is_current(connection, service, [])
    await set_version(empty, "kernel_9999")
    assert await is_current(connection, service, []), "of a later version"
    assert not await is_current(connection, "nobodys", [])
    await connection.close()


async def set_version(empty: Place, version: str) -> None:
    async with empty.owner() as owner:
        await owner.execute(f"update {named(empty, 'a')}.kernel_version set version_num = $1", version)
