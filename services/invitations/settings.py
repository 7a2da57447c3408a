"""Invitations' settings."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator

from shared.durations import DurationText, parse_duration
from shared.settings import SecretKey, Settings, setting

# Lengths are compared by where they end; no months are longer than those that begin here.
FROM = datetime(2026, 7, 1, tzinfo=UTC)


def _a_term(text: str) -> str:
    if not timedelta(hours=1) <= parse_duration(text).after(FROM) - FROM <= timedelta(days=90):
        raise ValueError("is not from 1h to 90d")
    return text


class InvitationsSettings(Settings):
    """What invitations is told."""

    keyring: SecretKey = setting(env=("KEYSTEAD_SECRET_KEY",), says="Makes the links' secrets: ≥ 32 bytes, base64.")
    invitation_duration: Annotated[DurationText, AfterValidator(_a_term)] = setting(
        "7d", yaml_path="keystead_settings.invitation_duration", says="How long an invitation is open: 1h to 90d."
    )
    smtp_host: str | None = setting(
        None, env=("SMTP_HOST",), says="The mail server; without one, mails go to the outbox."
    )
