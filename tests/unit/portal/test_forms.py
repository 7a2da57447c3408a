"""What a page's form may hold, and what is none of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.portal.forms import FIELDS_MAX, parse_form
from services.portal.trouble import Trouble
from tests.support.hostile import hostile

TEXTS, LISTS = ("name", "password"), ("models",)


def test_a_form_is_its_texts_and_its_lists() -> None:
    form = parse_form(b"name=Ada+%C3%B6&models=a&models=b%26c&password=", TEXTS, LISTS)
    assert form.text("name") == "Ada \u00f6" and form.text("password") == ""
    assert list(form.items("models")) == ["a", "b&c"]


def test_what_was_not_sent_is_empty() -> None:
    form = parse_form(b"", TEXTS, LISTS)
    assert form.text("name") == "" and list(form.items("models")) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"name=a&name=b",
        b"other=a",
        b"name",
        b"=a",
        b"name=%ff",
        b"name=\xc3\xb6",
        b"name=%ed%a0%80",
        b"&".join([b"models=m"] * (FIELDS_MAX + 1)),
    ],
    ids=["twice", "unknown", "no value", "no name", "not UTF-8", "not escaped", "half a surrogate pair", "too many"],
)
def test_what_no_page_of_ours_sends_is_refused(raw: bytes) -> None:
    with pytest.raises(Trouble) as refused:
        parse_form(raw, TEXTS, LISTS)
    assert refused.value.status == 400


@given(raw=st.binary(max_size=60))
@hostile(200)
def test_any_bytes_are_a_form_or_are_refused(raw: bytes) -> None:
    try:
        form = parse_form(raw, TEXTS, LISTS)
    except Trouble as refused:
        assert refused.status == 400
    else:
        assert form.texts.keys() <= {*TEXTS}
