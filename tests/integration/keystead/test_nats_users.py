"""A service's log-in at a real NATS that has the list of users: what it may not do is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from keystead.nats_users import SUBSCRIBER
from tests.support.nats_logins import NAMES, PATIENCE_SECONDS, Login, login, nats_of_all

REFUSED_SECONDS = 0.3  # a forbidden request is told beside it; it itself gets no answer


@pytest.fixture(scope="module")
async def urls(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    async with nats_of_all(tmp_path_factory.mktemp("nats")) as addresses:
        yield addresses


@pytest.mark.parametrize("name", NAMES)
async def test_a_service_tells_its_own_events(urls: dict[str, str], name: str) -> None:
    async with login(urls, name) as it:
        stored = await it.client.jetstream().publish(f"{name}.SomethingHappened.it-1", b"{}")
        assert stored.stream == name.upper()
        assert not it.refused


@pytest.mark.parametrize("name", NAMES)
async def test_a_service_tells_no_event_of_another(urls: dict[str, str], name: str) -> None:
    async with login(urls, name) as it:
        for other in NAMES:
            if other == name:
                continue
            subject = f"{other}.userdeleted.user-ada"
            await it.client.publish(subject, b"{}")
            assert f'publish to "{subject}"' in await it.refusal()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["DELETE", "PURGE", "UPDATE", "CREATE", "MSG.DELETE", "RESTORE"])
async def test_a_service_changes_no_stream_of_another_and_destroys_none(
    urls: dict[str, str], name: str, verb: str
) -> None:
    async with login(urls, name) as it:
        for stream in (other.upper() for other in NAMES if other != name or verb not in ("UPDATE", "CREATE")):
            subject = f"$JS.API.STREAM.{verb}.{stream}"
            await it.client.publish(subject, b"{}")
            assert f'publish to "{subject.lower()}"' in await it.refusal()


async def test_a_forbidden_deletion_has_deleted_nothing(urls: dict[str, str]) -> None:
    async with login(urls, "keys") as it:
        with pytest.raises((nats.errors.TimeoutError, nats.js.errors.APIError)):
            await it.client.jetstream(timeout=REFUSED_SECONDS).delete_stream("IDENTITY")
        await it.refusal()
        assert (await it.client.jetstream().stream_info("IDENTITY")).config.name == "IDENTITY"


@pytest.mark.parametrize(
    "subject",
    [">", "_INBOX.>", "_INBOX_identity.>", "ask.identity.*", "identity.>", "$JS.API.>", "$SYS.>"],
)
async def test_a_service_overhears_nobody(urls: dict[str, str], subject: str) -> None:
    async with login(urls, "keys") as it:
        await it.client.subscribe(subject)
        assert f'subscription to "{subject.lower()}"' in await it.refusal()


async def test_a_service_answers_what_it_is_asked_and_nothing_else(urls: dict[str, str]) -> None:
    async with login(urls, "identity") as asks, login(urls, "keys") as answers:
        question: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def answer(message: Msg) -> None:
            question.set_result(message.reply)
            await message.respond(b"answer")

        await answers.client.subscribe("ask.keys.FindKey", cb=answer)
        for _ in range(2):  # the client's first ping may overtake the subscription
            await answers.client.flush()
        assert (await asks.client.request("ask.keys.FindKey", b"", timeout=PATIENCE_SECONDS)).data == b"answer"
        assert not answers.refused
        await answers.client.publish(f"_INBOX_identity.{'x' * 22}.1", b"a forged answer")
        assert 'publish to "_inbox_identity.' in await answers.refusal()


async def test_an_outside_subscriber_takes_what_it_was_told(urls: dict[str, str]) -> None:
    async with login(urls, "invitations") as tells, login(urls, SUBSCRIBER) as hears:
        await tells.client.jetstream().publish("invitations.SomethingHappened.it-1", b"{}")
        following = await hears.client.jetstream().pull_subscribe_bind(consumer=SUBSCRIBER, stream="INVITATIONS")
        (message,) = await following.fetch(1, timeout=PATIENCE_SECONDS)
        assert (message.data, message.metadata.stream) == (b"{}", "INVITATIONS")
        await message.ack_sync(timeout=PATIENCE_SECONDS)
        assert not hears.refused


@pytest.mark.parametrize("event_waits", [True, False], ids=["an event", "that there is none"])
@pytest.mark.parametrize("where", ["$JS.API.STREAM.DELETE.BUDGETS", "keys.KeyDeleted.key-1", "ask.keys.FindKey"])
async def test_what_an_outside_subscriber_asks_is_answered_to_nobody_else(
    urls: dict[str, str], event_waits: bool, where: str
) -> None:
    """NATS sends an answer wherever the request says; and one without a body is a command, to delete a stream say."""
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    async with login(urls, "budgets") as tells, login(urls, "keys") as keys, login(urls, SUBSCRIBER) as asks:
        stored = await keys.client.jetstream().publish("keys.SomethingHappened.it-1", b"{}")
        await keys.client.subscribe("ask.keys.*", cb=hear)
        await keys.client.flush()
        if event_waits:
            await tells.client.jetstream().publish("budgets.SomethingHappened.it-1", b"{}")
        source = "BUDGETS" if event_waits else "NOTIFICATIONS"
        subject, request = f"$JS.API.CONSUMER.MSG.NEXT.{source}.{SUBSCRIBER}", b'{"batch": 1, "expires": 100000000}'
        await asks.client.publish(subject, request, reply=where)
        with suppress(nats.errors.TimeoutError):  # by then the first is answered, too; it may have taken all there is
            await asks.client.request(subject, request, timeout=1.0)
        await keys.client.flush()
        state = (await keys.client.jetstream().stream_info("KEYS")).state
        assert (heard, state.last_seq) == ([], stored.seq)
        assert (await tells.client.jetstream().stream_info("BUDGETS")).config.name == "BUDGETS"


async def test_a_stranger_is_not_let_in(urls: dict[str, str]) -> None:
    address = urls["keys"].rpartition("@")[2]
    for credentials in ("", "keys:guessed@", "stranger:guessed@"):
        stranger = Client()
        with pytest.raises(nats.errors.Error):
            await stranger.connect(f"nats://{credentials}{address}", allow_reconnect=False, error_cb=Login("").on_error)
        await stranger.close()
