"""HTTP by hand: requests that no client library would send, and what came back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from multidict import CIMultiDict

Header = tuple[bytes, bytes]
ANSWER_SECONDS = 20.0
FIRST_SECONDS = 5.0  # until what may never be answered is: a server may wait for more, and be right
MORE_SECONDS = 0.15  # until another answer, that should not come
LINE_BYTES_MAX = 16 * 1024 * 1024


class Answer(NamedTuple):
    status: int
    headers: CIMultiDict[str]
    body: bytes


async def exchange(url: str, method: str, target: bytes, headers: Sequence[Header] = (), body: bytes = b"") -> Answer:
    """One request on a connection of its own. ``headers`` are sent as they are; ``Host`` and the body's length too."""
    address = urlsplit(url)
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=LINE_BYTES_MAX)
        try:
            writer.write(_request(address.netloc, method, target, headers, body))
            return await read_answer(reader, has_body=method != "HEAD")
        finally:
            writer.close()


async def converse(host: str, port: int, raw: bytes) -> list[Answer]:
    """Everything that is answered to these bytes, on a connection of their own; nothing where it is only closed."""
    answers: list[Answer] = []
    reader, writer = await asyncio.open_connection(host, port, limit=LINE_BYTES_MAX)
    try:
        with suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            writer.write(raw)
            while not reader.at_eof():
                async with asyncio.timeout(MORE_SECONDS if answers else FIRST_SECONDS):
                    answers.append(await read_answer(reader, has_body=not raw.startswith(b"HEAD")))
    except IndexError:
        pass  # closed where an answer would begin
    finally:
        writer.close()
    return answers


async def hang_up(url: str, method: str, target: bytes, headers: Sequence[Header], body: bytes, *, after: int) -> None:
    """The first ``after`` bytes of a request, and no more."""
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(_request(address.netloc, method, target, headers, body)[:after])
    await writer.drain()
    writer.close()


def _request(host: str, method: str, target: bytes, headers: Sequence[Header], body: bytes) -> bytes:
    given = {name.lower() for name, _ in headers}
    lines = [(b"Host", host.encode()), (b"Connection", b"close"), *headers]
    if body and not given & {b"content-length", b"transfer-encoding"}:
        lines.append((b"Content-Length", str(len(body)).encode()))
    head = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
    return method.encode() + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n" + body


async def read_answer(reader: asyncio.StreamReader, *, has_body: bool = True) -> Answer:
    """The next answer on a connection; a HEAD's has no body, whatever it says."""
    first = await reader.readline()
    headers: CIMultiDict[str] = CIMultiDict()
    if first and not first.startswith(b"HTTP/"):
        return Answer(200, headers, first + await reader.read())  # HTTP/0.9, which some proxies still speak
    status = int(first.split(b" ")[1])
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers.add(name.strip(), value.strip())
    if not has_body:
        return Answer(status, headers, b"")
    if headers.get("Transfer-Encoding") == "chunked":
        return Answer(status, headers, b"".join([chunk async for chunk in _chunks(reader)]))
    length = int(headers.get("Content-Length", "0"))
    return Answer(status, headers, await reader.readexactly(length))


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while (size := int(await reader.readline(), 16)) > 0:
        yield await reader.readexactly(size)
        await reader.readline()
