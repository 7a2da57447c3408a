"""Own pages (§1.5)."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from starlette.requests import Request

from shared.keyring import Keyring
from shared.pages import CursorUnknown, cut, link_to_next, make_cursor, make_place, read_cursor, read_place

KEYRING = Keyring(base64.b64encode(bytes(32)).decode())
CURSOR = make_cursor(KEYRING, "invitations", "2026-11-24T12:00:00+00:00", "r1")


def test_a_cursor_is_read_as_the_place_it_was_made_of() -> None:
    assert read_cursor(KEYRING, "invitations", CURSOR) == ("2026-11-24T12:00:00+00:00", "r1")


def test_a_cursor_tells_nothing() -> None:
    assert "2026" not in CURSOR
    assert make_cursor(KEYRING, "invitations", "2026-11-24T12:00:00+00:00", "r1") != CURSOR


def test_a_cursor_goes_into_a_url_as_it_is() -> None:
    assert set(CURSOR) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


@pytest.mark.parametrize("place", range(len(CURSOR)))
def test_a_cursor_with_any_character_changed_is_refused(place: int) -> None:
    changed = "B" if CURSOR[place] == "A" else "A"
    with pytest.raises(CursorUnknown):
        read_cursor(KEYRING, "invitations", CURSOR[:place] + changed + CURSOR[place + 1 :])


# By function: a cursor is drawn anew in each process, and the run's workers must agree on the names of tests.
@pytest.mark.parametrize(
    "spoilt",
    [
        lambda _: "",
        lambda _: "1.",
        lambda _: "1.AAAA",
        lambda _: "é",
        lambda _: "\x00",
        lambda cursor: cursor[:-1],
        lambda cursor: cursor + "A",
        lambda cursor: cursor + "=",
        lambda cursor: cursor * 2,
    ],
)
def test_what_is_no_cursor_is_refused_by_the_parameter(spoilt: Callable[[str], str]) -> None:
    cursor = spoilt(CURSOR)
    with pytest.raises(CursorUnknown) as refused:
        read_cursor(KEYRING, "invitations", cursor)
    assert (refused.value.status, refused.value.param) == (400, "after")


def test_another_lists_cursor_is_refused() -> None:
    with pytest.raises(CursorUnknown):
        read_cursor(KEYRING, "sessions", CURSOR)


def test_another_installations_cursor_is_refused() -> None:
    with pytest.raises(CursorUnknown):
        read_cursor(Keyring(base64.b64encode(bytes(range(32))).decode()), "invitations", CURSOR)


@pytest.mark.parametrize("rows", [[], [1], [1, 2]])
def test_the_last_page_has_no_cursor(rows: list[int]) -> None:
    assert cut(rows, 2, str) == (rows, None)


def test_a_row_too_many_is_left_out_and_the_cursor_is_the_last_shown_ones() -> None:
    assert cut([1, 2, 3], 2, str) == ([1, 2], "2")


def test_the_link_to_the_next_page_keeps_the_filters_and_replaces_the_cursor() -> None:
    request = Request(
        {
            "type": "http",
            "path": "/list",
            "query_string": b"user_id=a%26b&after=old&limit=2",
            "headers": [],
            "server": None,
        }
    )
    assert link_to_next(request, "new") == {"Link": '</list?user_id=a%26b&limit=2&after=new>; rel="next"'}
    assert link_to_next(request, None) == {}


def test_a_place_in_time_is_read_as_it_was_made_and_the_beginning_is_none() -> None:
    at = datetime(2026, 11, 25, 12, 0, 0, 1, UTC)
    assert read_place(KEYRING, "invitations", make_place(KEYRING, "invitations", at, "r1")) == (at, "r1")
    assert read_place(KEYRING, "invitations", None) is None
    with pytest.raises(CursorUnknown):
        read_place(KEYRING, "sessions", make_place(KEYRING, "invitations", at, "r1"))
