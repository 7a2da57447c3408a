"""The invited person's page: an invitation's link becomes a password and a session (§3.5, §5.5)."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.installation import PASSWORD, Installation, claims_of, installation
from tests.support.portal import Browser, Page

NO_ADDRESSES = ["http://[x?id=1", "//]?id=1", "http://ex%E2%84%80mple/?id=1"]


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running


async def invited(it: Installation, email: str) -> tuple[str, str]:
    """A user without a password: their id, and their link's."""
    user = await it.ok("POST", "/user/new", {"user_email": email, "auto_create_key": False})
    invitation = await it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
    return user["user_id"], invitation["id"]


async def set_password(browser: Browser, link: str, password: str = PASSWORD, again: str | None = None) -> Page:
    fields = (await browser.get(f"/ui/onboarding?id={link}")).forms["/ui/onboarding"]
    again = password if again is None else again
    return await browser.post("/ui/onboarding", {**fields, "password": password, "password_again": again})


async def test_the_page_says_for_whom_it_is(it: Installation) -> None:
    _, link = await invited(it, "ada@example.test")
    page = await Browser(it).get(f"/ui/onboarding?id={link}")
    assert (page.status, page.title) == (200, "Set your password")
    assert page.forms["/ui/onboarding"]["username"] == "ada@example.test"
    assert "At least 15 characters" in page.says


async def test_a_password_logs_in_by_the_cookie(it: Installation) -> None:
    user_id, link = await invited(it, "grace@example.test")
    browser = Browser(it)
    page = await set_password(browser, link)
    assert (page.status, page.location) == (303, "/ui?login=success")
    assert claims_of(browser.cookie or "")["user_id"] == user_id
    assert (await browser.get("/ui")).title == "My keys"


async def test_opening_the_link_any_number_of_times_changes_nothing(it: Installation) -> None:
    """Mail scanners do."""
    _, link = await invited(it, "hopper@example.test")
    for _ in range(3):
        assert (await Browser(it).get(f"/ui/onboarding?id={link}")).title == "Set your password"
    assert (await set_password(Browser(it), link)).status == 303


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("short", "Must have at least 15 characters."),
        ("x" * 1100, "Must have at most 1024 bytes."),
    ],
)
async def test_a_refused_password_is_told_beside_its_field(it: Installation, password: str, says: str) -> None:
    _, link = await invited(it, f"{len(password)}@example.test")
    page = await set_password(Browser(it), link, password)
    assert (page.status, page.title) == (400, "Set your password")
    assert says in page.says
    assert 'aria-describedby="password-fault password-hint"' in page.text
    assert password not in page.text
    assert (await set_password(Browser(it), link)).status == 303, "a refused password leaves it open"


async def test_two_that_differ_are_told_before_anything_is_done(it: Installation) -> None:
    _, link = await invited(it, "differ@example.test")
    page = await set_password(Browser(it), link, PASSWORD, PASSWORD + "x")
    assert page.status == 400 and "The two are not the same." in page.says
    assert (await it.call("POST", "/v2/login", {"username": "differ@example.test", "password": PASSWORD}))[0] == 401


async def test_a_link_works_once(it: Installation) -> None:
    _, link = await invited(it, "once@example.test")
    await set_password(Browser(it), link)
    page = await Browser(it).get(f"/ui/onboarding?id={link}")
    assert (page.status, page.title) == (200, "This invitation was used already")
    fields = {"id": link, "password": PASSWORD, "password_again": PASSWORD}
    late = await Browser(it).post("/ui/onboarding", fields)
    assert late.title == "This invitation was used already" and "Set-Cookie" not in late.headers


@pytest.mark.parametrize(
    "link", ["nothing", "%00", "../../etc/passwd", "<script>", "x" * 5000, "\u202e", *NO_ADDRESSES]
)
async def test_a_link_that_opens_nothing_says_so(it: Installation, link: str) -> None:
    page = await Browser(it).get(f"/ui/onboarding?id={link}")
    assert page.status == 200
    assert page.title in ("This link opens nothing", "Open your invitation")
    assert "<script" not in page.text
    sent = await Browser(it).post("/ui/onboarding", f"id={link}".encode(errors="replace"))
    assert sent.status in (200, 400)


async def test_a_revoked_link_opens_nothing(it: Installation) -> None:
    _, link = await invited(it, "revoked@example.test")
    await it.ok("POST", "/invitation/delete", {"invitation_id": link})
    assert (await Browser(it).get(f"/ui/onboarding?id={link}")).title == "This link opens nothing"


async def test_an_address_without_the_link_asks_for_it(it: Installation) -> None:
    """``?token=`` is what the API hands out to programs: the id, which claims it, is not in it."""
    _, link = await invited(it, "token@example.test")
    opened = await it.ok("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    for path in ("/ui/onboarding", opened["login_url"].removeprefix("http://keystead.test")):
        page = await Browser(it).get(path)
        assert (page.status, page.title) == (200, "Open your invitation")
    page = await Browser(it).get(f"/ui/onboarding?id=https%3A%2F%2Fkeystead.test%2Fui%2Fonboarding%3Fid%3D{link}")
    assert page.title == "Set your password"
