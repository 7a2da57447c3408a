"""Who a request really comes from: whom a proxy names is believed only of proxies that are trusted (§4.3, §5.6)."""

import base64
import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import Request

from shared.keyring import Keyring
from shared.session_token import sign_session
from shared.visitor import Visitor, read_visitor, sign_visitor, visitor_of

KEYRING = Keyring(base64.b64encode(bytes(32)).decode())
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PROXY, FAR_PROXY, PERSON = "10.0.0.1", "10.0.0.2", "203.0.113.7"
TRUSTED = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


def request(peer: str | None, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 4711) if peer else None})


def seen(peer: str | None, *forwarded: str) -> str | None:
    return visitor_of(request(peer, *forwarded), TRUSTED).address


def test_without_a_trusted_proxy_the_peer_is_the_visitor_whatever_it_says() -> None:
    assert seen(PERSON) == PERSON
    assert seen(PERSON, "198.51.100.1") == PERSON
    assert visitor_of(request(PROXY, PERSON)).address == PROXY, "nobody is trusted unless it is said"


def test_a_trusted_proxy_is_believed() -> None:
    assert seen(PROXY, PERSON) == PERSON
    assert seen(PROXY, "2001:db8::1") == "2001:db8::1"
    assert seen("fd00::1", PERSON) == PERSON


def test_what_the_visitor_wrote_before_the_proxies_is_not() -> None:
    assert seen(PROXY, f"127.0.0.1, {PERSON}") == PERSON
    assert seen(PROXY, f"198.51.100.1, {PERSON}, {FAR_PROXY}") == PERSON
    assert seen(PROXY, "198.51.100.1", f"{PERSON}, {FAR_PROXY}") == PERSON, "two headers are one list"


@pytest.mark.parametrize("nonsense", ["", "unknown", "a, b", "10.0.0.1.1", "[", "203.0.113.7:80, x"])
def test_where_a_proxy_says_nothing_sensible_it_is_the_visitor_itself(nonsense: str) -> None:
    assert seen(PROXY, nonsense) == PROXY


def test_an_address_of_version_4_in_version_6_is_that_of_version_4() -> None:
    assert seen(f"::ffff:{PERSON}") == PERSON
    assert seen(f"::ffff:{PROXY}", f"::ffff:{PERSON}") == PERSON


def test_only_this_machine_itself_is_exempt_and_no_proxy_on_it() -> None:
    assert visitor_of(request("127.0.0.1")).exempt
    assert visitor_of(request("::1")).exempt
    assert visitor_of(request(None)) == Visitor(None, exempt=True)
    for peer in ("127.0.0.1", "::1", None):
        assert not visitor_of(request(peer, PERSON)).exempt
    assert not visitor_of(request(PERSON)).exempt
    assert not visitor_of(request(PROXY, "127.0.0.1"), TRUSTED).exempt


@pytest.mark.parametrize("visitor", [Visitor(PERSON, exempt=False), Visitor(None, exempt=True)])
def test_whom_the_portal_calls_for_is_read_as_it_was_signed(visitor: Visitor) -> None:
    token = sign_visitor(KEYRING, visitor, NOW)
    assert read_visitor(KEYRING, token, NOW) == visitor
    assert read_visitor(KEYRING, token, NOW + timedelta(seconds=59)) == visitor
    assert read_visitor(KEYRING, token, NOW + timedelta(seconds=61)) is None


def test_what_the_portal_did_not_sign_says_nothing() -> None:
    others = Keyring(base64.b64encode(bytes(range(32))).decode())
    forged = sign_visitor(others, Visitor("127.0.0.1", exempt=True), NOW)
    session = sign_session(KEYRING, {"address": "127.0.0.1", "exempt": True, "exp": 9_999_999_999})
    for token in (forged, session, "", "a.b.c", "127.0.0.1", forged[:-4]):
        assert read_visitor(KEYRING, token, NOW) is None
