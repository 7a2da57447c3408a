"""One request's story: from HTTP through the gate to the event, and on to the subscriber's own event (design §4)."""

import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import aiohttp
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from shared.answers import JsonAnswer
from shared.gate import answer_refusals
from shared.permissions import Operation, Role
from shared.principal import Principal, may, running
from shared.service import Running
from tests.support.doors import gated
from tests.support.installation import serving
from tests.support.toys import Toys, close_account, deposit, note, open_account

router = APIRouter()
Ledger = Annotated[Running[Any], Depends(running("ledger"))]
Reader = Annotated[Running[Any], Depends(running("reader"))]
User = Annotated[Principal, may(Operation.KEY_GENERATE)]


@router.post("/accounts/{account}")
async def open_route(request: Request, ledger: Ledger, account: str, _: User) -> Any:
    await ledger.run(open_account, account)
    await ledger.run(deposit, account, 5)
    return JsonAnswer({"call_id": request.scope["keystead.call_id"]})


@router.delete("/accounts/{account}")
async def close_route(ledger: Ledger, account: str, _: User) -> Any:
    await ledger.run(close_account, account)
    return JsonAnswer({})


@router.post("/notes/{account}")
async def note_route(reader: Reader, account: str, _: User) -> Any:
    await reader.run(note, account)
    return JsonAnswer({})


async def identify(request: Request) -> Principal:
    return Principal(request.headers["Authorization"], Role.INTERNAL_USER, "session")


@pytest.fixture
async def url(toys: Toys) -> AsyncIterator[str]:
    app = FastAPI()
    app.state.services = {"ledger": toys.ledger, "reader": toys.reader}
    app.include_router(router)
    answer_refusals(app)
    async with serving(gated(app, router.routes, identify)) as url:
        yield url


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": "ada"}) as session:
        yield session


async def test_actor_and_correlation_go_from_the_request_to_the_last_subscriber(
    toys: Toys, url: str, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{url}/accounts/a") as answer:
        call_id = (await answer.json())["call_id"]
    await toys.heard()
    assert str(uuid.UUID(call_id)) == call_id
    events = await toys.place.fetch(
        "select id::text, type, actor, correlation_id, causation_id from ledger.events order by position"
    )
    assert [row[1:] for row in events] == [("Opened", "ada", call_id, None), ("Deposited", "ada", call_id, None)]
    reactions = await toys.place.fetch("select type, actor, correlation_id, causation_id from reader.events")
    assert reactions == [("Noted", "ada", call_id, events[1][0])]


async def test_two_requests_are_two_stories(toys: Toys, url: str, http: aiohttp.ClientSession) -> None:
    for account in ("a", "b"):
        async with http.post(f"{url}/accounts/{account}") as answer:
            assert answer.status == 200
    assert await toys.place.value("select count(distinct correlation_id) from ledger.events") == 2


async def test_read_your_writes_across_services_over_http(toys: Toys, url: str, http: aiohttp.ClientSession) -> None:
    for number in range(10):
        async with http.post(f"{url}/accounts/a{number}") as answer:
            assert answer.status == 200
        async with http.post(f"{url}/notes/a{number}") as answer:
            assert answer.status == 200, await answer.text()


async def test_a_refusal_that_a_handler_raises_is_the_clients_answer(url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{url}/notes/nobody") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["reason"] == "not_found"


async def test_a_command_with_a_barrier_answers_when_it_has_passed(
    toys: Toys, url: str, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{url}/accounts/a"):
        pass
    async with http.delete(f"{url}/accounts/a") as answer:
        assert answer.status == 200
    assert toys.place.barriers == [("ledger", {"ledger": 3})]


async def test_while_a_source_is_away_the_answer_is_503_with_retry_after(
    toys: Toys, url: str, http: aiohttp.ClientSession
) -> None:
    await toys.ledger.wire.broker.stop()
    async with http.post(f"{url}/notes/nobody") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert (await answer.json())["error"]["reason"] == "unavailable"
