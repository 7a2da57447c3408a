"""Schemas and roles: one of each a service. What is truth is migrated by Alembic, as the owner; read models are not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alembic import op
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

KERNEL_MIGRATIONS = Path(__file__).parent / "migrations"
# Two `keystead migrate` at once would race for roles and version tables.
MIGRATION_LOCK = 0x6B657973


def role_of(service: str) -> str:
    """The login role of a service; it may use its own schema and no other."""
    return f"keystead_{service}"


def async_url(url: str) -> str:
    """``postgresql://…`` or ``postgres://…`` as SQLAlchemy's asyncpg dialect wants it."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+asyncpg://" + url.removeprefix(scheme)
    return url


def run_script(path: Path) -> None:
    """Run a file of SQL inside a migration; ``{schema}`` and ``{role}`` in it are the service's."""
    schema = op.get_context().opts["version_table_schema"]
    script = path.read_text().replace("{schema}", schema).replace("{role}", role_of(schema))
    # asyncpg prepares what goes through SQLAlchemy, and a prepared statement is one statement.
    op.get_bind().connection.dbapi_connection.run_async(lambda raw: raw.execute(script))  # type: ignore[union-attr]


async def migrate(owner_url: str, services: Mapping[str, Sequence[Path]], passwords: Mapping[str, str]) -> None:
    """Bring roles, schemas and the tables that are truth up to date. Safe to repeat, and to run twice at once.

    ``services`` gives each service's own folders of migrations; ``passwords`` its role's password.
    """
    engine = create_async_engine(async_url(owner_url))
    try:
        async with engine.begin() as connection:
            await connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            for service, folders in services.items():
                await connection.run_sync(_prepare, service, passwords[service])
                for folder in (KERNEL_MIGRATIONS, *folders):
                    await connection.run_sync(_upgrade, folder, service)
    finally:
        await engine.dispose()


async def is_current(connection: Any, service: str, folders: Sequence[Path]) -> bool:
    """Whether all that this version needs was migrated, or more; ``connection`` is asyncpg's, of the service's role."""
    for folder in (KERNEL_MIGRATIONS, *folders):
        table = f"{service}.{_version_table(folder)}"
        if await connection.fetchval("select to_regclass($1)", table) is None:
            return False
        version = await connection.fetchval(f"select version_num from {table}")
        # One that this version does not know is a later one's: the old code runs on the new schema.
        known = {each.revision for each in ScriptDirectory(str(folder)).walk_revisions()}
        if version in known and version != ScriptDirectory(str(folder)).get_current_head():
            return False
    return True


def _version_table(folder: Path) -> str:
    return "kernel_version" if folder == KERNEL_MIGRATIONS else "service_version"


def _prepare(connection: Connection, service: str, password: str) -> None:
    role = role_of(service)
    exists = connection.execute(text("select 1 from pg_roles where rolname = :role"), {"role": role}).scalar()
    verb = "alter" if exists else "create"
    # DDL takes no parameters; the password is one of ours (base64url), and quoted all the same.
    quoted = connection.execute(text("select quote_literal(:password)"), {"password": password}).scalar_one()
    connection.execute(text(f"{verb} role {role} login nosuperuser nocreatedb nocreaterole password {quoted}"))
    connection.execute(text(f"create schema if not exists {service}"))
    database = connection.execute(text("select quote_ident(current_database())")).scalar_one()
    connection.execute(text(f"revoke all on database {database} from public"))
    connection.execute(text(f"grant connect on database {database} to {role}"))
    connection.execute(text("revoke all on schema public from public"))


def _upgrade(connection: Connection, folder: Path, schema: str) -> None:
    script = ScriptDirectory(str(folder))

    def revisions(current: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs("head", current)

    version_table = _version_table(folder)
    with EnvironmentContext(Config(), script, fn=revisions) as environment:
        environment.configure(connection=connection, version_table=version_table, version_table_schema=schema)
        environment.run_migrations()
    connection.execute(text(f"grant select on {schema}.{version_table} to {role_of(schema)}"))
