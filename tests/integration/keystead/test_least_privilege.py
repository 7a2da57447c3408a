"""Least privilege, by trying: what a service's log-ins at PostgreSQL and NATS may not do, over all services there are.

A service that is new is tried without a line here. What NATS's users may do is in `test_nats_users.py`, and what the
kernel's tables allow in `tests/integration/shared/test_event_store.py`.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from keystead.app import SERVICES, migrate, postgres_urls
from keystead.nats_users import SUBSCRIBER
from shared.schema import role_of
from tests.support.installation import Installation, installation, keyring
from tests.support.nats_logins import NAMES, login, nats_of_all

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
KINDS = ("r", "p", "v", "m", "f")  # what can be read or written: tables, partitioned ones, views, foreign ones


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    """One in which every service has made its tables, and something has happened."""
    async with installation() as running:
        await migrate(running.owner_url, keyring())  # a copy of a database has not the rights on it
        ada = await running.invite()
        await running.ok("POST", "/key/generate", {}, key=ada.session)
        yield running


@pytest_asyncio.fixture(scope="module")
async def owner(it: Installation) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(it.owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def own(it: Installation, name: str) -> AsyncIterator[Connection]:
    """The service's own log-in."""
    connection = await asyncpg.connect(postgres_urls(it.owner_url, keyring())[name])
    yield connection
    await connection.close()


async def tables_of_others(owner: Connection, name: str) -> list[str]:
    """In whatever schema they are, but in PostgreSQL's own."""
    rows = await owner.fetch(
        "select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace where c.relkind = any($2) and n.nspname <> all($1::text[])"
        " and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1",
        [name, f"{name}_building"],
        [kind.encode() for kind in KINDS],
    )
    return [row["name"] for row in rows]


async def allowed(connection: Connection, statements: Sequence[str]) -> list[str]:
    """Those of ``statements`` that were not refused for want of a right. None of them is ever committed."""
    done = []
    for statement in statements:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            continue
        except asyncpg.PostgresError as fault:
            done.append(f"{statement}: {fault!r}")
        else:
            done.append(statement)
        finally:
            await transaction.rollback()
    return done


# PostgreSQL


def touching(table: str) -> Iterator[str]:
    """Every way to read or change a table."""
    yield f"select from {table}"
    yield f"insert into {table} default values"
    yield f"delete from {table}"
    yield f"truncate {table}"
    yield f"lock table {table} in access share mode"
    yield f"drop table {table}"
    yield f"alter table {table} add column mine int"


@pytest.mark.parametrize("name", NAMES)
async def test_a_services_role_touches_no_table_of_another(
    it: Installation, owner: Connection, own: Connection, name: str
) -> None:
    others = await tables_of_others(owner, name)
    assert len(others) > 5 * (len(NAMES) - 1), "the kernel's alone are more"
    assert await allowed(own, [statement for table in others for statement in touching(table)]) == []


