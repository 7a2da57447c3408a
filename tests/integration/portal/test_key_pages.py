"""My keys: a key is made, shown once, used, and deleted; and what others see of it (§3.6, §2.2)."""

import re
import shlex
from collections.abc import AsyncIterator
from html import unescape

import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.installation import BASE_URL, Installation, Person, installation
from tests.support.portal import Browser, Page, browser_of

KEY = re.compile(r"sk-ks1_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(1)</script>{{7*7}}{% raw %}'


@pytest_asyncio.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation({"litellm_settings": {"upperbound_key_generate_params": {"max_budget": 100}}}) as running:
        yield running


@pytest_asyncio.fixture
async def ada(it: Installation) -> Person:
    return await it.invite()


@pytest_asyncio.fixture
async def browser(it: Installation, ada: Person) -> Browser:
    return await browser_of(it, ada)


def snippet_of(page: Page) -> list[str]:
    found = re.search(r'<pre class="snippet"[^>]*><code>(.*?)</code></pre>', page.text, re.DOTALL)
    assert found
    return shlex.split(unescape(found[1]).replace("\\\n", " "))


async def test_without_a_key_there_is_one_next_step(browser: Browser) -> None:
    page = await browser.get("/ui")
    assert "No keys yet" in page.says and "Create your first key" in page.says


async def test_a_key_is_made_with_what_the_form_says(it: Installation, ada: Person, browser: Browser) -> None:
    page = await browser.create_key(
        key_alias="laptop", max_budget="2.50", budget_duration="1mo", duration="30d", models=["mock-fast"]
    )
    assert (page.status, page.title) == (200, "Your new key")
    (listed,) = (await it.ok("GET", "/key/list?return_full_object=true", key=ada.session))["keys"]
    assert (listed["key_alias"], listed["models"], listed["user_id"]) == ("laptop", ["mock-fast"], ada.user_id)
    assert (listed["max_budget"], listed["budget_duration"]) == (2.5, "1mo")
    assert listed["expires"]


async def test_the_key_is_in_exactly_one_answer(browser: Browser) -> None:
    made = await browser.create_key(key_alias="once")
    (key,) = set(KEY.findall(made.text))
    for path in ("/ui", "/ui/keys", f"/ui/keys/{key[7:19]}/delete", "/ui/keys/new"):
        await browser.get(path)
    holding = [page for page in browser.seen if key in page.text or key in str(page.headers)]
    assert holding == [made]
    assert key not in str(made.headers) and made.headers["Cache-Control"] == "no-store"


async def test_the_snippet_is_a_call_that_works(it: Installation, browser: Browser) -> None:
    command = snippet_of(await browser.create_key(models=["mock-priced"]))
    assert command[:2] == ["curl", f"{BASE_URL}/v1/chat/completions"]
    headers = dict(each.split(": ", 1) for flag, each in zip(command[2::2], command[3::2], strict=True) if flag == "-H")
    body = command[command.index("-d") + 1]
    async with it.http.post(f"{it.url}/v1/chat/completions", data=body, headers=headers) as answer:
        assert answer.status == 200
        assert (await answer.json())["model"] == "mock-priced"


async def test_the_list_shows_budget_and_spend_in_words(it: Installation, browser: Browser) -> None:
    made = await browser.create_key(key_alias="spender", max_budget="5", budget_duration="1d")
    key = KEY.findall(made.text)[0]
    call = {"model": "mock-priced", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    await it.ok("POST", "/v1/chat/completions", call, key=key)

    async def is_spent() -> bool:
        return "$0.09 of $5.00 every day" in (await browser.get("/ui")).says

    await eventually(is_spent)
    says = browser.seen[-1].says
    assert "spender" in says
    assert "Active" in says and "Never" in says and f"sk-...{key[-4:]}" in says


async def test_a_hostile_name_is_only_ever_text(it: Installation, ada: Person, browser: Browser) -> None:
    made = await browser.create_key(key_alias=HOSTILE)
    (key,) = (await it.ok("GET", "/key/list?return_full_object=true", key=ada.session))["keys"]
    for page in (made, await browser.get("/ui"), await browser.get(f"/ui/keys/{key['key_id']}/delete")):
        assert HOSTILE in page.says.replace("\xa0", " "), page.text
        assert "<img src=x" not in page.text and "<script" not in page.text


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"max_budget": "five"}, "max_budget", "Budget"),
        ({"max_budget": "-1"}, "max_budget", "Budget"),
        ({"max_budget": "101"}, "max_budget", "Budget is over the upper bound"),
        ({"duration": "soon"}, "duration", "Expiry"),
        ({"models": ["nothing"]}, "models", "Models"),
        ({"key_alias": "x" * 300}, "key_alias", "Name"),
        ({"key_alias": "taken"}, "key_alias", ""),
    ],
)
async def test_what_is_refused_is_told_beside_its_field(
    browser: Browser, fields: dict[str, str], field: str, says: str
) -> None:
    if fields.get("key_alias") == "taken":
        await browser.create_key(key_alias="taken")
    page = await browser.create_key(**{"key_alias": "kept", **fields})
    assert (page.status, page.title) == (400, "New key")
    found = re.search(f'<p class="fault" id="{field}-fault">(.*?)</p>', page.text)
    assert found and says in found[1]
    assert page.forms["/ui/keys"]["key_alias"] == fields.get("key_alias", "kept"), "what was typed is kept"
    assert not KEY.search(page.text)


