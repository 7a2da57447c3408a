"""Requests that take HTTP apart, as a table, to be tried on whatever listens: this server alone, or a proxy before it.

Everything is judged by what comes back. A request within a request names itself in ``x-request-id``, which every answer
repeats: no answer may bear its name.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.raw_http import Answer, converse
from tests.support.spellings import Asked, asked_otherwise

AT_ONCE = 16
BUILDS_LINKS = ("/", "/logout", "/ui/login", "/openapi.json", "/onboarding/get_token?invite_link=x", "/livez")
SECRET = "a-word-that-nobody-repeats"
EVIL = "evil.example"

INNER = b"GET /livez HTTP/1.1\r\nHost: inner\r\nx-request-id: inner\r\n\r\n"
OUTER = b"Host: {host}\r\nx-request-id: outer\r\n"


@dataclass(frozen=True)
class Trick:
    """``raw`` has ``{host}`` where the server's name goes. ``refused``: there is no right way to read it."""

    name: str
    raw: bytes
    refused: bool = False
    answers_max: int = 1


def _post(head: bytes, body: bytes) -> bytes:
    return b"POST /v2/login HTTP/1.1\r\n" + OUTER + b"Content-Type: application/json\r\n" + head + b"\r\n" + body


def _get(head: bytes, target: bytes = b"/livez", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + OUTER + head + b"\r\n"


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


TE = b"Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"
LENGTHS = [b"-1", b"+2", b"0x2", b"2,3", b"2, 3", b"2 2", b"two", b"\xb2", b"9" * 30, b"1e1"]
ENCODINGS = [
    b"xchunked",
    b"identity, chunked, x",
    b"chunked, chunked",
    b"\x0bchunked",
    b"chunked\x00",
    b"gzip",
    b"chunk",
]
SIZES = [b"-1", b"0x2", b"+2", b"g", b"", b"F" * 17, b"2 2", b"\xb2", b"1" + b"0" * 20]

TRICKS: tuple[Trick, ...] = (
    # Where does the body end?
    Trick("both a length and chunks", _post(b"Content-Length: 5\r\n" + TE, END + INNER), refused=True),
    Trick("both chunks and a length", _post(TE + b"Content-Length: 5\r\n", END + INNER), refused=True),
    Trick("a length of all and chunks that end", _post(b"Content-Length: 200\r\n" + TE, END + INNER), refused=True),
    Trick("two lengths", _post(b"Content-Length: 2\r\nContent-Length: 9\r\n", b"{}" + INNER), refused=True),
    Trick("two lengths, none first", _post(b"Content-Length: 0\r\nContent-Length: 70\r\n", INNER), refused=True),
    Trick("a length on a folded line", _post(b"Content-Length:\r\n 2\r\n", b"{}")),
    Trick("a length with a space before the colon", _post(b"Content-Length : 70\r\n", INNER), refused=True),
    Trick("chunks with a space before the colon", _post(b"Transfer-Encoding : chunked\r\n", END + INNER), refused=True),
    Trick("chunks named on a folded line", _post(b"X: y\r\n Transfer-Encoding: chunked\r\n", INNER), answers_max=1),
    Trick(
        "chunks named after a bare return", _post(b"X: y\rTransfer-Encoding: chunked\r\n", END + INNER), refused=True
    ),
    Trick("two codings in two lines", _post(TE + b"Transfer-Encoding: identity\r\n", END + INNER), refused=True),
    *(
        Trick(f"a length of {each!r}", _post(b"Content-Length: " + each + b"\r\n", b"{}" + INNER), True)
        for each in LENGTHS
    ),
    *(
        Trick(f"a coding {each!r}", _post(b"Transfer-Encoding: " + each + b"\r\n", END + INNER), True)
        for each in ENCODINGS
    ),
    *(Trick(f"a chunk of {each!r}", _post(TE, each + b"\r\n{}\r\n" + END + INNER), True) for each in SIZES),
    Trick("a chunk longer than it says", _post(TE, b"2\r\n{}" + INNER + b"\r\n" + END), refused=True),
    Trick("chunks with extensions", _post(TE, b'2;a=b;c="d"\r\n{}\r\n' + END)),
    Trick("a chunk's extension without end", _post(TE, b"2;" + b"a" * 200_000 + b"\r\n{}\r\n" + END)),
    Trick("chunks that end in bare line feeds", _post(TE, b"2\n{}\n0\n\n" + INNER), refused=True),
    Trick("a trailer that is a header", _post(TE, _chunk(b"{}") + b"0\r\nX-Keystead-Principal: x\r\n\r\n")),
    Trick("a trailer that is a length", _post(TE, _chunk(b"{}") + b"0\r\nContent-Length: 70\r\n\r\n")),
    Trick("a request as a body", _post(b"Content-Length: %d\r\n" % len(INNER), INNER)),
    Trick("a request as the body of a GET", _get(b"Content-Length: %d\r\n" % len(INNER)) + INNER),
    Trick("a request as a GET's chunks", _get(TE) + _chunk(INNER) + END),
    Trick("an older version in chunks", b"POST /v2/login HTTP/1.0\r\n" + OUTER + TE + b"\r\n" + END + INNER),
    Trick("an older version that goes on", _get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0")),
    # Where does a line end, and what is one?
    Trick("a request in bare line feeds", b"GET /livez HTTP/1.1\nHost: {host}\nx-request-id: outer\n\n"),
    Trick("a header after a bare line feed", _get(b"X: y\nx-request-id: inner\r\n"), refused=True),
    Trick("a header with a bare return in it", _get(b"X: y\rz\r\n"), refused=True),
    Trick("a header on a folded line", _get(b"X: y\r\n z\r\n")),
    Trick("a first header that is folded", b"GET /livez HTTP/1.1\r\n x: y\r\n" + OUTER + b"\r\n", refused=True),
    Trick("a header without a colon", _get(b"X\r\n"), refused=True),
    Trick("a header without a name", _get(b": y\r\n"), refused=True),
    Trick("a header with a space in its name", _get(b"X y: z\r\n"), refused=True),
    Trick("a header with a zero byte in its name", _get(b"X\0: y\r\n"), refused=True),
    Trick("a header with a zero byte", _get(b"X: y\0z\r\n"), refused=True),
    Trick("a header of a megabyte", _get(b"X: " + b"y" * 1_000_000 + b"\r\n"), refused=True),
    Trick("ten thousand headers", _get(b"".join(b"X-%d: y\r\n" % number for number in range(10_000))), refused=True),
    Trick("a target of a megabyte", _get(b"", target=b"/" + b"a" * 1_000_000), refused=True),
    Trick("a query of a megabyte", _get(b"", target=b"/livez?" + b"a" * 1_000_000), refused=True),
    Trick("a method of a kilobyte", b"G" * 1000 + b" /livez HTTP/1.1\r\n" + OUTER + b"\r\n", refused=True),
    # Which protocol?
    Trick("no version", b"GET /livez\r\n\r\n", refused=True),
    *(
        Trick(f"version {each!r}", _get(b"", version=each), refused=True)
        for each in (b"HTTP/9.9", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1x", b"HTTP/-1.1", b"ICY/1.1", b"")
    ),
    Trick("the preface of another version", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused=True),
    Trick("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(32), refused=True),
    Trick(
        "an upgrade to HTTP/2", _get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n")
    ),
    Trick(
        "an upgrade to a socket",
        _get(
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            target=b"/keystead/v1/me",
        ),
    ),
    Trick("a tunnel", b"CONNECT " + EVIL.encode() + b":443 HTTP/1.1\r\n" + OUTER + b"\r\n", refused=True),
    Trick("a tunnel to a path", b"CONNECT /livez HTTP/1.1\r\n" + OUTER + b"\r\n", refused=True),
    Trick(
        "a trace", b"TRACE /livez HTTP/1.1\r\n" + OUTER + b"X-Secret: " + SECRET.encode() + b"\r\n\r\n", refused=True
    ),
    Trick("a host that is none", b"GET /livez HTTP/1.1\r\nHost: a b\r\nx-request-id: outer\r\n\r\n"),
    Trick("two hosts", _get(b"Host: " + EVIL.encode() + b"\r\n")),
    Trick("an address of another site", _get(b"", target=b"http://" + EVIL.encode() + b"/livez")),
    Trick("an address with a name and a word", _get(b"", target=b"http://a:b@" + EVIL.encode() + b"/livez")),
    Trick("a scheme in capitals", _get(b"", target=b"HTTP://" + EVIL.encode() + b"/livez")),
    Trick("a scheme that is none", _get(b"", target=b"file:///etc/passwd"), refused=True),
    Trick("all of the server", b"OPTIONS * HTTP/1.1\r\n" + OUTER + b"\r\n"),
    Trick("a path that does not begin", _get(b"", target=b"livez"), refused=True),
    # Waiting
    Trick(
        "a body that waits to be asked for", _post(b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"{}"), False, 2
    ),
    Trick("a wait for something else", _post(b"Expect: a miracle\r\nContent-Length: 2\r\n", b"{}")),
    Trick("two requests at once", _get(b"") + _get(b"Connection: close\r\n"), answers_max=2),
    Trick("a request after the last one", _get(b"Connection: close\r\n") + INNER),
)


async def failures(host: str, port: int, credential: str, *, proxied: bool = False) -> list[str]:
    """What is wrong with how whatever listens there takes all this. ``credential`` is an internal_user_viewer's.

    A proxy may mend what it takes, and answer what it finds in it, if all behind it read what it sends on as it does:
    then nobody is given another's answer, whatever others send meanwhile.
    """
    found = await _at_once(
        [
            *(_tried(host, port, trick, proxied=proxied) for trick in TRICKS),
            *(_own(host, port, f"own-{number}") for number in range(10 * len(TRICKS) if proxied else 0)),
            *(_refused(host, port, asked) for asked in asked_otherwise(credential)),
            *(_unmoved(host, port, path, header) for path in BUILDS_LINKS for header in _hosts()),
        ]
    )
    return [fault for fault in found if fault]


async def _at_once(tries: Sequence[Coroutine[Any, Any, str]]) -> list[str]:
    places = asyncio.Semaphore(AT_ONCE)

    async def in_turn(one: Coroutine[Any, Any, str]) -> str:
        async with places:
            return await one

    return await asyncio.gather(*map(in_turn, tries))


async def _own(host: str, port: int, name: str) -> str:
    """Two requests on one connection, among all the tricks: each is given its own answer."""
    ask = b"GET /livez HTTP/1.1\r\nHost: own\r\nx-request-id: %b\r\n%b\r\n"
    names = [f"{name}-first", f"{name}-second"]
    raw = ask % (names[0].encode(), b"") + ask % (names[1].encode(), b"Connection: close\r\n")
    answered = [answer.headers.get("x-request-id") for answer in await converse(host, port, raw)]
    return "" if answered == names else f"{names} are answered as {answered}"


async def _tried(host: str, port: int, trick: Trick, *, proxied: bool) -> str:
    answers = await converse(host, port, trick.raw.replace(b"{host}", f"{host}:{port}".encode()))
    names = [answer.headers.get("x-request-id") for answer in answers]
    final = [answer for answer in answers if answer.status != 100]
    match answers:
        case _ if "inner" in names and not proxied:
            fault = "the request within is answered"
        case _ if len(answers) > trick.answers_max and not proxied:
            fault = f"{len(answers)} answers"
        case _ if any(answer.status == 101 for answer in answers):
            fault = "the protocol is changed"
        case _ if any(SECRET.encode() in answer.body or EVIL.encode() in _all_of(answer) for answer in answers):
            fault = "it is repeated"
        case _ if any(answer.status >= 500 and answer.status not in (501, 505) for answer in final):
            fault = f"{final[0].status}"
        case _ if trick.refused and not proxied and any(answer.status < 400 for answer in final):
            fault = f"it is taken: {final[0].status}"
        case _:
            return ""
    return f"{trick.name}: {fault}"


async def _refused(host: str, port: int, asked: Asked) -> str:
    """Refused as it is in plain, or unknown, or no HTTP at all."""
    answers = await converse(host, port, asked.raw)
    for answer in answers:
        is_ours = "json" in answer.headers.get("Content-Type", "")
        if answer.status not in ((401, 403, 404, 405) if is_ours or answer.status < 400 else range(400, 500)):
            return f"{asked.method} {asked.target!r} {asked.header!r} by {asked.credential and 'a viewer'}: {answer}"
    return ""


async def _unmoved(host: str, port: int, path: str, header: bytes) -> str:
    """Links are built from the base URL (§1.1), whatever a request says that our name is."""
    own = b"" if header.startswith(b"Host:") else f"Host: {host}:{port}\r\n".encode()
    answers = await converse(host, port, f"GET {path} HTTP/1.1\r\n".encode() + own + header + b"\r\n\r\n")
    if any(EVIL.encode() in _all_of(answer) or answer.status >= 500 for answer in answers):
        return f"{path} with {header!r}: {answers}"
    return ""


def _hosts() -> list[bytes]:
    names = ("Host", "X-Forwarded-Host", "X-Host", "X-Forwarded-Server", "X-Original-Host", "Origin")
    return [*(f"{name}: {EVIL}".encode() for name in names), f"Forwarded: host={EVIL}".encode()]


def _all_of(answer: Answer) -> bytes:
    return answer.body + "".join(answer.headers.values()).encode()
