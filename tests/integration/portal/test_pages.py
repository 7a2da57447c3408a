"""What holds for every page: its headers, where its forms come from, and calm words when something is in the way."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import as_target, as_value, hostile, texts
from tests.support.installation import BASE_URL, PASSWORD, Installation, Person, installation
from tests.support.portal import FORM, Browser, browser_of
from tests.support.raw_http import exchange
from tests.support.routes import pages_of

CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": BASE_URL},
    {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "", "Origin": "null"},
    {"Sec-Fetch-Site": ""},
]


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def ada(it: Installation) -> Person:
    return await it.invite()


def filled(path: str) -> str:
    return re.sub(r"{[^}]*}", "nothing", path)


async def test_every_page_has_the_headers_of_one(it: Installation, ada: Person) -> None:
    for browser in (Browser(it), await browser_of(it, ada)):
        for served in pages_of(it):
            path = filled(served.route.path)
            page = await browser.get(path) if served.method == "GET" else await browser.post(path, {})
            assert page.headers["Content-Security-Policy"] == CSP, served.name
            assert page.headers["Referrer-Policy"] == "no-referrer", served.name
            assert page.headers["X-Content-Type-Options"] == "nosniff", served.name
            assert page.headers["Cache-Control"] == "no-store", served.name
            assert page.status in (200, 303) or page.headers["Content-Type"] == "text/html; charset=utf-8", served.name
            assert not re.search(r"<script|\sstyle=|\son[a-z]+=|javascript:", page.text), served.name


async def test_a_log_out_may_lead_to_where_it_is_set_to() -> None:
    """Browsers hold the redirect after a form to the form's policy."""
    async with installation(PROXY_LOGOUT_URL="https://sso.example.com/logout") as it:
        page = await Browser(it).get("/ui/login")
        policy = page.headers["Content-Security-Policy"]
        assert policy == CSP.replace("form-action 'self'", "form-action 'self' https://sso.example.com")


async def test_every_page_stands_on_its_own_legs(it: Installation, ada: Person) -> None:
    """A language, a title, one heading, a way past the head; nothing from another site."""
    browser = await browser_of(it, ada)
    for path in ("/ui/login", "/ui/onboarding", "/ui", "/ui/keys/new", "/ui/nothing", "/ui/outbox"):
        text = (await browser.get(path)).text
        assert text.startswith('<!doctype html>\n<html lang="en">'), path
        assert len(re.findall("<h1", text)) == 1 and '<a class="skip-link" href="#main">' in text, path
        assert not re.search(r'(src|href|action)="(?!/|#)', text), path


@pytest.mark.parametrize("origin", ELSEWHERE, ids=str)
async def test_a_form_from_elsewhere_does_nothing(it: Installation, ada: Person, origin: dict[str, str]) -> None:
    browser = await browser_of(it, ada)
    key = await it.ok("POST", "/key/generate", {}, key=ada.session)
    before = await it.ok("GET", "/key/list", key=ada.session)
    forms: Mapping[str, Any] = {
        "/login": {"username": ada.email, "password": PASSWORD},
        "/ui/keys": {"key_alias": "planted"},
        f"/ui/keys/{key['key_id']}/delete": {},
        "/ui/onboarding": {"id": "x", "password": PASSWORD, "password_again": PASSWORD},
    }
    for path, fields in forms.items():
        page = await browser.post(path, fields, **origin)
        assert (page.status, page.title) == (403, "That did not come from here"), path
        assert "Set-Cookie" not in page.headers, path
    assert await it.ok("GET", "/key/list", key=ada.session) == before


async def test_a_form_of_an_old_browser_is_known_by_its_origin(it: Installation, ada: Person) -> None:
    fields = {"username": ada.email, "password": PASSWORD}
    page = await Browser(it).post("/login", fields, **{"Sec-Fetch-Site": "", "Origin": BASE_URL})
    assert page.status == 303


@pytest.mark.parametrize(
    ("raw", "media_type", "status"),
    [
        (b"username=a&username=b", FORM, 400),
        (b"username=a&is_admin=1", FORM, 400),
        (b"username=%ff", FORM, 400),
        (b"username=" + b"a" * 70_000, FORM, 413),
        (b'{"username": "a"}', "application/json", 415),
        (b"--x", "multipart/form-data; boundary=x", 415),
        (b"username=a", FORM + "; charset=utf-16", 415),
    ],
)
async def test_a_bad_form_is_told_by_a_page(it: Installation, raw: bytes, media_type: str, status: int) -> None:
    page = await Browser(it).post("/login", raw, **{"Content-Type": media_type})
    assert page.status == status and page.title


