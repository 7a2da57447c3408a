"""Bodies are read strictly, and every fault of a request is one of the contract's refusals (§1.3, §1.4)."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi import Query as InQuery
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from shared.answers import JsonAnswer, error_answer
from shared.body import DEPTH_MAX, LIMIT_BYTES, VALUES_MAX, StrictRoute, parse_json, read_json, refused_from
from shared.errors import Refused
from shared.money import Money, UsdNumber
from shared.values import Body, Id, Name, Query

JSON_TYPE = {"content-type": "application/json"}


class Member(Body):
    role: Name


class NewKey(Body):
    later: ClassVar[frozenset[str]] = frozenset({"soft_budget"})

    key_alias: Name
    max_budget: Money | None = None
    member: Member | None = None


class ListKeys(Query):
    later: ClassVar[frozenset[str]] = frozenset({"include_team_keys"})

    page: Annotated[int, Field(ge=1)] = 1
    user_id: Id | None = None
    models: Annotated[list[str], Field(default_factory=list)]


class OpenRoute(StrictRoute):
    """As the routes under ``/v1``."""

    open_query: ClassVar[bool] = True


class SmallRoute(StrictRoute):
    """A route that takes little."""

    limit_bytes: ClassVar[int] = 64


def searched(search: str | None = None) -> str | None:
    return search


strict = APIRouter(route_class=StrictRoute)
open_ = APIRouter(route_class=OpenRoute)
small = APIRouter(route_class=SmallRoute)


@strict.post("/key/generate")
async def generate_key(body: NewKey) -> Response:
    budget = None if body.max_budget is None else UsdNumber(body.max_budget)
    return JsonAnswer({"key_alias": body.key_alias, "max_budget": budget, "set": sorted(body.model_fields_set)})


@strict.post("/key/regenerate")
async def regenerate_key(request: Request, body: NewKey | None = None) -> Response:
    return JsonAnswer({"key_alias": body.key_alias if body else None, "raw": (await request.body()).decode()})


@strict.post("/raw")
async def take_anything(body: dict[str, Any]) -> Response:
    return JsonAnswer(body)


@strict.post("/logout")
async def log_out() -> Response:
    return JsonAnswer("out")


@strict.get("/key/list")
async def list_keys(query: Annotated[ListKeys, InQuery()]) -> Response:
    return JsonAnswer(query)


@strict.get("/search/{scope}")
async def search(
    scope: str, word: Annotated[str | None, Depends(searched)], tags: Annotated[list[str] | None, InQuery()] = None
) -> Response:
    return JsonAnswer({"scope": scope, "word": word, "tags": tags})


@open_.get("/v1/models")
async def list_models() -> Response:
    return JsonAnswer([])


@small.post("/small")
async def take_little(body: dict[str, Any]) -> Response:
    return JsonAnswer(body)


@small.post("/direct")
async def read_directly(request: Request) -> Response:
    return JsonAnswer(await read_json(request, 8))


def create_app() -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    for router in (strict, open_, small):
        app.include_router(router)

    @app.exception_handler(Refused)
    async def on_refused(_: Request, refused: Refused) -> Response:
        return error_answer(refused, own_route=False)

    return app


APP = create_app()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=APP)
    async with httpx2.AsyncClient(transport=transport, base_url="http://keystead") as client:
        yield client


def refusal(answer: httpx2.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert error["code"] == str(answer.status_code)
    return answer.status_code, error["reason"], error["param"]


def refused_json(raw: bytes) -> Refused:
    with pytest.raises(Refused) as refused:
        parse_json(raw)
    return refused.value


def deep(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * levels + closing * levels).encode()


def test_integers_are_integers_and_other_numbers_decimals() -> None:
    assert parse_json(b'{"a":1,"b":-0,"c":1.0,"d":1e2,"e":0.1,"f":1e-400}') == {
        "a": 1,
        "b": 0,
        "c": Decimal("1.0"),
        "d": Decimal("1E+2"),
        "e": Decimal("0.1"),
        "f": Decimal("1E-400"),
    }
    assert type(parse_json(b'{"a":1}')["a"]) is int
    assert type(parse_json(b'{"a":1.0}')["a"]) is Decimal


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"{]",
        b"null",
        b"[]",
        b'"a"',
        b"1",
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a" 1}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":1}{}',
        b'{"a":"',
        b'{"a":"\\',
        b'{"a":"\\x"}',
        b'{"a":"\t"}',
        b'{"a":"\x00"}',
        b'{"a":tru}',
        b"{a:1}",
        b'{"a":1 /* one */}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\x80"}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"c":2,"b":3}}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":"\\ud800"}',
        b'{"a":["\\uDFFF"]}',
        b'{"\\udc00":1}',
        b'{"a":"\\ude00\\ud83d"}',
        pytest.param(b'{"a":' + deep(DEPTH_MAX) + b"}", id="33 deep"),
        pytest.param(deep(100_000), id="100,000 deep"),
        pytest.param(deep(100_000, '{"a":', "}"), id="100,000 objects deep"),
        pytest.param(b"[" * 1_000_000, id="1,000,000 open"),
        pytest.param(b'{"a":' * 200_000, id="200,000 objects open"),
        pytest.param(b'"' + b'\\"' * 500_000, id="no end of a string"),
        pytest.param(b"\\" * 1_000_000, id="backslashes"),
    ],
)
def test_what_is_not_strict_json_is_malformed(raw: bytes) -> None:
    assert refused_json(raw).code == "json_malformed"


def test_the_fault_in_a_malformed_body_is_named() -> None:
    assert "(line 2, column 5)" in refused_json(b'{"a":1,\n"b":x}').message
    assert "NaN" in refused_json(b'{"a":NaN}').message
    assert "'b' twice" in refused_json(b'{"a":{"b":1,"c":2,"b":3}}').message
    assert refused_json(b'{"a":["\\ud800"]}').param == "a.0"


@pytest.mark.parametrize(
    ("number", "param"),
    [
        ("1e400", "a.0"),
        ("-1e309", "a.0"),
        ("1e0000400", "a.0"),
        ("1E+999999999", "a.0"),
        ("1e9999999999999999999999", "a.0"),
        ("1e-9999999999999999999999", "a.0"),
        ("9" * 309, "a.0"),
        ("-" + "9" * 309, "a.0"),
        pytest.param("9" * 500_000, "a.0", id="half a million digits"),
        ("1" + "0" * 250 + "e99", "a.0"),
        ("1" + "0" * 309 + ".5", "a.0"),
    ],
)
def test_a_number_beyond_a_double_is_out_of_range(number: str, param: str) -> None:
    refused = refused_json(b'{"a":[' + number.encode() + b"]}")
    assert (refused.code, refused.param) == ("out_of_range", param)


@pytest.mark.parametrize("number", ["1.7976931348623157e308", "1" + "0" * 308, "-1e308", "0." + "0" * 400 + "1"])
def test_a_number_that_a_double_holds_is_read(number: str) -> None:
    assert parse_json(b'{"a":' + number.encode() + b"}")["a"] == Decimal(number)


def test_surrogate_pairs_are_characters_and_nul_is_text() -> None:
    assert parse_json(b'{"a":"\\ud83d\\uDE00","b":"\\u0000"}') == {"a": "😀", "b": "\u0000"}


def test_brackets_in_text_are_not_depth() -> None:
    text = "[" * 100 + '\\"{{\\\\'
    assert parse_json(b'{"a":"' + text.encode() + b'"}') == {"a": "[" * 100 + '"{{\\'}


def test_32_levels_are_read() -> None:
    assert parse_json(b'{"a":' + deep(DEPTH_MAX - 1) + b"}")
    assert parse_json(b" " + deep(DEPTH_MAX, '{"a":', "}").replace(b":}", b":1}"))


@pytest.mark.parametrize("value", ["1", "[]", "{}", '""', "[[[]]]", '{"b":1}', '{"b":""}'])
def test_a_body_of_too_many_values_is_too_large_whatever_they_are(value: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_json(('{"a":[' + ",".join([value] * (VALUES_MAX + 2)) + "]}").encode())
    assert refused.value.code == "body_too_large"


def test_a_body_of_nothing_but_brackets_is_refused_by_their_number() -> None:
    for brackets in ("[" * 3_000_000, "]" * 3_000_000, "[" * 1_500_000 + "]" * 1_500_000):
        with pytest.raises(Refused) as refused:
            parse_json(brackets.encode())
        assert refused.value.code == "body_too_large"


def test_as_many_values_as_are_allowed_are_read() -> None:
    assert len(parse_json(('{"a":[' + ",".join(["1"] * VALUES_MAX) + "]}").encode())["a"]) == VALUES_MAX


def test_text_may_hold_whatever_would_be_too_many_outside_of_it() -> None:
    text = '[{,\\"' * VALUES_MAX
    assert len(parse_json(b'{"a":"' + text.encode() + b'"}')["a"]) == 4 * VALUES_MAX


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(parse_json(raw), dict)
    except Refused as refused:
        assert refused.status == 400


@given(st.text(alphabet='{}[]":,\\ue019dD8.-+ \n', max_size=60))
def test_anything_like_json_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_json(b'{"a":' + text.encode() + b"}"), dict)
    except Refused as refused:
        assert refused.status == 400


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
            max_leaves=10,
        ),
    )
)
def test_what_another_writes_is_read_as_it_was(data: dict[str, Any]) -> None:
    assert parse_json(json.dumps(data).encode()) == data
    assert parse_json(json.dumps(data, ensure_ascii=False).encode()) == data


async def test_a_body_is_read_into_its_model(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/key/generate", content=b'{"key_alias":"a","max_budget":0.00005}', headers=JSON_TYPE)
    assert answer.status_code == 200
    assert answer.text == '{"key_alias":"a","max_budget":0.00005,"set":["key_alias","max_budget"]}'


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; charset=utf8",
        "application/json;",
    ],
)
async def test_json_in_utf_8_is_the_media_type(client: httpx2.AsyncClient, media_type: str) -> None:
    headers = {"content-type": media_type}
    assert (await client.post("/key/generate", content=b'{"key_alias":"a"}', headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/jsonl"},
        {"content-type": "application/problem+json"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json, application/json"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_another_media_type_is_refused(client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.post("/key/generate", content=b'{"key_alias":"a"}', headers=headers)
    assert refusal(answer) == (415, "media_type", None)


async def test_a_body_of_exactly_the_limit_is_read(client: httpx2.AsyncClient) -> None:
    body = b'{"a":"' + b"x" * (64 - 8) + b'"}'
    assert len(body) == 64
    assert (await client.post("/small", content=body, headers=JSON_TYPE)).status_code == 200


async def test_a_body_of_a_byte_more_is_too_large_by_its_length(client: httpx2.AsyncClient) -> None:
    body = b'{"a":"' + b"x" * (64 - 7) + b'"}'
    assert refusal(await client.post("/small", content=body, headers=JSON_TYPE)) == (413, "body_too_large", None)


async def test_a_body_without_a_length_is_too_large_once_it_is(client: httpx2.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 16

    messages = endless()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(messages), "more_body": True}

    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    with pytest.raises(Refused, match="64 bytes") as refused:
        await read_json(request, 64)
    assert refused.value.code == "body_too_large"
    assert read == 5


@pytest.mark.parametrize("length", ["1048577", "9" * 5_000])
async def test_a_length_over_the_limit_is_refused_before_the_body_is_read(length: str) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("nobody should read this")

    headers = [(b"content-type", b"text/plain"), (b"content-length", length.encode())]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    with pytest.raises(Refused) as refused:
        await read_json(request, LIMIT_BYTES)
    assert refused.value.code == "body_too_large"


async def test_a_client_that_goes_away_is_no_fault_of_ours() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    request = Request(
        {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}, receive
    )
    with pytest.raises(Refused) as refused:
        await read_json(request, LIMIT_BYTES)
    assert refused.value.status == 400


async def test_a_route_may_read_its_body_itself(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/direct", content=b'{"a":1}', headers=JSON_TYPE)).json() == {"a": 1}
    assert refusal(await client.post("/direct", content=b'{"a":100}', headers=JSON_TYPE))[0] == 413


async def test_numbers_pass_through_a_route_exactly(client: httpx2.AsyncClient) -> None:
    body = b'{"a":0.1000,"b":[123456789012345678901234567890],"c":1E+2}'
    assert (await client.post("/raw", content=body, headers=JSON_TYPE)).content == body


@pytest.mark.parametrize(
    ("body", "status", "reason", "param"),
    [
        (b"", 400, "json_malformed", None),
        (b"[]", 400, "json_malformed", None),
        (b"{}", 400, "field_missing", "key_alias"),
        (b'{"key_alias":null}', 400, "wrong_type", "key_alias"),
        (b'{"key_alias":1}', 400, "wrong_type", "key_alias"),
        (b'{"key_alias":""}', 400, "out_of_range", "key_alias"),
        (b'{"key_alias":"\\u0000"}', 400, "out_of_range", "key_alias"),
        (b'{"key_alias":"\\ud800"}', 400, "json_malformed", "key_alias"),
        (b'{"key_alias":"a","max_budget":1e400}', 400, "out_of_range", "max_budget"),
        (b'{"key_alias":"a","max_budget":true}', 400, "wrong_type", "max_budget"),
        (b'{"key_alias":"a","max_budgt":1}', 400, "field_unknown", "max_budgt"),
        (b'{"key_alias":"a","guardrails":["x"]}', 400, "field_unsupported", "guardrails"),
        (b'{"key_alias":"a","soft_budget":1}', 400, "field_unsupported", "soft_budget"),
        (b'{"key_alias":"a","member":{}}', 400, "field_missing", "member.role"),
        (b'{"key_alias":"a","member":{"role":""}}', 400, "out_of_range", "member.role"),
        (b'{"key_alias":"a","member":{"rule":""}}', 400, "field_unknown", "member.rule"),
    ],
)
async def test_a_bad_body_is_refused(
    client: httpx2.AsyncClient, body: bytes, status: int, reason: str, param: str | None
) -> None:
    answer = await client.post("/key/generate", content=body, headers=JSON_TYPE)
    assert refusal(answer) == (status, reason, param)


async def test_fields_that_say_nothing_are_taken(client: httpx2.AsyncClient) -> None:
    body = b'{"key_alias":"a","max_budget":"","guardrails":[],"soft_budget":null,"config":{},"auto_rotate":false}'
    answer = await client.post("/key/generate", content=body, headers=JSON_TYPE)
    assert answer.json() == {"key_alias": "a", "max_budget": None, "set": ["key_alias", "max_budget"]}


async def test_a_body_may_be_left_out_where_the_route_says_so(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/key/regenerate")).json() == {"key_alias": None, "raw": ""}
    answer = await client.post("/key/regenerate", content=b'{"key_alias":"a"}', headers=JSON_TYPE)
    assert answer.json() == {"key_alias": "a", "raw": '{"key_alias":"a"}'}
    assert refusal(await client.post("/key/regenerate", content=b"{", headers=JSON_TYPE))[1] == "json_malformed"


async def test_a_route_without_a_body_does_not_look_at_one(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/logout", content=b"\xff")).status_code == 200


@pytest.mark.parametrize(
    ("path", "reason", "param"),
    [
        ("/key/list?page=0", "out_of_range", "page"),
        ("/key/list?page=x", "wrong_type", "page"),
        ("/key/list?page=1&page=2", "wrong_type", "page"),
        ("/key/list?page=", "wrong_type", "page"),
        ("/key/list?pag=1", "field_unknown", "pag"),
        ("/key/list?user_id=a%00", "out_of_range", "user_id"),
        ("/key/list?models=a%00&models=b", "out_of_range", "models.0"),
        ("/key/list?organization_id=o", "field_unsupported", "organization_id"),
        ("/key/list?include_team_keys=true", "field_unsupported", "include_team_keys"),
        ("/search/a?serch=b", "field_unknown", "serch"),
        ("/search/a?search=b&search=c", "wrong_type", "search"),
        ("/search/a?search=%00", "out_of_range", "search"),
        ("/search/a%00b", "out_of_range", "scope"),
        ("/search/a?organization_id=o", "field_unsupported", "organization_id"),
        ("/search/a?%00=1", "field_unknown", "\ufffd"),
    ],
)
async def test_a_bad_query_or_path_is_refused(client: httpx2.AsyncClient, path: str, reason: str, param: str) -> None:
    assert refusal(await client.get(path)) == (400, reason, param)


async def test_query_parameters_are_read_into_their_model(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/key/list?page=2&models=a&models=b&organization_id=&include_team_keys=false")
    assert answer.json() == {"page": 2, "user_id": None, "models": ["a", "b"]}


async def test_lists_and_dependencies_declare_query_parameters_too(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/search/user:a?search=x&tags=1&tags=2&organization_id=")
    assert answer.json()["tags"] == ["1", "2"]
    assert answer.json()["word"] == "x"


async def test_the_nearest_parameter_is_named(client: httpx2.AsyncClient) -> None:
    error = (await client.get("/key/list?usr_id=a")).json()["error"]
    assert error["message"] == "usr_id is not known here (did you mean user_id?)"


async def test_an_open_query_takes_unknown_parameters(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/models?return_wildcard_routes=x&a=1&a=2")).status_code == 200


def test_the_openapi_description_knows_bodies_and_parameters() -> None:
    paths = APP.openapi()["paths"]
    body = paths["/key/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("NewKey")
    assert {p["name"] for p in paths["/key/list"]["get"]["parameters"]} == {"page", "user_id", "models"}


@pytest.mark.parametrize(
    ("fault", "reason", "message"),
    [
        ({"type": "missing", "loc": ("a",), "msg": "Field required"}, "field_missing", "a is required"),
        ({"type": "extra_forbidden", "loc": ("a", "b"), "msg": "…"}, "field_unknown", "a.b is not known here"),
        ({"type": "json_malformed", "loc": (), "msg": "is odd"}, "json_malformed", "the body is odd"),
        ({"type": "model_type", "loc": ("a",), "msg": "… of Secret"}, "wrong_type", "a should be an object"),
        (
            {"type": "greater_than_equal", "loc": ("a", 0), "msg": "Input should be greater than or equal to 1"},
            "out_of_range",
            "a.0 should be greater than or equal to 1",
        ),
        ({"type": "string_type", "loc": ("a", "str"), "msg": "Input should be a valid string"}, "wrong_type", None),
        ({"type": "value_error", "loc": ("a",), "msg": "Value error, is odd"}, "out_of_range", None),
        (
            {"type": "field_unknown", "loc": ("a", 1), "msg": "is odd", "ctx": {"field": "b"}},
            "field_unknown",
            "a.1.b is odd",
        ),
    ],
)
def test_pydantics_faults_are_refusals(fault: dict[str, Any], reason: str, message: str | None) -> None:
    refused = refused_from([fault])
    assert refused.code == reason
    assert message is None or refused.message == message


def test_the_members_of_a_union_are_no_fields() -> None:
    class Team(BaseModel):
        team_id: Id

    class Asked(BaseModel):
        teams: list[Id | Team]

    with pytest.raises(ValidationError) as invalid:
        Asked.model_validate({"teams": ["ok", {"team_id": 1}]})
    assert refused_from(invalid.value).param == "teams.1"


def test_the_value_is_never_in_the_message() -> None:
    with pytest.raises(ValidationError) as invalid:
        NewKey.model_validate({"key_alias": ["sk-secret"]})
    assert "secret" not in refused_from(invalid.value).message


hostile_values = st.recursive(
    st.sampled_from(["null", "true", "false", "0", "-1", "1e400", "NaN", "1e-5", '""', '"a"', '"\\u0000"', '"\\ud800"'])
    | st.integers().map(str)
    | st.floats().map(repr)
    | st.text().map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")
        | st.dictionaries(st.text().map(json.dumps), inner, max_size=4).map(
            lambda items: "{" + ",".join(f"{name}:{value}" for name, value in items.items()) + "}"
        )
    ),
    max_leaves=12,
)
names = st.sampled_from([*NewKey.model_fields, "guardrails", "soft_budget", "x"])


@given(st.dictionaries(names, hostile_values, max_size=4))
async def test_no_body_gets_an_answer_of_500(fields: dict[str, str]) -> None:
    body = "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"
    transport = httpx2.ASGITransport(app=APP)
    async with httpx2.AsyncClient(transport=transport, base_url="http://keystead") as client:
        answer = await client.post("/key/generate", content=body.encode("utf-8", "surrogatepass"), headers=JSON_TYPE)
    assert answer.status_code in (200, 400)


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3), st.text(min_size=1, max_size=10))
async def test_no_query_and_no_path_gets_an_answer_of_500(parameters: dict[str, str], scope: str) -> None:
    def safe(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    query = {safe(name): safe(value) for name, value in parameters.items()}
    transport = httpx2.ASGITransport(app=APP)
    async with httpx2.AsyncClient(transport=transport, base_url="http://keystead") as client:
        listed = await client.get("/key/list", params=query)
        found = await client.get(f"/search/{quote(safe(scope), safe='')}", params=query)
    assert listed.status_code in (200, 400)
    assert found.status_code in (200, 400, 404)
