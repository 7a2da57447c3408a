"""Speaking to a real mail server, one that refuses, stalls, goes away, or wants TLS and a log-in."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from services.notifications.content import Content
from services.notifications.message import make_message
from services.notifications.smtp import MailServer, NotTaken, OutcomeUnknown, conversation, hand_over
from tests.support import mail_server
from tests.support.certificates import make_certificate
from tests.support.eventually import eventually
from tests.support.mail_server import DROP, STALL, TAKE_AND_DROP

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SENDER, ADA = "keystead@example.test", "ada.lovelace@example.test"
SHORT_SECONDS = 0.3


@pytest.fixture(scope="module")
async def post_office() -> AsyncIterator[mail_server.MailServer]:
    async with mail_server.mail_server() as server:
        yield server


@pytest.fixture
async def post(post_office: mail_server.MailServer) -> mail_server.MailServer:
    """One in plain text, well behaved until told otherwise."""
    post_office.taken.clear()
    await post_office.behave()
    return post_office


def plain(port: int, **more: Any) -> MailServer:
    return replace(
        MailServer(
            host="127.0.0.1",
            port=port,
            username=None,
            password=None,
            implicit_tls=False,
            starttls=False,
            sender=SENDER,
            own_name="keystead.example.test",
            tls=ssl.create_default_context(),
        ),
        **more,
    )


def a_mail(to: str = ADA, text: str = "Hello.\n") -> EmailMessage:
    content = Content(to=to, subject="Hello", link="", expires_at=NOON, text=text, html="<p>Hello.</p>\n")
    return make_message(content, sender=SENDER, notification_id="n1", now=NOON)


async def send(server: MailServer, message: EmailMessage | None = None) -> None:
    mail = message or a_mail()
    async with conversation(server, mail) as client:
        await hand_over(client, mail, seconds=server.taking_seconds)


async def not_taken(server: MailServer) -> NotTaken:
    with pytest.raises(NotTaken) as caught:
        await send(server)
    assert "ada" not in caught.value.error.lower(), "an error is stored, and an address is not"
    return caught.value


async def test_a_mail_is_taken(post: mail_server.MailServer) -> None:
    await send(plain(post.port), a_mail(text="A line.\n.\n..two dots\nünïcode\n"))
    (mail,) = await taken(post)
    assert (mail.sender, mail.to, mail.encrypted) == (SENDER, [ADA], False)
    assert mail.text.splitlines() == ["A line.", ".", "..two dots", "ünïcode"]
    assert mail.html.strip() == "<p>Hello.</p>"


@pytest.mark.parametrize("place", ["at_sender", "at_addressee", "at_mail"])
async def test_a_refusal_for_good_is_told_by_its_codes_alone(post: mail_server.MailServer, place: str) -> None:
    await post.behave(**{place: ["550 5.1.1 ada.lovelace@example.test is unknown to Ada Lovelace's server"]})
    refused = await not_taken(plain(post.port))
    assert refused.for_good and refused.error.endswith(": 550 5.1.1")
    assert post.taken == []


@pytest.mark.parametrize("place", ["at_sender", "at_addressee", "at_mail"])
@pytest.mark.parametrize("reply", ["451 4.7.1 come back later", "421 busy"])
async def test_a_refusal_for_now_is_not_for_good(post: mail_server.MailServer, place: str, reply: str) -> None:
    await post.behave(**{place: [reply]})
    assert not (await not_taken(plain(post.port))).for_good
    assert post.taken == []
    await send(plain(post.port))
    assert len(await taken(post)) == 1


@pytest.mark.parametrize(
    ("manners", "says"),
    [
        ({"at_greeting": STALL}, "did not answer in time"),
        ({"at_sender": [STALL]}, "did not answer in time"),
        ({"at_addressee": [STALL]}, "did not answer in time"),
        ({"at_sender": [DROP]}, "went away"),
        ({"at_addressee": [DROP]}, "went away"),
    ],
    ids=str,
)
async def test_a_server_that_fails_before_it_has_the_mail_has_not_taken_it(
    post: mail_server.MailServer, manners: dict[str, Any], says: str
) -> None:
    await post.behave(**manners)
    refused = await not_taken(plain(post.port, greeting_seconds=SHORT_SECONDS))
    assert says in refused.error and not refused.for_good


@pytest.mark.parametrize("reply", [STALL, DROP, TAKE_AND_DROP, "299 what"])
async def test_of_a_mail_that_was_handed_over_nobody_knows_without_an_answer(
    post: mail_server.MailServer, reply: str
) -> None:
    await post.behave(at_mail=[reply])
    with pytest.raises(OutcomeUnknown):
        await send(plain(post.port, taking_seconds=SHORT_SECONDS))


async def test_no_server_is_no_reason_to_give_up() -> None:
    async with mail_server.mail_server() as gone:
        port = gone.port
    refused = await not_taken(plain(port))
    assert "can't be reached" in refused.error and not refused.for_good


async def test_an_address_in_other_letters_goes_where_it_can(post: mail_server.MailServer) -> None:
    await send(plain(post.port), a_mail("müller@bücher.example"))
    (mail,) = await taken(post)
    assert mail.to == ["müller@xn--bcher-kva.example"]
    told = str(mail.message["To"]).encode("utf-8", "surrogateescape").decode()
    assert told == "müller@xn--bcher-kva.example"


# TLS and log-ins.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def test_tls_is_begun_where_it_must_be(certificate: Path) -> None:
    async with mail_server.mail_server(certificate=str(certificate)) as post:
        await send(plain(post.port, starttls=True, tls=trusting(certificate)))
        (mail,) = await taken(post)
        assert mail.encrypted


async def test_tls_from_the_first_byte_on(certificate: Path) -> None:
    async with mail_server.mail_server(certificate=str(certificate), implicit_tls=True) as post:
        await send(plain(post.port, implicit_tls=True, tls=trusting(certificate)))
        (mail,) = await taken(post)
        assert mail.encrypted


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "from the first byte"])
async def test_a_certificate_that_nobody_vouches_for_ends_the_conversation(certificate: Path, implicit: bool) -> None:
    async with mail_server.mail_server(certificate=str(certificate), implicit_tls=implicit) as post:
        refused = await not_taken(plain(post.port, implicit_tls=implicit, starttls=not implicit))
        assert "certificate does not hold" in refused.error and not refused.for_good
        assert post.tried == []


async def test_a_certificate_of_another_host_ends_the_conversation(tmp_path: Path) -> None:
    anothers = make_certificate(tmp_path, "127.0.0.2")
    async with mail_server.mail_server(certificate=str(anothers)) as post:
        refused = await not_taken(plain(post.port, starttls=True, tls=trusting(anothers)))
        assert "certificate does not hold" in refused.error


async def test_no_mail_goes_in_clear_where_tls_is_set(post: mail_server.MailServer) -> None:
    refused = await not_taken(plain(post.port, starttls=True))
    assert "STARTTLS" in refused.error and not refused.for_good
    assert post.taken == []


async def test_a_log_in_is_made_where_one_is_set(certificate: Path) -> None:
    async with mail_server.mail_server(certificate=str(certificate), password="open sesame") as post:
        secure = plain(post.port, starttls=True, tls=trusting(certificate))
        await send(replace(secure, username="keystead", password="open sesame"))
        (mail,) = await taken(post)
        assert mail.logged_in and mail.encrypted
        wrong = await not_taken(replace(secure, username="keystead", password="open barley"))
        assert "log-in: 535" in wrong.error and not wrong.for_good, "the setting is wrong, not the mail"
        without = await not_taken(secure)
        assert "530" in without.error and not without.for_good


def test_whoever_prints_the_server_prints_no_password() -> None:
    assert "sesame" not in repr(plain(1, password="open sesame"))


async def taken(post: mail_server.MailServer) -> list[mail_server.Taken]:
    """The server tells of a mail before it answers, but by another way."""
    await eventually(lambda: bool(post.taken))
    return post.taken