CHANGES = [
    "update {0}.events set {column} = {column}",
    "delete from {0}.events",
    "truncate {0}.events",
    "truncate {0}.events cascade",
    "alter table {0}.events add column mine int",
    "alter table {0}.events drop column actor",
    "alter table {0}.events disable trigger all",
    "alter table {0}.events drop constraint events_pkey",
    "alter table {0}.events rename to mine",
    "alter table {0}.events set schema public",
    "alter table {0}.events owner to current_user",
    "alter table {0}.events set unlogged",
    "drop table {0}.events",
    "drop table {0}.events cascade",
    "drop schema {0} cascade",
    "alter schema {0} owner to current_user",
    "create rule mine as on insert to {0}.events do instead nothing",
    "create index mine on {0}.events (actor)",
    "drop function {0}.append_events(jsonb)",
    "alter function {0}.append_events(jsonb) security definer",
    "create or replace function {0}.append_events(batch jsonb) returns bigint language sql as 'select 1::bigint'",
    "insert into {0}.relay (only_row, published) values (false, 0)",
    "delete from {0}.subscriptions",
    "update {0}.kernel_version set version_num = version_num",
    "set session_replication_role = replica",
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_services_role_changes_no_event_of_its_own(
    it: Installation, owner: Connection, own: Connection, name: str
) -> None:
    columns = await owner.fetch(
        "select column_name from information_schema.columns where table_schema = $1 and table_name = 'events'", name
    )
    statements = [
        change.format(name, column=row["column_name"])
        for change in CHANGES
        for row in (columns if "{column}" in change else columns[:1])
    ]
    assert len(columns) > 8
    assert await allowed(own, statements) == []


GRANTS = (
    "grant all on {0}.events to public",
    "grant all on {0}.events to current_user",
    "grant all on {0}.events to {1}",
)
WHO_MAY = "select relacl::text from pg_class where oid = '{0}.events'::regclass"


@pytest.mark.parametrize("name", NAMES)
async def test_a_services_role_grants_nobody_anything_on_its_log(own: Connection, name: str) -> None:
    """PostgreSQL only warns of a grant that grants nothing."""
    before = await own.fetchval(WHO_MAY.format(name))
    async with own.transaction():
        for other in NAMES:
            for grant in GRANTS:
                await own.execute(grant.format(name, role_of(other)))
        assert await own.fetchval(WHO_MAY.format(name)) == before


@pytest.mark.parametrize("name", NAMES)
async def test_a_services_role_destroys_no_table_of_truth(
    it: Installation, owner: Connection, own: Connection, name: str
) -> None:
    """Its read models are its own; what was migrated is the owner's."""
    rows = await owner.fetch(
        "select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relkind in ('r', 'p')"
        " and c.relowner <> $2::regrole and not c.relispartition",
        name,
        role_of(name),
    )
    assert len(rows) >= 5
    verbs = ("drop table {}", "alter table {} add column mine int", "alter table {} owner to current_user")
    assert await allowed(own, [verb.format(row["name"]) for row in rows for verb in verbs]) == []


ELSEWHERE = [
    "create table {0}.mine (a int)",
    "create view {0}.mine as select 1",
    "create function {0}.mine() returns int language sql as 'select 1'",
    "create type {0}.mine as enum ('a')",
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_services_role_makes_nothing_outside_its_schema(own: Connection, name: str) -> None:
    schemas = ["public", *(other for other in NAMES if other != name)]
    statements = [statement.format(schema) for schema in schemas for statement in ELSEWHERE]
    statements += [
        "create schema mine",
        "create temporary table mine (a int)",
        f"create extension dblink schema {name}",
    ]
    assert await allowed(own, statements) == []


@pytest.mark.parametrize("name", NAMES)
async def test_a_services_role_runs_no_function_of_another(own: Connection, name: str) -> None:
    others = [other for other in NAMES if other != name]
    statements = [f"select {other}.append_events('[]'::jsonb)" for other in others]
    assert await allowed(own, statements) == []


@pytest.mark.parametrize("name", NAMES)
async def test_a_services_role_becomes_nobody_else(
    it: Installation, owner: Connection, own: Connection, name: str
) -> None:
    roles = await owner.fetch(
        "select quote_ident(rolname) as role from pg_roles where rolname <> all($1::text[])",
        [role_of(name), "pg_database_owner"],  # which has the owner as its one member, for ever
    )
    become = ("set role {}", "set session authorization {}", "grant {} to current_user")
    statements = [each.format(row["role"]) for row in roles for each in become]
    statements += [
        f"alter role {role_of(name)} superuser",
        f"alter role {role_of(name)} createrole",
        "create role mine",
        "copy (select 1) to program 'true'",
        "select pg_read_file('/etc/passwd')",
        "select pg_reload_conf()",
    ]
    assert await allowed(own, statements) == []


async def test_the_trying_finds_what_is_allowed(owner: Connection, it: Installation) -> None:
    """Else all of the above would say nothing: the owner may do these."""
    tried = ["select from keys.events", "update keys.events set actor = actor", "create table public.mine (a int)"]
    assert await allowed(owner, tried) == tried
    assert await owner.fetchval("select count(*) from keys.events") > 0


# NATS


@pytest.fixture(scope="module")
async def urls(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    async with nats_of_all(tmp_path_factory.mktemp("nats")) as addresses:
        yield addresses


def forbidden_to(name: str) -> Iterator[str]:
    """Where somebody of this name may send nothing: others' events, their streams, their answers."""
    for service in SERVICES:
        if service.name == name:
            continue
        stream = service.name.upper()
        yield f"{service.name}.anything.at.all"
        yield from (f"{service.name}.{event}.it-1" for event in service.catalog.types)
        yield from (f"$js.api.stream.{verb}.{stream}" for verb in ("delete", "purge", "msg.get", "msg.delete"))
        yield f"$js.api.direct.get.{stream}"
        yield f"_inbox_{service.name}.x.1"
    yield from ("$js.api.info", "$js.api.stream.names", "$sys.req.server.ping", "$js.api.account.purge.keystead")


@pytest.mark.parametrize("name", [*NAMES, SUBSCRIBER])
async def test_nobody_sends_in_anothers_name(urls: dict[str, str], name: str) -> None:
    forbidden = {subject.lower(): _as_sent(subject) for subject in forbidden_to(name)}
    assert len(forbidden) > 50
    refused = set[str]()
    async with login(urls, name) as it:
        for subject in forbidden.values():
            await it.client.publish(subject, b"{}")
        await it.client.flush()
        for _ in forbidden:
            refused.add((await it.refusal()).partition('publish to "')[2].partition('"')[0])
    assert refused == forbidden.keys()


def _as_sent(subject: str) -> str:
    """NATS's own subjects are in capitals, but for names; and it tells of refusals in small letters."""
    if not subject.startswith("$") and not subject.startswith("_"):
        return subject
    return subject.upper() if subject.startswith("$") else subject.replace("_inbox_", "_INBOX_")


@pytest.mark.parametrize("name", [*NAMES, SUBSCRIBER])
async def test_nobody_hears_what_another_is_asked_or_answered(urls: dict[str, str], name: str) -> None:
    others = [other for other in NAMES if other != name]
    subjects = [subject for other in others for subject in (f"ask.{other}.*", f"_INBOX_{other}.>", f"{other}.>")]
    async with login(urls, name) as it:
        for subject in subjects:
            await it.client.subscribe(subject)
            assert f'subscription to "{subject.lower()}"' in await it.refusal()