async def test_a_form_sent_twice_makes_one_key(it: Installation, ada: Person, browser: Browser) -> None:
    form = (await browser.get("/ui/keys/new")).forms["/ui/keys"]
    first = await browser.post("/ui/keys", {**form, "key_alias": "double"})
    again = await browser.post("/ui/keys", {**form, "key_alias": "double"})
    assert first.status == again.status == 200
    assert KEY.findall(first.text) == KEY.findall(again.text)
    assert (await it.ok("GET", "/key/list", key=ada.session))["total_count"] == 1


@pytest.mark.parametrize("sent", ["a\r\nx-api-key: b", "\n", "\x00", "\u00e9", "x" * 300])
async def test_what_a_form_hides_is_no_header_of_ones_own(browser: Browser, sent: str) -> None:
    made = await browser.create_key(idempotency_key=sent)
    assert made.status in (200, 400), made.says


async def test_a_key_is_deleted_after_one_was_asked(it: Installation, ada: Person, browser: Browser) -> None:
    await browser.create_key(key_alias="short-lived")
    (key,) = (await it.ok("GET", "/key/list?return_full_object=true", key=ada.session))["keys"]
    path = f"/ui/keys/{key['key_id']}/delete"
    asked = await browser.get(path)
    assert asked.title == "Delete a key" and "short-lived" in asked.says
    assert (await it.ok("GET", "/key/list", key=ada.session))["total_count"] == 1, "asking deletes nothing"
    done = await browser.post(path, {})
    assert (done.status, done.location) == (303, "/ui?notice=key-deleted")
    page = await browser.get(done.location)
    assert "The key is deleted." in page.says and "short-lived" not in page.says
    for again in (await browser.get(path), await browser.post(path, {})):
        assert again.status == 404


async def test_only_known_notices_are_shown(browser: Browser) -> None:
    page = await browser.get("/ui?notice=Call+us+at+555&utm_source=x")
    assert page.status == 200 and "555" not in page.text


async def test_the_keys_of_another_are_nobodys_here(it: Installation, browser: Browser) -> None:
    other = await it.invite()
    key = await it.ok("POST", "/key/generate", {"key_alias": f"of another {other.user_id}"}, key=other.session)
    assert "of another" not in (await browser.get("/ui")).says
    for page in (
        await browser.get(f"/ui/keys/{key['key_id']}/delete"),
        await browser.post(f"/ui/keys/{key['key_id']}/delete", {}),
    ):
        assert page.status == 403 and "of another" not in page.text
    assert (await it.ok("GET", "/key/info", key=key["key"]))["info"]["status"] == "active"


@pytest.mark.parametrize("role", ["internal_user_viewer", "proxy_admin_viewer"])
async def test_a_viewer_sees_keys_and_nothing_to_change_them_with(it: Installation, role: str) -> None:
    viewer = await it.invite(user_role=role)
    browser = await browser_of(it, viewer)
    empty = await browser.get("/ui")
    assert "No keys yet" in empty.says and "/ui/keys/new" not in empty.text
    key = await it.ok("POST", "/key/generate", {"user_id": viewer.user_id, "key_alias": f"given to {role}"})
    page = await browser.get("/ui")
    assert f"given to {role}" in page.says
    assert "/ui/keys/new" not in page.text and "/delete" not in page.text
    path = f"/ui/keys/{key['key_id']}/delete"
    refused = [
        await browser.get("/ui/keys/new"),
        await browser.get(path),
        await browser.post("/ui/keys", {"key_alias": "mine"}),
        await browser.post(path, {}),
    ]
    assert [each.status for each in refused] == [403] * 4
    assert {each.title for each in refused} == {"This page is not for your role"}
    assert (await it.ok("GET", "/key/info", key=key["key"]))["info"]["status"] == "active"


async def test_many_keys_come_in_pages(it: Installation, ada: Person, browser: Browser) -> None:
    for number in range(26):
        await it.ok("POST", "/key/generate", {"key_alias": f"key {number} of {ada.user_id}"}, key=ada.session)
    first, second = await browser.get("/ui"), await browser.get("/ui?page=2")
    assert "Page 1 of 2" in first.says and "key 25 of" in first.says and "key 0 of" not in first.says
    assert "key 0 of" in second.says and "key 25 of" not in second.says
    for page in ("3", "999999999"):
        assert "This page is empty" in (await browser.get(f"/ui?page={page}")).says
    for page in ("0", "-1", "x", "9" * 400):
        assert "Page 1 of 2" in (await browser.get(f"/ui?page={page}")).says
