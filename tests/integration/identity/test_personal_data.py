"""Nothing secret is stored anywhere, nothing personal in an event, in NATS or in a log line (design §3)."""

import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace

import aiohttp
import asyncpg
import pytest

from services.identity.api.onboarding import hash_of_link
from services.identity.domain.user import stream_of
from tests.support.eventually import eventually
from tests.support.identity import claim, invite, log_in, log_of, new_user, open_link, session_of
from tests.support.installation import Installation, claims_of

ADDRESS = "127.0.0.77"  # also of this machine, and distinct
BROWSER = "Personal-Browser/7.7"
CALL = {"model": "mock-fast", "messages": [{"role": "user", "content": "a prompt that nobody keeps"}]}


@dataclass
class Traces:
    """What a person's whole way through Keystead might leave behind."""

    user_id: str = ""
    secrets: set[str] = field(default_factory=set)
    personal: set[str] = field(default_factory=lambda: {ADDRESS, BROWSER})


@pytest.fixture(scope="module")
async def persons_it(it: Installation) -> AsyncIterator[Installation]:
    """The installation as somebody reaches it from an address and with a browser of their own."""
    connector = aiohttp.TCPConnector(local_addr=(ADDRESS, 0))
    async with aiohttp.ClientSession(connector=connector, headers={"User-Agent": BROWSER}) as http:
        yield replace(it, http=http)


@pytest.fixture(scope="module")
async def traces(persons_it: Installation) -> Traces:
    return await whole_way(persons_it)


async def whole_way(it: Installation) -> Traces:
    """Made, invited, claimed, logged in and out, keys, calls, changes, a reset, refusals of all kinds, deleted."""
    traces, mark = Traces(), uuid.uuid4().hex[:12]
    emails = [f"ada.{mark}@example.test", f"countess.{mark}@example.test"]
    aliases = [f"Ada {mark}", f"Countess {mark}"]
    passwords = [f"the first password {mark}", f"the second password {mark}"]
    mistakes = [f"short {mark[:4]}", f"a mistaken password {mark}"]
    traces.personal |= {mark, *emails, *aliases}
    traces.secrets |= {*passwords, *mistakes, CALL["messages"][0]["content"]}  # type: ignore[index]

    user = await new_user(
        it, user_email=emails[0], user_alias=aliases[0], user_role="internal_user", auto_create_key=True
    )
    user_id = traces.user_id = user["user_id"]
    links = [await invite(it, user_id) for _ in range(2)]
    credentials = [await open_link(it, link) for link in links]
    assert (await claim(it, links[0], user_id, mistakes[0], credentials[0]))[0] == 400
    status, claimed = await claim(it, links[0], user_id, passwords[0], credentials[0])
    assert status == 200
    assert (await claim(it, links[0], user_id, passwords[1], credentials[0]))[0] == 401
    sessions = [claims_of(claimed["token"])["key"], await session_of(it, emails[0].upper(), passwords[0])]
    assert (await log_in(it, emails[0], mistakes[1]))[0] == 401

    key = await it.ok("POST", "/key/generate", {"max_budget": 1}, key=sessions[0])
    for each in (key["key"], user["key"]):
        await it.ok("POST", "/v1/chat/completions", CALL, key=each)
        await it.ok("GET", "/keystead/v1/me", key=each)
    body = {"user_id": user_id, "user_email": emails[1], "user_alias": aliases[1]}
    await it.ok("POST", "/user/update", body)
    assert (await it.call("POST", "/user/new", {"user_email": emails[1]}))[0] == 409

    links.append(await invite(it, user_id))
    credentials.append(await open_link(it, links[2]))
    assert (await claim(it, links[2], user_id, passwords[1], credentials[2]))[0] == 200
    sessions.append(await session_of(it, emails[1], passwords[1]))
    await it.ok("POST", "/session/logout", key=sessions[2])
    links.append(await invite(it, user_id))
    await it.ok("POST", "/user/delete", {"user_ids": [user_id]})
    traces.secrets |= {*links, *credentials, *sessions, key["key"], user["key"], claimed["token"]}
    return traces


