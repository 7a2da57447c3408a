"""Logging in by the page (§3.3), and what becomes of links to pages without a session."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.installation import MASTER_KEY, Installation, Person, claims_of, installation
from tests.support.portal import Browser, browser_of


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def ada(it: Installation) -> Person:
    return await it.invite()


async def test_the_front_leads_to_the_pages(it: Installation) -> None:
    page = await Browser(it).get("/")
    assert (page.status, page.location) == (303, "/ui")


async def test_a_log_in_leads_to_my_keys_with_a_cookie_that_no_script_reads(it: Installation, ada: Person) -> None:
    browser = Browser(it)
    page = await browser.log_in(ada)
    assert (page.status, page.location) == (303, "/ui?login=success")
    (cookie,) = page.headers.getall("Set-Cookie")
    assert "; HttpOnly" in cookie and "; SameSite=Lax" in cookie
    assert claims_of(browser.cookie or "")["user_id"] == ada.user_id
    assert (await browser.get("/ui?login=success")).title == "My keys"


async def test_the_admin_of_the_first_start_logs_in_by_user_name(it: Installation) -> None:
    browser = Browser(it)
    assert (await browser.post("/login", {"username": "admin", "password": MASTER_KEY})).status == 303
    assert (await browser.get("/ui")).title == "My keys"


@pytest.mark.parametrize("name", ["nobody@example.test", "known"])
async def test_a_wrong_name_and_a_wrong_password_read_the_same(it: Installation, ada: Person, name: str) -> None:
    username = ada.email if name == "known" else name
    page = await Browser(it).post("/login", {"username": username, "password": "not the password, surely"})
    assert (page.status, page.title) == (401, "Log in")
    assert "The user name or the password is wrong." in page.says
    assert page.forms["/login"]["username"] == username
    assert page.forms["/login"]["password"] == ""
    assert "Set-Cookie" not in page.headers


async def test_what_was_typed_as_a_name_is_only_ever_text(it: Installation) -> None:
    name = '"><script>alert(1)</script>'
    page = await Browser(it).post("/login", {"username": name, "password": "x"})
    assert page.forms["/login"]["username"] == name
    assert "<script" not in page.text


@pytest.mark.parametrize("path", ["/ui/keys/new", "/ui/keys/abc/delete", "/ui/outbox"])
async def test_without_a_session_a_page_leads_to_the_log_in_and_back(it: Installation, ada: Person, path: str) -> None:
    browser = Browser(it)
    page = await browser.get(path)
    assert (page.status, page.location) == (303, f"/ui/login?return_to={path}")
    form = (await browser.get(page.location)).forms["/login"]
    page = await browser.post("/login", {**form, "username": ada.email, "password": "correct horse battery staple"})
    assert (page.status, page.location) == (303, path)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/ui/../../evil",
        "/ui\\@evil.example",
        "javascript:alert(1)",
        "/ui/\r\nSet-Cookie: token=x",
        "/ui/%0d%0aLocation:%20https://evil.example",
        "/logout",
        "/ui?return_to=//evil.example",
        " /ui",
        "/ui\n",
        "/uix",
    ],
)
async def test_a_log_in_leads_to_no_other_place(it: Installation, ada: Person, elsewhere: str) -> None:
    browser = Browser(it)
    fields = {"username": ada.email, "password": "correct horse battery staple", "return_to": elsewhere}
    page = await browser.post("/login", fields)
    assert (page.status, page.location) == (303, "/ui?login=success")
    assert len(page.headers.getall("Set-Cookie")) == 1


async def test_a_session_that_has_ended_leads_to_the_log_in(it: Installation, ada: Person) -> None:
    browser = await browser_of(it, ada)
    ended = browser.cookie
    page = await browser.post("/logout", {})
    assert (page.status, page.location, browser.cookie) == (303, "/ui/login", None)
    browser.cookie = ended
    assert (await browser.get("/ui")).location == "/ui/login"


@pytest.mark.parametrize("cookie", ["a.b.c", "sk-kss1_" + "a" * 43, "nothing", 'x"y', "\u00e4", "x" * 5000])
async def test_a_cookie_that_is_no_session_leads_to_the_log_in(it: Installation, cookie: str) -> None:
    page = await Browser(it, cookie=cookie).get("/ui")
    assert (page.status, page.location) == (303, "/ui/login")


async def test_a_key_in_the_place_of_the_cookie_is_no_session(it: Installation, ada: Person) -> None:
    """It could read here what it can read anyway: but the pages are for people."""
    key = await it.ok("POST", "/key/generate", {}, key=ada.session)
    await it.ok("POST", "/key/delete", {"keys": [key["token"]]}, key=ada.session)
    assert (await Browser(it, cookie=key["key"]).get("/ui")).location == "/ui/login"


async def test_the_session_is_the_persons_and_not_the_portals(it: Installation, ada: Person) -> None:
    """It is opened with the address and the browser of the visitor."""
    browser = Browser(it, headers={"User-Agent": "A browser/1.0"})
    await browser.log_in(ada)
    listed = await it.ok("GET", "/keystead/v1/sessions", key=claims_of(browser.cookie or "")["key"])
    (current,) = [each for each in listed["data"] if each["current"]]
    assert (current["user_agent"], current["ip"]) == ("A browser/1.0", "127.0.0.1")
