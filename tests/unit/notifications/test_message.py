"""A mail's form: its headers are ours alone, whatever is put into it."""

from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.notifications.content import Content, load_templates, word_invitation
from services.notifications.message import AddressUnusable, address_of, make_message
from services.notifications.settings import NotificationsSettings
from shared.values import Email
from tests.support.installation import SECRET_KEY

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LINK = "https://keystead.example.test/ui/onboarding?id=7d3b8f4e-0000-4000-8000-000000000000"
HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
]
EMAIL: TypeAdapter[str] = TypeAdapter(Email)


def settings(**environment: str) -> NotificationsSettings:
    given = {"KEYSTEAD_SECRET_KEY": SECRET_KEY, "PROXY_BASE_URL": "https://keystead.example.test", **environment}
    return NotificationsSettings.model_validate(given)


def word(**environment: str) -> Content:
    return word_invitation(load_templates(), settings(**environment), to="ada@example.test", link=LINK, expires_at=NOON)


def sent(content: Content) -> bytes:
    return make_message(content, sender="keystead@example.test", notification_id="m1", now=NOON).as_bytes()


def test_a_mail_is_plain_text_and_the_same_in_html() -> None:
    message = message_from_bytes(sent(word()), policy=policy.default)
    assert message.keys() == HEADERS
    assert message["Subject"] == "You are invited"
    assert message["Message-ID"] == "<m1@example.test>", "the same however often it is tried"
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain and html
    for part in (plain, html):
        text = part.get_content()
        assert LINK in text and "24 November 2026, 12:00 UTC" in text and "keystead.example.test" in text
        assert "sk-" not in text


def test_the_wording_is_the_operators() -> None:
    content = word(
        EMAIL_SUBJECT_INVITATION="Welcome to ACME",
        EMAIL_LOGO_URL="https://acme.example/logo.png",
        EMAIL_SUPPORT_CONTACT="help@acme.example",
        EMAIL_SIGNATURE="The platform team\nACME",
    )
    assert content.subject == "Welcome to ACME"
    assert "help@acme.example" in content.text and content.text.endswith("The platform team\nACME")
    assert 'src="https://acme.example/logo.png"' in content.html and "help@acme.example" in content.html
    assert "logo" not in word().html and "Questions" not in word().text + word().html


def test_no_wording_becomes_markup() -> None:
    content = word(
        EMAIL_SIGNATURE="<script>alert(1)</script>", EMAIL_SUPPORT_CONTACT='"><b>', EMAIL_SUBJECT_INVITATION="<i>"
    )
    assert "<script>" not in content.html and "<b>" not in content.html and "<i>" not in content.html
    assert "<script>" in content.text, "where it is text, it stays what it was"


@pytest.mark.parametrize(
    "subject", ["Hello\r\nBcc: eve@example.test", "Hello\nX-Evil: 1\n\nbody", "a\x0bb\x85c\u2028d"]
)
def test_a_subject_of_several_lines_becomes_one(subject: str) -> None:
    message = message_from_bytes(sent(word(EMAIL_SUBJECT_INVITATION=subject)), policy=policy.default)
    assert message.keys() == HEADERS
    assert len(message["Subject"].splitlines()) == 1


@given(st.emails() | st.builds("{}@{}".format, st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30)))
def test_an_address_is_one_address_and_adds_no_header(text: str) -> None:
    try:
        email = EMAIL.validate_python(text)
    except ValidationError:
        return
    try:
        address = address_of(email)
    except AddressUnusable as refused:
        assert email not in str(refused)
        return
    content = Content(to=email, subject="Hello", link=LINK, expires_at=NOON, text="Hello.\n", html="<p>Hello.</p>\n")
    raw = sent(content)
    message = message_from_bytes(raw, policy=policy.SMTPUTF8)
    assert message.keys() == HEADERS
    assert len(message["To"].addresses) == 1
    assert "\n" not in address.addr_spec and " " not in address.addr_spec.rpartition("@")[2]


@pytest.mark.parametrize("email", ["ada@[", "ada@,<", "ada@.", "ada@x..y", "ada@\u00af"])
def test_no_mail_goes_to_what_is_no_address(email: str) -> None:
    assert EMAIL.validate_python(email) == email
    with pytest.raises(AddressUnusable):
        address_of(email)


def test_whoever_prints_a_mail_prints_neither_link_nor_address() -> None:
    printed = repr(word())
    assert "ada" not in printed and "onboarding" not in printed