def found_in(texts: Iterable[str], needles: Iterable[str]) -> set[str]:
    sought = {needle.lower() for needle in needles}
    return {needle for text in texts for needle in sought if needle in text.lower()}


async def rows_of(it: Installation, *, events_only: bool) -> dict[str, list[str]]:
    """Every row of every table, all columns as text."""
    connection = await asyncpg.connect(it.owner_url)
    try:
        tables = await connection.fetch(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        )
        names = [f"{row['schemaname']}.{row['tablename']}" for row in tables]
        wanted = [name for name in names if name.endswith(".events") or not events_only]
        return {name: [row[0] for row in await connection.fetch(f"select t::text from {name} t")] for name in wanted}
    finally:
        await connection.close()


async def messages_of(it: Installation) -> list[str]:
    """Everything that NATS stored for this installation: subjects, headers, bodies."""
    wire, messages = it.running("gateway").wire, list[str]()
    ours = wire.stream_of("")
    for stream in await wire.jetstream.streams_info():
        name = stream.config.name or ""
        if name.startswith(ours) and stream.state.messages:
            for sequence in range(stream.state.first_seq, stream.state.last_seq + 1):
                message = await wire.jetstream.get_msg(name, sequence)
                messages.append(f"{message.subject} {message.headers} {(message.data or b'').decode()}")
    return messages


async def is_all_published(it: Installation) -> bool:
    connection = await asyncpg.connect(it.owner_url)
    try:
        return all(
            [
                await connection.fetchval(
                    f"select published = (select coalesce(max(position), 0) from {name}.events) from {name}.relay"
                )
                for name in it.composition.services
            ]
        )
    finally:
        await connection.close()


async def test_no_secret_is_in_any_table(it: Installation, traces: Traces) -> None:
    for table, rows in (await rows_of(it, events_only=False)).items():
        assert found_in(rows, traces.secrets) == set(), table


async def test_nothing_personal_is_in_any_event(it: Installation, traces: Traces) -> None:
    tables = await rows_of(it, events_only=True)
    assert len(tables) == len(it.composition.services)
    assert found_in(tables["identity.events"], [traces.user_id]) == {traces.user_id}
    for table, rows in tables.items():
        assert found_in(rows, traces.personal) == set(), table


async def test_nothing_secret_or_personal_is_in_what_nats_stored(it: Installation, traces: Traces) -> None:
    await eventually(lambda: is_all_published(it))
    messages = await messages_of(it)
    assert found_in(messages, [traces.user_id]) == {traces.user_id}
    assert found_in(messages, traces.personal | traces.secrets) == set()


async def test_what_was_sealed_is_there_and_only_identity_opens_it(it: Installation, traces: Traces) -> None:
    """The search above would also find nothing in a log that lost it."""
    created, *rest = await log_of(it, stream=stream_of(traces.user_id))
    assert created.data["sealed_email"] and created.data["sealed_alias"]
    assert [recorded.type for recorded in rest] == ["PasswordSet", "UserUpdated", "PasswordSet", "UserDeleted"]
    updated = rest[1].data
    assert updated["sealed_email"] != created.data["sealed_email"]
    started = [r.data for r in await log_of(it) if r.type == "SessionStarted" and r.data["user_id"] == traces.user_id]
    assert all(session["sealed_ip"] and session["sealed_user_agent"] for session in started)


async def test_an_invitation_is_known_by_its_hash(it: Installation, traces: Traces) -> None:
    rows = (await rows_of(it, events_only=True))["invitations.events"]
    links = [secret for secret in traces.secrets if len(secret) == 36 and secret.count("-") == 4]
    assert len(links) == 4
    assert found_in(rows, map(hash_of_link, links)) == set(map(hash_of_link, links))


async def test_nothing_secret_or_personal_is_logged(
    persons_it: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    traces = await whole_way(persons_it)
    written = capfd.readouterr()
    assert found_in([written.out, written.err], traces.personal | traces.secrets) == set()
