"""Correlation, causation and actor: from the HTTP request to the last subscriber, in each event and each line logged.

Exempt are lines of work that nobody asked for (a connection lost, a worker that joined) and of libraries.
"""

import asyncio
import io
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import structlog

from keystead.app import SERVICES
from keystead.servers import free_port
from services.budgets.requests import BARRIER_TOPIC
from shared import trace
from shared.errors import Unavailable
from shared.event_store import Transaction
from shared.events import Recorded
from shared.log import configure
from shared.service import Service
from shared.settings import Settings
from tests.support.eventually import eventually
from tests.support.installation import installation
from tests.support.serve import Fleet, fleet
from tests.support.toys import LEDGER, READER, Deposited, Echo, Misbehave, Toys, deposit, open_account
from tests.support.toys import place as a_place

ADMIN = "default_user_id"  # whose the master key is
LOGS = tuple(service.name for service in SERVICES if service.catalog.types)


# `keystead serve`, as an operator reads it


@pytest_asyncio.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """All services in one process, and a mail server that is not there."""
    async with fleet(tmp_path_factory.mktemp("served")) as made:
        made.environment |= {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(free_port()),
            "SMTP_TLS": "false",
            "SMTP_SENDER_EMAIL": "keystead@example.test",
        }
        await made.ready(await made.start(*(service.name for service in SERVICES)))
        yield made


@dataclass(frozen=True)
class Told:
    """An event, and what it says of why it is there."""

    id: str
    type: str
    service: str
    correlation_id: str
    causation_id: str | None
    actor: str


