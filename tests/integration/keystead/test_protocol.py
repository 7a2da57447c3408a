"""The bound on what a request says before its body: nobody has to be known to be here for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from keystead.protocol import HEAD_BYTES_MAX
from tests.support.installation import serving
from tests.support.raw_http import converse, read_answer

START = b"POST / HTTP/1.1\r\nHost: here\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b"a" * 8192


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers how much it was sent."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    content = b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})


@pytest_asyncio.fixture(scope="module")
async def address() -> AsyncIterator[tuple[str, int]]:
    async with serving(echo) as url:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        yield parts.hostname, parts.port


def headers() -> Iterator[bytes]:
    number = 0
    while True:
        yield b"".join(b"X-%d: y\r\n" % each for each in range(number, number + 500))
        number += 500


def endless() -> Iterator[bytes]:
    while True:
        yield PIECE


@pytest.mark.parametrize(
    ("start", "more"),
    [
        pytest.param(b"GET /", endless, id="target"),
        pytest.param(START + b"X: ", endless, id="header"),
        pytest.param(START, headers, id="headers"),
        pytest.param(CHUNKED + b"0\r\nX: ", endless, id="trailer"),
        pytest.param(CHUNKED + b"0\r\n", headers, id="trailers"),
        pytest.param(CHUNKED + b"2;", endless, id="chunk's extension"),
    ],
)
async def test_what_goes_on_for_ever_is_cut_off(address: tuple[str, int], start: bytes, more: Any) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(start)
    answer, sent = asyncio.create_task(read_answer(reader)), 0
    for piece in more():
        writer.write(piece)
        sent += len(piece)
        await asyncio.sleep(0)
        if answer.done() or sent > 64 * HEAD_BYTES_MAX:
            break
    async with asyncio.timeout(5):
        assert (await answer).status == 400
    writer.close()


@pytest.mark.parametrize("size", [0, 1, HEAD_BYTES_MAX, 3_000_000])
async def test_a_body_is_bounded_by_who_reads_it(address: tuple[str, int], size: int) -> None:
    length = b"Content-Length: %d\r\n\r\n" % size
    (answer,) = await converse(*address, START + length + b"b" * size)
    assert (answer.status, answer.body) == (200, b"%d" % size)


async def test_a_head_of_almost_the_bound_is_heard_and_one_above_it_is_not(address: tuple[str, int]) -> None:
    for size, status in ((HEAD_BYTES_MAX - 200, 200), (HEAD_BYTES_MAX + 1, 400)):
        answers = await converse(*address, START + b"X: " + b"y" * size + b"\r\nContent-Length: 0\r\n\r\n")
        assert [answer.status for answer in answers] == [status]


async def test_each_request_on_a_connection_has_the_bound_for_itself(address: tuple[str, int]) -> None:
    one = START + b"X: " + b"y" * (HEAD_BYTES_MAX // 2) + b"\r\nContent-Length: 2\r\n\r\n{}"
    assert [answer.status for answer in await converse(*address, one * 6)] == [200] * 6
