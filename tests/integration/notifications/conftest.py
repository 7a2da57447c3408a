"""One installation a module, with a real mail server beside it that is well behaved at the start of each test."""

from collections.abc import AsyncIterator

import pytest

from tests.support.identity import PassingClock
from tests.support.installation import installation
from tests.support.mail_server import MailServer, mail_server
from tests.support.mails import World


@pytest.fixture(scope="module")
async def post_office() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
async def whole(post_office: MailServer) -> AsyncIterator[World]:
    clock = PassingClock()
    mail = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(post_office.port), "SMTP_TLS": "False"}
    async with installation(clock=clock, SMTP_SENDER_EMAIL="keystead@example.test", **mail) as it:
        yield World(it, post_office, clock)


@pytest.fixture
async def world(whole: World) -> World:
    await whole.post.behave()
    return whole
