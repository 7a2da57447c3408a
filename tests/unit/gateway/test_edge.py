"""Credentials: where one is looked for, in which order, and what a cookie alone may not do (§1.2)."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import Request

from services.gateway.edge import (
    Credential,
    CredentialsMissing,
    KeyBlocked,
    KeyExpired,
    KeyUnknown,
    check_usable,
    find_credential,
)
from services.keys.requests import FoundKey
from shared.same_origin import CrossSite, check_same_origin

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BASE_URL = "https://keystead.test/"


def request(method: str = "POST", **headers: str) -> Request:
    """A request with these headers; ``_`` stands for ``-``."""
    raw = [(name.replace("_", "-").lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw})


# Where a credential is

ALL = {
    "x_our_key": "sk-named",
    "authorization": "Bearer sk-authorization",
    "x_api_key": "sk-x-api-key",
    "api_key": "sk-api-key",
    "cookie": "token=jwt",
}


def test_the_first_place_that_holds_one_is_the_one() -> None:
    left, found = dict(ALL), []
    while left:
        found.append(find_credential(request(**left), "X-Our-Key").text)
        del left[next(iter(left))]
    assert found == ["sk-named", "sk-authorization", "sk-x-api-key", "sk-api-key", "jwt"]


def test_a_header_that_no_setting_names_is_no_credential() -> None:
    assert find_credential(request(**ALL), None).text == "sk-authorization"


@pytest.mark.parametrize("value", ["Bearer sk-1", "bearer sk-1", "BEARER   sk-1", "sk-1", "  sk-1  "])
@pytest.mark.parametrize("name", ["authorization", "x_api_key", "api_key", "x_our_key"])
def test_the_scheme_may_be_in_any_case_or_left_out(name: str, value: str) -> None:
    assert find_credential(request(**{name: value}), "x-our-key") == Credential("sk-1", "header")


def test_a_bad_credential_is_not_skipped_for_a_later_one() -> None:
    assert find_credential(request(authorization="Basic abc", x_api_key="sk-1"), None).text == "Basic abc"


def test_an_empty_header_is_none() -> None:
    assert find_credential(request(authorization="  ", x_api_key="sk-1"), None).text == "sk-1"


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"cookie": "other=1"}, {"cookie": "token="}])
def test_without_a_credential_there_is_nobody(headers: dict[str, str]) -> None:
    with pytest.raises(CredentialsMissing) as refused:
        find_credential(request(**headers), None)
    assert (refused.value.status, refused.value.code) == (401, "credentials_missing")


def test_only_a_cookie_is_a_cookie() -> None:
    assert find_credential(request(cookie="a=b; token=eyJ.a.b"), None) == Credential("eyJ.a.b", "cookie")


# What a cookie alone may not do


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_by_cookie_works_from_anywhere(method: str) -> None:
    check_same_origin(request(method, sec_fetch_site="cross-site", origin="https://evil.test"), BASE_URL)


@pytest.mark.parametrize(
    "headers",
    [{"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}, {"origin": "https://keystead.test"}],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_change_by_cookie_comes_from_the_site_itself(method: str, headers: dict[str, str]) -> None:
    check_same_origin(request(method, **headers), BASE_URL)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "origin": "https://keystead.test"},
        {"origin": "https://evil.test"},
        {"origin": "https://keystead.test.evil.test"},
        {"origin": "http://keystead.test"},
        {"origin": "https://keystead.test:8443"},
        {"origin": "null"},
        {"referer": "https://keystead.test/"},
    ],
)
def test_a_change_by_cookie_from_elsewhere_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(CrossSite) as refused:
        check_same_origin(request("POST", **headers), BASE_URL)
    assert (refused.value.status, refused.value.code) == (403, "csrf")


# Whether a key can be used (§5.3, 1 and 2)


def key(**fields: object) -> FoundKey:
    return FoundKey.model_validate({"position": 1, "exists": True, **fields})


def test_a_key_that_is_there_can_be_used() -> None:
    check_usable(key(), NOON)
    check_usable(key(expires_at=NOON + timedelta(microseconds=1)), NOON)


def test_a_key_that_is_not_there_is_unknown() -> None:
    with pytest.raises(KeyUnknown) as refused:
        check_usable(FoundKey(position=1, exists=False), NOON)
    assert (refused.value.status, refused.value.type, refused.value.param) == (401, "token_not_found_in_db", "key")


def test_a_blocked_key_is_refused_before_it_is_looked_at_whether_it_expired() -> None:
    with pytest.raises(KeyBlocked) as refused:
        check_usable(key(blocked=True, expires_at=NOON), NOON)
    assert (refused.value.status, refused.value.type) == (401, "auth_error")


def test_a_key_expires_to_the_second() -> None:
    with pytest.raises(KeyExpired) as refused:
        check_usable(key(expires_at=NOON), NOON)
    assert (refused.value.status, refused.value.type) == (401, "expired_key")
    assert "2026-11-24T12:00:00Z" in refused.value.message
