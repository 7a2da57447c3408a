"""A real browser without JavaScript, and `keystead up` as a process; run by ``make e2e``, not by ``make test``."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.support.up import Up, run_up

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# No sandbox: CI runs as root, in a container that is one. The rest keeps it from talking to anybody but us.
OPTIONS = """
    --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync
"""

Opened = Callable[..., Page]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with run_up(tmp_path_factory.mktemp("browser") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    assert program, "needs Chromium: `make e2e` installs it where it may"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(up: Up, chromium: Browser) -> Iterator[Opened]:
    """Open a browser of one's own; at the end its console must have been silent, and no policy broken."""
    with ExitStack() as stack:

        def opened(width: int = 1440, scheme: str = "light") -> Page:
            return stack.enter_context(_page(chromium, up.url, width, scheme))

        yield opened


@contextmanager
def _page(chromium: Browser, url: str, width: int, scheme: str) -> Iterator[Page]:
    context = chromium.new_context(
        base_url=url,
        java_script_enabled=False,
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.extend(_complaint(message)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    yield page
    context.close()
    assert said == [], "the console has something to say"


def _complaint(message: ConsoleMessage) -> list[str]:
    """A page that answers 401, 403 or 404 is meant to; the browser notes it all the same."""
    expected = "the server responded with a status of 40" in message.text
    return [] if expected else [f"{message.type}: {message.text}"]
