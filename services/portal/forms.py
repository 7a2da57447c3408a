"""Reading what a page's form sent, as strictly as JSON is read elsewhere (§1.3)."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.requests import ClientDisconnect

from services.portal.trouble import Trouble

LIMIT_BYTES = 64 * 1024
FIELDS_MAX = 600  # the models of a key, and a few more
MEDIA_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Form:
    """What was filled in. A field that was not sent is empty, as one that was left empty."""

    texts: Mapping[str, str]
    lists: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str:
        return self.texts.get(name, "")

    def items(self, name: str) -> Sequence[str]:
        return self.lists.get(name, ())


async def read_form(request: Request, texts: Collection[str], lists: Collection[str] = ()) -> Form:
    """The form with these fields; those of ``lists`` may be there several times. Raises ``Trouble``."""
    return parse_form(await _read_body(request), texts, lists)


def parse_form(raw: bytes, texts: Collection[str], lists: Collection[str] = ()) -> Form:
    """The form that ``raw`` is. Raises ``Trouble`` for what no page of ours sends."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:  # UnicodeDecodeError too
        raise _malformed("It is not a form in UTF-8.") from None
    times = Counter(name for name, _ in pairs)
    if times.keys() - {*texts, *lists}:
        raise _malformed("It has a field that is not known here.")
    if any(times[name] > 1 for name in texts):
        raise _malformed("It has a field twice.")
    return Form(
        {name: value for name, value in pairs if name in texts},
        {name: [value for other, value in pairs if other == name] for name in lists},
    )


async def _read_body(request: Request) -> bytes:
    media_type, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    encoding = request.headers.get("content-encoding", "identity").lower()
    if media_type.strip() != MEDIA_TYPE or charset not in ("", "utf-8", "utf8") or encoding != "identity":
        raise Trouble(415, "That was no form", "Go back and send the page's own form again.")
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > LIMIT_BYTES:
                raise Trouble(413, "That was too much", "A form here takes 64 KiB. Go back and shorten what you wrote.")
    except ClientDisconnect:
        raise _malformed("It ended early.") from None
    return bytes(raw)


def _malformed(why: str) -> Trouble:
    return Trouble(400, "That form can't be read", f"{why} Go back and send the page's own form again.")