async def test_styles_are_kept_for_ever_because_their_name_is_their_content(it: Installation) -> None:
    browser = Browser(it)
    text = (await browser.get("/ui/login")).text
    (sheet,) = re.findall(r'<link rel="stylesheet" href="(/ui/static/keystead\.[0-9a-f]{16}\.css)">', text)
    styles = await browser.get(sheet)
    assert styles.status == 200 and styles.headers["Content-Type"] == "text/css; charset=utf-8"
    assert styles.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert "url(" not in styles.text and "@import" not in styles.text
    for path in ("/ui/static/keystead.css", "/ui/static/..%2Fsettings.py", "/ui/static/../settings.py"):
        assert (await browser.get(path)).status == 404


async def test_an_address_that_leads_nowhere_says_so(it: Installation) -> None:
    for path in ("/ui/nothing", "/ui/keys/x/y/z", "/ui/<script>", "/ui/%00"):
        page = await Browser(it).get(path)
        assert page.status in (400, 404) and "<script" not in page.text
    assert (await Browser(it).get("/ui/")).location == "/ui"
    assert (await Browser(it).get("/ui/keys")).location == "/ui"


async def test_where_the_api_is_away_a_page_says_so_calmly() -> None:
    async with installation(KEYSTEAD_API_URL="http://127.0.0.1:9") as it:
        browser = Browser(it, cookie="a.b.c")
        pages = [
            await browser.get("/ui"),
            await browser.get("/ui/onboarding?id=x"),
            await browser.post("/login", {"username": "a", "password": "b"}),
            await browser.post("/ui/keys", {}),
        ]
        assert {(page.status, page.title) for page in pages} == {(503, "Keystead can't answer right now")}
        assert all(int(page.headers["Retry-After"]) > 0 for page in pages)
        assert (await browser.get("/ui/login")).status == 200


async def test_something_else_in_the_place_of_the_api_is_no_answer() -> None:
    """Neither what it says nor what it sets reaches the visitor."""
    async with installation() as other, installation(KEYSTEAD_API_URL=f"{other.url}/ui") as it:
        page = await Browser(it).post("/login", {"username": "a", "password": "b"})
        assert page.status == 503 and "Set-Cookie" not in page.headers


async def test_who_fails_too_often_is_told_how_long_to_wait() -> None:
    """Each visitor by their own address, and not all of them by the portal's."""
    behind_a_proxy = {"general_settings": {"trusted_proxy_ranges": ["127.0.0.0/8"]}}
    async with installation(behind_a_proxy) as it:
        wrong = {"username": "ada@example.test", "password": "wrong, and wrong again"}
        visitor, other = (Browser(it, headers={"X-Forwarded-For": address}) for address in ("192.0.2.1", "192.0.2.2"))
        statuses = [(await visitor.post("/login", wrong)).status for _ in range(11)]
        assert statuses[:10] == [401] * 10
        page = await visitor.post("/login", wrong)
        assert page.status == 429 and 0 < int(page.headers["Retry-After"]) <= 300
        assert re.search(r"Try again in [0-9]+ (minutes?|seconds?)\.", page.says)
        assert page.forms["/login"]["username"] == "ada@example.test"
        assert (await other.post("/login", wrong)).status == 401


@given(
    raw=st.binary(max_size=60) | texts.map(lambda text: text.encode(errors="surrogatepass")),
    cookie=st.binary(max_size=40) | st.sampled_from([b"a.b.c", b"sk-kss1_" + b"a" * 43]),
    body=st.binary(max_size=80) | st.just(b"username=%00&password=%00"),
    path=st.sampled_from([b"/login", b"/ui/keys", b"/ui/onboarding", b"/ui/keys/%s/delete", b"/ui/%s", b"/ui?%s"]),
)
@hostile(150)
async def test_whatever_is_sent_is_answered_by_a_page(
    it: Installation, raw: bytes, cookie: bytes, body: bytes, path: bytes
) -> None:
    target = path.replace(b"%s", as_target(raw) or b"x")
    headers = [(b"Cookie", b"token=" + as_value(cookie)), (b"Sec-Fetch-Site", b"same-origin")]
    headers += [(b"Content-Type", FORM.encode())]
    for method in ("GET", "POST"):
        answer = await exchange(it.url, method, target, headers, body if method == "POST" else b"")
        if answer.body != b"Invalid HTTP request received.":
            assert answer.status < 500, (method, target, answer)
