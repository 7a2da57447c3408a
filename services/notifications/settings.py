"""Notifications' settings: the mail server, and the wording of mails."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from shared.settings import SecretKey, Settings, WebAddress, setting
from shared.values import Email


def _one_line(value: object) -> str:
    """It becomes a mail's header, where a second line would be another header."""
    return " ".join(str(value).split())


def _with_sender(host: str, info: ValidationInfo) -> str:
    # The sender's own fault is told at its own place.
    if info.data.get("smtp_sender_email", "") is None:
        raise ValueError("is not enough: SMTP_SENDER_EMAIL is needed with it")
    return host


class NotificationsSettings(Settings):
    """What notifications is told."""

    keyring: SecretKey = setting(env=("KEYSTEAD_SECRET_KEY",), says="Seals the cursors of lists: ≥ 32 bytes, base64.")
    base_url: WebAddress = setting(env=("PROXY_BASE_URL",), says="What links are built from.")
    smtp_port: Annotated[int, BeforeValidator(int), Field(ge=1, le=65535)] = setting(
        587, env=("SMTP_PORT",), says="Its port; on 465, TLS is from the first byte on."
    )
    smtp_username: str | None = setting(None, env=("SMTP_USERNAME",), says="Logs in there, if it is set.")
    smtp_password: str | None = setting(None, env=("SMTP_PASSWORD",), says="… with this password.")
    smtp_sender_email: Email | None = setting(
        None, env=("SMTP_SENDER_EMAIL",), says="The address that mails come from; needed with SMTP_HOST."
    )
    smtp_host: Annotated[str, AfterValidator(_with_sender)] | None = setting(
        None, env=("SMTP_HOST",), says="The mail server; without one, mails go to the outbox."
    )
    smtp_tls: bool = setting(
        True, env=("SMTP_TLS",), says="Whether the server must begin TLS (STARTTLS), with a certificate that holds."
    )
    subject_invitation: Annotated[str, BeforeValidator(_one_line), Field(min_length=1, max_length=255)] = setting(
        "You are invited", env=("EMAIL_SUBJECT_INVITATION",), says="The subject of an invitation's mail."
    )
    logo_url: WebAddress | None = setting(None, env=("EMAIL_LOGO_URL",), says="A picture at the head of mails.")
    support_contact: Annotated[str, BeforeValidator(_one_line)] | None = setting(
        None, env=("EMAIL_SUPPORT_CONTACT",), says="Whom to turn to, as mails say."
    )
    signature: str | None = setting(None, env=("EMAIL_SIGNATURE",), says="The last lines of mails.")
