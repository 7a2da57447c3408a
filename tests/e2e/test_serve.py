"""The main job through separate processes: each service its own, keys and gateway twice, HTTP and NATS between them."""

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest
import pytest_asyncio

from keystead.nats_users import subscriber_url
from tests.support.eventually import eventually
from tests.support.flow import CHAT, refusal, self_serve
from tests.support.installation import MASTER_KEY, Client, keyring
from tests.support.raw_http import read_answer
from tests.support.serve import Fleet, fleet, whole
from tests.support.subscriber import subscriber

TIMES = 100


@pytest_asyncio.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("served")) as made:
        await whole(made)
        yield made


@pytest.mark.timeout(280)
async def test_the_flow_runs_a_hundred_times_with_no_pause(served: Fleet) -> None:
    client = served.client
    for _ in range(TIMES):
        await self_serve(client)


@pytest.mark.timeout(60)
async def test_an_outside_subscriber_hears_what_happens(served: Fleet) -> None:
    address = subscriber_url(served.environment["KEYSTEAD_NATS_URL"], keyring())
    made = await self_serve(served.client)
    with subscriber(address) as listening:
        await asyncio.to_thread(
            listening.hears,
            f"UserCreated: user {made.user_id} was created",
            f"InvitationAccepted: user {made.user_id} accepted",
            f"KeyGenerated: key {made.key_id} was made",
        )


async def test_an_outside_subscriber_may_do_nothing_but_listen(served: Fleet) -> None:
    refused: list[str] = []

    async def note(fault: Exception) -> None:
        refused.append(str(fault))

    address = subscriber_url(served.environment["KEYSTEAD_NATS_URL"], keyring())
    client = await nats.connect(address, error_cb=note, inbox_prefix=b"_INBOX_subscriber")
    for subject in (
        "identity.UserDeleted.user-ada",
        "ask.keys.FindKey",
        "$JS.API.CONSUMER.CREATE.IDENTITY.mine",
        "$JS.API.CONSUMER.CREATE.IDENTITY.subscriber",
        "$JS.API.CONSUMER.DURABLE.CREATE.IDENTITY.subscriber",
        "$JS.API.CONSUMER.DELETE.IDENTITY.subscriber",
        "$JS.API.CONSUMER.MSG.NEXT.IDENTITY.keys-identity",
        "$JS.API.STREAM.PURGE.IDENTITY",
        "$JS.API.STREAM.INFO.IDENTITY",
        "_INBOX_keys.x",
    ):
        await client.publish(subject, b"{}")
        await client.flush()
        await eventually(lambda s=subject: f'"{s}"'.lower() in "".join(refused).lower())  # type: ignore[misc]
    for subject in ("identity.>", "ask.>", "topic.>", "_INBOX_keys.>", ">"):
        await client.subscribe(subject)
        await client.flush()
        await eventually(lambda s=subject: f'subscription to "{s}"'.lower() in "".join(refused).lower())  # type: ignore[misc]
    await client.close()


@pytest.mark.timeout(120)
async def test_a_service_that_is_killed_is_missed_for_as_long_as_it_is_away_and_no_longer(served: Fleet) -> None:
    (killed,) = served.of("invitations")
    await killed.kill()
    client = served.client
    made = await client.ok("POST", "/user/new", {"user_email": "grace@example.test", "auto_create_key": False})
    status, answer = await client.call("POST", "/invitation/new", {"user_id": made["user_id"]})
    assert (status, answer["error"]["reason"]) == (503, "unavailable")
    port = int(killed.url.rpartition(":")[2])
    await served.ready(await served.start("invitations", port=port))
    invited = await client.ok("POST", "/invitation/new", {"user_id": made["user_id"]})
    assert invited["status"] == "open"
    await self_serve(client)


@pytest.mark.timeout(120)
async def test_a_gateway_that_is_killed_holds_up_a_change_no_longer_than_the_bound(served: Fleet) -> None:
    """The other goes on; a change waits until the lost worker is given up, and then no worker admits by the old."""
    lost, other = served.of("gateway")
    client = Client(other.url, served.http)
    made = await self_serve(client)
    key = await client.ok("POST", "/key/generate", {}, key=made.session)
    await lost.kill()
    assert (await client.call("POST", "/v1/chat/completions", CHAT, key=key["key"]))[0] == 200
    await client.ok("POST", "/key/block", {"key": key["token"]})
    assert await refusal(client, key["key"]) == (401, "key_blocked")
    port = int(lost.url.rpartition(":")[2])
    await served.ready(await served.start("gateway", port=port, urls=served.urls()))
    assert await refusal(client, key["key"], url=lost.url) == (401, "key_blocked")


async def test_a_process_that_is_told_to_end_answers_what_was_asked_before(served: Fleet) -> None:
    """Ten requests are at their service, which waits for their bodies, when the word comes."""
    extra = await served.start("gateway", urls=served.urls())
    await served.ready(extra)
    body = b'{"user_role": "internal_user", "auto_create_key": false}'
    asked = await asyncio.gather(*(_half_a_request(extra.url, "/user/new", len(body)) for _ in range(10)))
    ending = asyncio.create_task(extra.end())
    await eventually(lambda: _listens_no_more(extra.url))
    for _, writer in asked:
        writer.write(body)
    answers = await asyncio.gather(*(read_answer(reader) for reader, _ in asked))
    assert [answer.status for answer in answers] == [200] * len(asked)
    for _, writer in asked:
        writer.close()
    assert await ending == 0, extra.errors.read_text(encoding="utf-8")


async def _half_a_request(url: str, path: str, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Its head, and the word that the body is waited for: whoever says that has begun to answer."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {MASTER_KEY}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert (await read_answer(reader, has_body=False)).status == 100
    return reader, writer


async def _listens_no_more(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return True
    writer.close()
    return False
