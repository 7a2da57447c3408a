"""What a person does in a browser: from the invitation's link to a key that works and its end; JavaScript is off."""

import re
import shlex
import uuid
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.support.up import Up

PASSWORD = "correct horse battery staple"
WIDTHS = (360, 768, 1440)
TOUCH_PIXELS = 44

Opened = Callable[..., Page]


def invite(up: Up, **user: Any) -> tuple[str, str]:
    """Somebody's e-mail address, and the path of their link."""
    email = f"{uuid.uuid4().hex[:12]}@example.test"
    made = up.ok("POST", "/user/new", {"user_email": email, "auto_create_key": False, **user})
    invitation = up.ok("POST", "/invitation/new", {"user_id": made["user_id"], "send_email": True})
    return email, f"/ui/onboarding?id={invitation['id']}"


def set_password(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same once more").fill(PASSWORD)
    page.get_by_role("button", name="Set password and log in").click()
    expect(page).to_have_title("My keys · Keystead")


def log_in(page: Page, name: str, password: str) -> None:
    page.goto("/")
    expect(page).to_have_title("Log in · Keystead")
    page.get_by_label("E-mail address or user name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def call_of(snippet: str) -> tuple[str, dict[str, str], str]:
    """What the shown command sends: where to, with which headers, and what."""
    words = shlex.split(snippet.replace("\\\n", " "))
    assert words[0] == "curl"
    options = list(zip(words[2::2], words[3::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
    return words[1], headers, dict(options)["-d"]


def test_the_invited_person_helps_themselves(up: Up, visit: Opened) -> None:
    email, link = invite(up, user_role="internal_user")
    page = visit()
    page.goto(link)
    expect(page.get_by_label("E-mail address")).to_have_value(email)
    set_password(page, link)

    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Log in · Keystead")
    page.goto("/ui")
    expect(page).to_have_title("Log in · Keystead")
    log_in(page, email, "not the password at all")
    expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    expect(page.get_by_label("E-mail address or user name")).to_have_value(email)
    log_in(page, email, PASSWORD)
    expect(page).to_have_title("My keys · Keystead")

    page.get_by_role("link", name="Create your first key").click()
    page.get_by_label("Name").fill("laptop")
    page.get_by_label("Budget", exact=False).first.fill("0.50")
    page.get_by_label("The budget starts again").select_option("Every month")
    page.get_by_label("mock-gpt").check()
    page.get_by_role("button", name="Create key").click()
    expect(page).to_have_title("Your new key · Keystead")
    key = page.locator("code.secret").inner_text()
    assert re.fullmatch(r"sk-ks1_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}", key) and key not in page.url
    url, headers, body = call_of(page.locator(".snippet").inner_text())

    answer = httpx2.post(url, headers=headers, content=body, timeout=30)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"]

    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_role("rowheader")).to_contain_text("laptop")
    assert key not in page.content() and key[-4:] in page.content()
    page.get_by_role("link", name="Delete laptop").click()
    expect(page).to_have_title("Delete a key · Keystead")
    page.get_by_role("link", name="Keep it").click()
    page.get_by_role("link", name="Delete laptop").click()
    page.get_by_role("button", name="Delete the key").click()
    expect(page.get_by_role("status")).to_contain_text("The key is deleted.")
    expect(page.get_by_text("No keys yet")).to_be_visible()
    assert httpx2.post(url, headers=headers, content=body, timeout=30).status_code == 401


def test_an_admin_hands_out_a_link_from_the_outbox(up: Up, visit: Opened) -> None:
    email, _ = invite(up)
    admin, invited = visit(), visit(width=360)
    log_in(admin, "admin", up.master_key)
    admin.get_by_role("link", name="Outbox").click()
    admin.get_by_role("link", name=f"Read the mail to {email}").click()
    link = admin.locator("code.secret").inner_text()
    set_password(invited, link)
    invited.goto("/ui/outbox")
    expect(invited.get_by_role("heading", name="This page is not for your role")).to_be_visible()


def test_the_way_leads_through_the_keyboard_alone(up: Up, visit: Opened) -> None:
    email, link = invite(up)
    set_password(visit(), link)
    page = visit()
    page.goto("/ui/login")
    expect(page.get_by_label("E-mail address or user name")).to_be_focused()
    page.keyboard.type(email)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_title("My keys · Keystead")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_the_screen_and_each_target_can_be_touched(
    up: Up, visit: Opened, width: int, scheme: str
) -> None:
    email, link = invite(up, user_role="proxy_admin")
    page = visit(width, scheme)
    _check_fit(page, "/ui/login", link, "/ui/onboarding", "/ui/onboarding?id=nothing", "/ui/nothing")
    set_password(page, link)
    _check_fit(page, "/ui", "/ui/keys/new", "/ui/outbox")
    page.goto("/ui/keys/new")
    page.get_by_label("Name").fill(f"{email}-" + "W" * 200)
    page.get_by_label("Budget", exact=False).first.fill("many")
    page.get_by_role("button", name="Create key").click()
    expect(page.locator("#max_budget-fault")).to_be_visible()
    _check_width(page)
    page.get_by_label("Budget", exact=False).first.fill("1")
    page.get_by_role("button", name="Create key").click()
    expect(page).to_have_title("Your new key · Keystead")
    _check_width(page)
    _check_fit(page, "/ui")
    page.get_by_role("link", name="Delete").first.click()
    _check_width(page)
    page.goto("/ui/outbox")
    page.get_by_role("link", name="Read the mail").first.click()
    _check_width(page)


def _check_fit(page: Page, *paths: str) -> None:
    for path in paths:
        page.goto(path)
        _check_width(page)


def _check_width(page: Page) -> None:
    size = page.viewport_size
    assert size and page.evaluate("document.documentElement.scrollWidth") <= size["width"], page.url
    for target in page.locator("a.button, a.nav-link, button, select, input:not([type=checkbox], [type=hidden])").all():
        box = target.bounding_box()
        assert box and round(box["height"]) >= TOUCH_PIXELS, (page.url, target.inner_text(), box)
