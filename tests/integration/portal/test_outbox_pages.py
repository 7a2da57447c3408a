"""The outbox: admins see what was mailed and copy links by hand; nobody else sees anything (§3.9)."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.installation import Installation, installation
from tests.support.portal import Browser, browser_of


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running


async def invite_by_mail(it: Installation, email: str, **more: str) -> None:
    user = await it.ok("POST", "/user/new", {"user_email": email, "auto_create_key": False, **more})
    await it.ok("POST", "/invitation/new", {"user_id": user["user_id"], "send_email": True})


async def browser_with(it: Installation, role: str) -> Browser:
    return await browser_of(it, await it.invite(user_role=role))


async def test_an_admin_copies_the_link_out_of_a_mail(it: Installation) -> None:
    await invite_by_mail(it, "invited@example.test")
    browser = await browser_with(it, "proxy_admin")
    assert "Outbox" in (await browser.get("/ui")).says
    listed = await browser.get("/ui/outbox")
    assert (listed.status, listed.title) == (200, "Outbox")
    assert "invited@example.test" in listed.says and "Waiting" in listed.says
    path = re.findall(r'href="(/ui/outbox/[^"]+)"', listed.text)[0]
    mail = await browser.get(path)
    assert mail.status == 200 and "invited@example.test" in mail.says
    (link,) = set(re.findall(r"/ui/onboarding\?id=[0-9a-f-]{36}", mail.text))
    assert (await Browser(it).get(link)).title == "Set your password"


async def test_a_viewer_of_everything_sees_that_there_are_mails_and_not_what_they_say(it: Installation) -> None:
    await invite_by_mail(it, "looked.at@example.test")
    browser = await browser_with(it, "proxy_admin_viewer")
    listed = await browser.get("/ui/outbox")
    assert listed.status == 200 and "looked.at@example.test" in listed.says
    assert "/ui/outbox/" not in listed.text
    admin = await browser_with(it, "proxy_admin")
    path = re.findall(r'href="(/ui/outbox/[^"]+)"', (await admin.get("/ui/outbox")).text)[0]
    page = await browser.get(path)
    assert (page.status, page.title) == (403, "This page is not for your role")


@pytest.mark.parametrize("role", ["internal_user", "internal_user_viewer"])
async def test_nobody_else_sees_the_outbox(it: Installation, role: str) -> None:
    browser = await browser_with(it, role)
    assert "Outbox" not in (await browser.get("/ui")).says
    for path in ("/ui/outbox", "/ui/outbox/anything"):
        page = await browser.get(path)
        assert (page.status, page.title) == (403, "This page is not for your role")


async def test_a_mail_that_is_not_there_says_so(it: Installation) -> None:
    browser = await browser_with(it, "proxy_admin")
    for name in ("nothing", "..", "%2E%2E", "a%2Fb", "%3Cscript%3E"):
        page = await browser.get(f"/ui/outbox/{name}")
        assert page.status in (303, 404) and "<script" not in page.text


async def test_ids_of_any_length_have_their_addresses(it: Installation) -> None:
    emails = [f"long.{number}@example.test" for number in range(25)]
    for number, email in enumerate(emails):
        await invite_by_mail(it, email, user_id="\U0001f600" * 250 + str(number))
    listed = await (await browser_with(it, "proxy_admin")).get("/ui/outbox")
    assert listed.status == 200
    assert [email for email in emails if email not in listed.says] == []
