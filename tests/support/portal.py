"""A visitor of the portal's pages: a browser without JavaScript, as far as HTTP shows one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.installation import PASSWORD, Installation, Person

HERE = {"Sec-Fetch-Site": "same-origin"}
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Page:
    """An answer, as HTTP has it."""

    status: int
    text: str
    headers: Any

    @property
    def title(self) -> str:
        found = re.search(r"<title>(.*?) · Keystead</title>", self.text)
        assert found, self.text
        return unescape(found[1])

    @property
    def location(self) -> str:
        return str(self.headers["Location"])

    @property
    def says(self) -> str:
        """What is read on it."""
        return text_of(self.text)

    @property
    def forms(self) -> dict[str, dict[str, str]]:
        """The fields of each form, by its action."""
        found = _Forms()
        found.feed(self.text)
        return found.forms


@dataclass
class Browser:
    """Goes from page to page with the cookie that it was given; follows nothing by itself."""

    it: Installation
    cookie: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[Page] = field(default_factory=list)

    async def get(self, path: str, **headers: str) -> Page:
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, fields: Mapping[str, Any] | bytes, **headers: str) -> Page:
        """A form, sent from a page of the same site."""
        data = fields if isinstance(fields, bytes) else urlencode(fields, doseq=True).encode()
        return await self._ask("POST", path, data, {"Content-Type": FORM, **HERE, **headers})

    async def log_in(self, person: Person) -> Page:
        return await self.post("/login", {"username": person.email, "password": PASSWORD})

    async def create_key(self, **fields: Any) -> Page:
        """By the form, with what it has hidden in it."""
        form = (await self.get("/ui/keys/new")).forms["/ui/keys"]
        return await self.post("/ui/keys", {**form, **fields})

    async def _ask(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> Page:
        given = {**self.headers, **headers, **({"Cookie": f"token={self.cookie}"} if self.cookie else {})}
        sent = {name: value for name, value in given.items() if value}
        async with self.it.http.request(
            method, self.it.url + path, data=data, headers=sent, allow_redirects=False
        ) as response:
            page = Page(response.status, await response.text(), response.headers)
        for cookie in response.headers.getall("Set-Cookie", []):
            self.cookie = cookie.partition("=")[2].partition(";")[0] or None
        self.seen.append(page)
        return page


async def browser_of(it: Installation, person: Person) -> Browser:
    """One in which the person is logged in."""
    browser = Browser(it)
    assert (await browser.log_in(person)).status == 303
    return browser


def text_of(markup: str) -> str:
    found = _Text()
    found.feed(markup)
    return " ".join(" ".join(found.parts).split())


def query_of(location: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(location).query)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._fields = self.forms.setdefault(given["action"], {})
        elif tag == "input" and given.get("type") != "checkbox" and "name" in given:
            self._fields[given["name"]] = given.get("value", "")
