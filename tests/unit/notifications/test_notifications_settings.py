"""What notifications is told (contract §4.5)."""

import ssl

import pytest

from services.notifications.settings import NotificationsSettings
from services.notifications.smtp import own_name, server_of
from shared.settings import SettingsInvalid, load
from tests.support.installation import SECRET_KEY

GIVEN = {"KEYSTEAD_SECRET_KEY": SECRET_KEY, "PROXY_BASE_URL": "https://keystead.example.test"}
MAIL = {"SMTP_HOST": "mail.example.test", "SMTP_SENDER_EMAIL": "Keystead@example.test"}


def settings(**environment: str) -> NotificationsSettings:
    loaded, _ = load({"notifications": NotificationsSettings}, {}, {**GIVEN, **environment})
    told: NotificationsSettings = loaded["notifications"]
    return told


def faults(**environment: str) -> list[str]:
    with pytest.raises(SettingsInvalid) as invalid:
        settings(**environment)
    return invalid.value.faults


def test_without_a_host_there_is_no_server() -> None:
    assert server_of(settings()) is None
    assert server_of(settings(SMTP_SENDER_EMAIL="keystead@example.test")) is None


def test_a_server_begins_tls_unless_it_is_told_otherwise() -> None:
    server = server_of(settings(**MAIL))
    assert server is not None
    assert (server.host, server.port, server.sender) == ("mail.example.test", 587, "keystead@example.test")
    assert server.starttls and not server.implicit_tls
    assert server.tls.verify_mode is ssl.CERT_REQUIRED and server.tls.check_hostname
    relay = server_of(settings(**MAIL, SMTP_PORT="25", SMTP_TLS="False"))
    assert relay is not None and (relay.port, relay.starttls, relay.implicit_tls) == (25, False, False)


@pytest.mark.parametrize("tls", ["True", "False"])
def test_port_465_is_tls_from_the_first_byte_on(tls: str) -> None:
    server = server_of(settings(**MAIL, SMTP_PORT="465", SMTP_TLS=tls))
    assert server is not None and server.implicit_tls and not server.starttls


def test_a_host_needs_a_sender() -> None:
    assert faults(SMTP_HOST="mail.example.test") == [
        'SMTP_HOST: "mail.example.test" is not enough: SMTP_SENDER_EMAIL is needed with it'
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMTP_PORT", "0"),
        ("SMTP_PORT", "70000"),
        ("SMTP_PORT", "smtp"),
        ("SMTP_SENDER_EMAIL", "keystead"),
        ("SMTP_SENDER_EMAIL", "Keystead <keystead@example.test>"),
        ("SMTP_TLS", "perhaps"),
        ("EMAIL_LOGO_URL", "javascript:alert(1)"),
        ("EMAIL_SUBJECT_INVITATION", " \n"),
    ],
)
def test_a_bad_value_stops_the_start_and_is_named(name: str, value: str) -> None:
    (fault,) = faults(**{**MAIL, name: value})
    assert fault.startswith(f"{name}: ")


def test_a_password_is_not_told() -> None:
    assert "sesame" not in repr(settings(**MAIL, SMTP_USERNAME="keystead", SMTP_PASSWORD="open sesame"))


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://keystead.example.test", "keystead.example.test"),
        ("http://127.0.0.1:4000", "[127.0.0.1]"),
        ("http://[::1]:4000", "[IPv6:::1]"),
    ],
)
def test_we_introduce_ourselves_by_the_name_that_links_have(base_url: str, name: str) -> None:
    assert own_name(base_url) == name