async def log_of(served: Fleet) -> list[Told]:
    connection = await asyncpg.connect(served.environment["KEYSTEAD_POSTGRES_URL"])
    try:
        columns = "id::text, type, '{0}', correlation_id, causation_id, actor from {0}.events"
        query = " union all ".join(f"select {columns.format(name)}" for name in LOGS)
        return [Told(*row.values()) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def story_of(served: Fleet, first: str, *others: str) -> dict[str, Told]:
    """What was told under the correlation of the one ``first``, by type, when ``others`` are among it."""
    story: dict[str, Told] = {}

    async def is_told() -> bool:
        every = await log_of(served)
        (begun,) = [each for each in every if each.type == first]
        story.update({each.type: each for each in every if each.correlation_id == begun.correlation_id})
        return story.keys() >= {*others}

    await eventually(is_told, 20.0)
    return story


def lines_of(served: Fleet) -> list[dict[str, Any]]:
    (process,) = served.processes
    return [json.loads(line) for line in process.errors.read_text(encoding="utf-8").splitlines() if line[0] == "{"]


async def test_one_request_is_one_story_down_to_the_mail_that_could_not_be_sent(served: Fleet) -> None:
    """The mail is the last of it, and is tried by a job: what it logs is that request's all the same."""
    user = {"user_email": f"{uuid.uuid4().hex}@example.test", "send_invite_email": True}
    _, _, headers = await served.client.request(
        "POST", "/user/new", user, headers={"x-request-id": "a-request-of-mine"}
    )
    assert headers["x-request-id"] == "a-request-of-mine"
    story = await story_of(
        served, "InvitationCreated", "UserCreated", "KeyGenerated", "InvitationCreated", "NotificationQueued"
    )
    begun, queued = story["UserCreated"], story["NotificationQueued"]
    assert {each.actor for each in story.values()} == {ADMIN}
    assert begun.causation_id is None
    assert story["KeyGenerated"].causation_id == story["InvitationCreated"].causation_id == begun.id
    assert queued.causation_id == story["InvitationCreated"].id

    def not_taken() -> list[dict[str, Any]]:
        return [line for line in lines_of(served) if line["event"] == "notification.not_taken"]

    await eventually(lambda: bool(not_taken()), 20.0)
    told = not_taken()[0]
    assert (told["correlation_id"], told["causation_id"], told["actor"]) == (begun.correlation_id, queued.id, ADMIN)
    deferred = (await story_of(served, "InvitationCreated", "NotificationDeferred"))["NotificationDeferred"]
    assert (deferred.causation_id, deferred.actor) == (queued.id, ADMIN)


async def test_what_goes_with_a_user_is_the_story_of_their_deletion(served: Fleet) -> None:
    user = await served.client.ok("POST", "/user/new", {"user_email": f"{uuid.uuid4().hex}@example.test"})
    await served.client.ok("POST", "/user/delete", {"user_ids": [user["user_id"]]})
    story = await story_of(served, "UserDeleted", "UserDeleted", "KeyDeleted")
    assert story["KeyDeleted"].causation_id == story["UserDeleted"].id
    assert story["KeyDeleted"].actor == story["UserDeleted"].actor == ADMIN


async def test_every_line_is_json_and_names_what_it_is_about(served: Fleet) -> None:
    """Those with a story have all of it."""
    for line in lines_of(served):
        assert {"event", "level", "timestamp"} <= line.keys()
        assert ("correlation_id" in line) == ("actor" in line), line
    (process,) = served.processes
    assert [line for line in process.errors.read_text(encoding="utf-8").splitlines() if line[0] != "{"] == []


# Each place that logs for somebody


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged as `serve` logs it, during the test."""
    out = io.StringIO()
    before, formatters = structlog.get_config(), {handler: handler.formatter for handler in logging.root.handlers}
    configure("info", "json")
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(out))
    yield out
    structlog.configure(**before)
    for handler, formatter in formatters.items():
        handler.setFormatter(formatter)


def found(logged: io.StringIO, event: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in logged.getvalue().splitlines() if line.startswith("{")]
    return next((line for line in lines if line["event"] == event), {})


async def on_deposited(_: Transaction, recorded: Recorded) -> None:
    structlog.get_logger().warning("deposit.odd", position=recorded.position)


SPEAKING: Service[Settings] = replace(
    READER, subscriptions=[replace(READER.subscriptions[0], handlers={Deposited: on_deposited})]
)


async def test_what_a_subscribers_handler_logs_is_the_story_of_the_event(logged: io.StringIO) -> None:
    async with a_place() as here, here.running(LEDGER).started() as ledger, here.running(SPEAKING).started():
        with trace.tracing(trace.Trace("request 7", actor="ada")):
            await ledger.run(open_account, "a")
            await ledger.run(deposit, "a", 5)
        await eventually(lambda: bool(found(logged, "deposit.odd")), 20.0)
        (cause,) = await here.fetch("select id::text from ledger.events where type = 'Deposited'")
    told = found(logged, "deposit.odd")
    assert (told["correlation_id"], told["causation_id"], told["actor"]) == ("request 7", cause[0], "ada")


async def test_that_an_event_could_not_be_handled_is_its_story(logged: io.StringIO) -> None:
    async with a_place() as here, here.running(LEDGER).started() as ledger, here.running(READER).started() as reader:
        reader.own.poison.add("a")
        with trace.tracing(trace.Trace("request 7", actor="ada")):
            await Toys(here, ledger, reader).deposits(1)
        await eventually(lambda: bool(found(logged, "subscription.retrying")), 20.0)
        (cause,) = await here.fetch("select id::text from ledger.events where type = 'Deposited'")
        reader.own.poison.clear()
    told = found(logged, "subscription.retrying")
    assert (told.get("correlation_id"), told.get("causation_id"), told.get("actor")) == ("request 7", cause[0], "ada")


async def test_that_a_question_could_not_be_answered_is_the_askers_story(logged: io.StringIO) -> None:
    async with a_place() as here, here.running(LEDGER).started(), here.running(READER).started() as reader:
        with trace.tracing(trace.Trace("request 7", "an event", "ada")), pytest.raises(Unavailable):
            await reader.wire.ask("ledger", Misbehave(how="crash"), Echo)
    told = found(logged, "wire.answer_failed")
    assert (told["correlation_id"], told["causation_id"], told["actor"]) == ("request 7", "an event", "ada")


async def test_that_a_worker_missed_a_barrier_is_the_story_of_who_raised_it(logged: io.StringIO) -> None:
    async with installation() as it:
        with trace.tracing(trace.Trace("request 7", "an event", "ada")):
            await it.running("budgets").wire.tell(BARRIER_TOPIC, Settings())
        await eventually(lambda: bool(found(logged, "view.barrier_missed")), 20.0)
    told = found(logged, "view.barrier_missed")
    assert (told["correlation_id"], told["causation_id"], told["actor"]) == ("request 7", "an event", "ada")


async def test_work_at_once_does_not_mix_its_stories(logged: io.StringIO) -> None:
    async with a_place() as here, here.running(LEDGER).started() as ledger, here.running(SPEAKING).started() as reader:

        async def pay(number: int) -> None:
            with trace.tracing(trace.Trace(f"request {number}", actor=f"user {number}")):
                await ledger.run(open_account, f"a{number}")
                await ledger.run(deposit, f"a{number}", 5)
                await reader.fence({"ledger"})

        await asyncio.gather(*(pay(number) for number in range(10)))
    lines = [json.loads(line) for line in logged.getvalue().splitlines() if "deposit.odd" in line]
    stories = sorted((line["correlation_id"], line["actor"]) for line in lines)
    assert stories == sorted((f"request {number}", f"user {number}") for number in range(10))
