"""What is no JSON object, of another media type, or too large, at every route with a body (contract §1.3, §1.4)."""

import io
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bodies_world import (
    MIB,
    MODEL_CALLS,
    MODEL_CALLS_MIB,
    RESEND,
    WITH_BODY,
    WITHOUT_BODY,
    World,
    bodies_world,
)
from tests.support.refusals import send_raw
from tests.support.routes import routes_of


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with bodies_world() as made:
        yield made


async def test_every_route_that_takes_a_body_is_walked(world: World) -> None:
    posts = {served.name.removeprefix("POST ") for served in routes_of(world.it) if served.method == "POST"}
    assert posts == {*WITH_BODY, *MODEL_CALLS, *WITHOUT_BODY}


# What is no JSON object (§1.3) ...
MALFORMED: Mapping[str, bytes] = {
    "nothing": b"",
    "a blank": b" ",
    "cut": b'{"user_id": "x"',
    "a list": b"[]",
    "a text": b'"user_id"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "two objects": b"{}{}",
    "a comma too many": b'{"user_id": "x",}',
    "single quotes": b"{'user_id': 'x'}",
    "a comment": b'{"user_id": "x"} // why',
    "a form": b"user_id=x",
    "NaN": b'{"max_budget": NaN}',
    "Infinity": b'{"max_budget": Infinity}',
    "minus Infinity": b'{"metadata": {"a": [-Infinity]}}',
    "a leading zero": b'{"max_budget": 01}',
    "a name twice": b'{"user_id": "a", "user_id": "b"}',
    "a name twice, once escaped": b'{"user_id": "a", "user\\u005fid": "b"}',
    "a name twice inside": b'{"metadata": {"a": 1, "a": 1}}',
    "33 lists deep": b'{"metadata": ' + b"[" * 32 + b"]" * 32 + b"}",
    "33 objects deep": b'{"a":' * 33 + b"1" + b"}" * 33,
    "100,000 deep": b'{"metadata": ' + b"[" * 100_000 + b"}",
    "Latin-1": b'{"user_alias": "\xe9"}',
    "UTF-16": '{"user_id": "x"}'.encode("utf-16"),
    "with a byte order mark": b'\xef\xbb\xbf{"user_id": "x"}',
    "a surrogate in UTF-8": b'{"user_alias": "\xed\xa0\x80"}',
    "half a surrogate pair": b'{"user_alias": "\\ud800"}',
    "the other half": b'{"user_alias": "x\\udfff"}',
    "half a pair in a name": b'{"\\udc00": 1}',
    "half a pair inside": b'{"metadata": {"a": ["\\ud83d"]}}',
    "a line break in a text": b'{"user_alias": "a\nb"}',
    "an unknown escape": b'{"user_alias": "\\x41"}',
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("route", [*WITH_BODY, *MODEL_CALLS])
async def test_what_is_no_json_object_is_malformed(world: World, route: str, name: str) -> None:
    if route == RESEND and name == "nothing":
        return  # needs no body
    before = await world.positions()
    refusal = await world.refused_raw(route, MALFORMED[name])
    assert (refusal.status, refusal.reason) == (400, "json_malformed"), refusal
    assert await world.positions() == before


NUMBERS = ["1e400", "-1e400", "1" * 400, "1e99999999999999999999", "0.2e309"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("route", [*WITH_BODY, *MODEL_CALLS])
async def test_a_number_that_no_double_holds_is_out_of_range(world: World, route: str, number: str) -> None:
    body = json.dumps({**world.body(route), "max_budget": "X"}).replace('"X"', number)
    refusal = await world.refused_raw(route, body.encode())
    assert (refusal.status, refusal.reason, refusal.param) == (400, "out_of_range", "max_budget"), refusal


@pytest.mark.parametrize("route", WITH_BODY)
async def test_a_text_with_a_nul_is_out_of_range(world: World, route: str) -> None:
    for name, value in world.body(route).items():
        if isinstance(value, str):
            refusal = await world.refused(route, {**world.body(route), name: f"{value}\x00"})
            assert (refusal.status, refusal.reason, refusal.param) == (400, "out_of_range", name), refusal
    refusal = await world.refused(route, {**world.body(route), "\x00": 1})
    assert refusal.reason in ("field_unknown", "out_of_range"), refusal


MEDIA_TYPES = {
    "none": {"Content-Type": "application/octet-stream"},
    "text": {"Content-Type": "text/plain"},
    "a form": {"Content-Type": "application/x-www-form-urlencoded"},
    "parts": {"Content-Type": "multipart/form-data; boundary=x"},
    "Latin-1": {"Content-Type": "application/json; charset=iso-8859-1"},
    "another JSON": {"Content-Type": "application/json-patch+json"},
    "packed": {"Content-Encoding": "gzip"},
}


@pytest.mark.parametrize("name", MEDIA_TYPES)
@pytest.mark.parametrize("route", [*WITH_BODY, *MODEL_CALLS])
async def test_another_media_type_is_refused(world: World, route: str, name: str) -> None:
    before = await world.positions()
    refusal = await world.refused_raw(route, json.dumps(world.body(route)).encode(), **MEDIA_TYPES[name])
    assert (refusal.status, refusal.reason) == (415, "media_type"), refusal
    assert "application/json" in refusal.message or "identity" in refusal.message
    assert await world.positions() == before


async def test_the_media_type_is_read_as_http_has_it(world: World) -> None:
    for written in ("application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"'):
        data = json.dumps({"auto_create_key": False}).encode()
        status, answer, _ = await send_raw(world.it, "/user/new", data, headers={"Content-Type": written})
        assert status == 200, answer


def padded(body: Mapping[str, Any], size: int) -> bytes:
    data = json.dumps(body).encode()
    return data + b" " * (size - len(data))


async def in_chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
@pytest.mark.parametrize("route", [*WITH_BODY, *MODEL_CALLS])
async def test_a_body_over_the_limit_is_too_large(world: World, route: str, chunked: bool) -> None:
    limit = MODEL_CALLS_MIB * MIB if route in MODEL_CALLS else MIB
    before = await world.positions()
    data = padded(world.body(route), limit + 1)
    refusal = await world.refused_raw(route, in_chunks(data) if chunked else io.BytesIO(data))
    assert (refusal.status, refusal.reason) == (413, "body_too_large"), refusal
    assert str(limit) in refusal.message
    assert await world.positions() == before


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
@pytest.mark.parametrize("route", ["/user/new", "/v1/chat/completions"])
async def test_a_body_at_the_limit_is_taken(world: World, route: str, chunked: bool) -> None:
    data = padded(world.body(route), MODEL_CALLS_MIB * MIB if route in MODEL_CALLS else MIB)
    status, answer, _ = await send_raw(world.it, route, in_chunks(data) if chunked else io.BytesIO(data))
    assert status == 200, answer


async def test_an_announced_length_is_refused_before_the_body_comes(world: World) -> None:
    refusal = await world.refused_raw(
        "/user/new", in_chunks(b" " * 70_000), **{"Content-Length": str(MIB + 1), "Connection": "close"}
    )
    assert (refusal.status, refusal.reason) == (413, "body_too_large")
