"""One installation a module, with a real mail server beside it that is well behaved at the start of each test."""

from collections.abc import AsyncIterator

import pytest

from tests.support.identity import PassingClock
from tests.support.installation import installation
from tests.support.mail_server import MailServer, mail_server
from tests.support.mails import World, told


@pytest.fixture(scope="module")
async def post_office() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
async def whole(post_office: MailServer) -> AsyncIterator[World]:
    clock = PassingClock()
    async with installation({"environment_variables": told(post_office)}, clock=clock) as it:
        yield World(it, post_office, clock)


@pytest.fixture
async def world(whole: World) -> World:
    await whole.post.behave()
    return whole
