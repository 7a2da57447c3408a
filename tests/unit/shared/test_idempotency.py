"""When two requests are the same one, and what is kept of an answer (§1.5)."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Request
from starlette.responses import Response

from shared.answers import JsonAnswer
from shared.body import parse_json
from shared.idempotency import Asked, KeyMalformed, asked, canonical, packed, unpacked
from shared.keyring import Keyring, NotSealed
from shared.permissions import Role
from shared.principal import Principal

KEYRING = Keyring(base64.b64encode(b"the key of these tests, as long as it must").decode())
SESSION = Principal("ada", Role.INTERNAL_USER, "session", session_id="s1")


def a_request(*headers: str, path: str = "/key/generate", method: str = "POST", query: str = "") -> Request:
    return Request(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"idempotency-key", header.encode("latin-1")) for header in headers],
        }
    )


def ask(principal: Principal = SESSION, body: Any = None, keyring: Keyring = KEYRING, **request: str) -> Asked:
    return asked(keyring, principal, a_request("a-key", **request), body or {})


def test_the_same_request_is_found_again() -> None:
    assert ask() == ask()


@pytest.mark.parametrize(
    "other",
    [
        replace(SESSION, user_id="grace"),
        replace(SESSION, role=Role.PROXY_ADMIN),
        Principal("ada", Role.INTERNAL_USER, "key", key_id="k1"),
        Principal("ada", Role.INTERNAL_USER, "master_key"),
    ],
)
def test_another_caller_or_a_weaker_credential_is_another_request(other: Principal) -> None:
    assert ask(other).id != ask().id
    with pytest.raises(NotSealed):
        ask(other).open("answer", ask().seal("answer", b"sk-secret"))


def test_two_keys_of_a_user_are_two_callers() -> None:
    one, other = (Principal("ada", Role.INTERNAL_USER, "key", key_id=key_id) for key_id in ("k1", "k2"))
    assert ask(one).id != ask(other).id


def test_who_logs_in_anew_is_the_same_caller() -> None:
    assert ask(replace(SESSION, session_id="s2")).id == ask().id


def test_another_route_or_header_or_installation_is_another_request() -> None:
    others = [ask(path="/user/new"), ask(method="PUT"), ask(query="a=1"), ask(keyring=Keyring("A" * 43))]
    others.append(asked(KEYRING, SESSION, a_request("another-key"), {}))
    assert len({each.id for each in [ask(), *others]}) == 6
    assert len({each.sealing_key for each in [ask(), *others]}) == 6


def test_the_body_does_not_make_another_request_but_tells_of_it() -> None:
    assert ask(body={"a": 1}).id == ask().id
    assert ask(body={"a": 1}).body_hash != ask().body_hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1,"b":[true,null,"x"]}', b'{ "b" : [true, null, "x"],\n "a": 1 }'),
        (b'{"a":"\\u00e4"}', '{"a":"ä"}'.encode()),
        (b'{"a":{"c":1.50,"b":{}}}', b'{"a":{"b":{},"c":1.50}}'),
    ],
)
def test_spaces_and_the_order_of_members_make_no_other_body(one: bytes, other: bytes) -> None:
    assert canonical(parse_json(one)) == canonical(parse_json(other))


def test_every_other_difference_does() -> None:
    values = [b"1", b"1.0", b'"1"', b"true", b"null", b"[1]", b'["1"]', b"[]", b"{}", b'{"a":1}', b'[["a",1]]', b'""']
    bodies = [b'{"a":%b}' % value for value in values] + [b"{}", b'{"b":1}', b'{"a":[1,2]}', b'{"a":[2,1]}']
    assert len({canonical(parse_json(body)) for body in bodies}) == len(bodies)


@pytest.mark.parametrize("header", ["a", "~" * 255, "a b!", '{"x": 1}'])
def test_a_header_of_printable_ascii_is_taken(header: str) -> None:
    assert asked(KEYRING, SESSION, a_request(header), {}).id


@pytest.mark.parametrize("headers", [("",), ("a" * 256,), ("é",), ("a\tb",), ("a\x7f",), ("a\n",), ("a", "a")])
def test_any_other_is_refused(headers: tuple[str, ...]) -> None:
    with pytest.raises(KeyMalformed) as refused:
        asked(KEYRING, SESSION, a_request(*headers), {})
    assert (refused.value.status, refused.value.param) == (400, "Idempotency-Key")


def test_an_answer_is_kept_as_it_was() -> None:
    first = JsonAnswer({"key": "sk-ä", "spend": 0}, 201, {"Location": "/keystead/v1/things/1"})
    again = unpacked(packed(first))
    assert (again.status_code, again.body) == (201, first.body)
    assert again.headers["content-type"] == "application/json"
    assert again.headers["location"] == "/keystead/v1/things/1"
    assert again.headers["idempotent-replayed"] == "true"


def test_what_is_of_one_request_is_not_kept() -> None:
    first = Response(b"", 204, {"Set-Cookie": "token=secret", "x-request-id": "1", "x-litellm-call-id": "2"})
    assert {*unpacked(packed(first)).headers} == {"idempotent-replayed"}


def test_nothing_of_a_request_is_shown() -> None:
    assert repr(ask().sealing_key) not in repr(ask())
