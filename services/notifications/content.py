"""What a mail says: asked for and put into words when it is sent or shown, and kept nowhere."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from services.identity.requests import OpenedEmails, OpenEmails
from services.invitations.requests import MadeLink, MakeLink
from services.notifications.events import Withdrawal
from services.notifications.read_model import NotificationRow
from services.notifications.settings import NotificationsSettings
from shared.service import Running


@dataclass(frozen=True, slots=True)
class Content:
    """A mail in words. Who prints one means no harm."""

    to: str = field(repr=False)
    subject: str
    link: str = field(repr=False)
    expires_at: datetime
    text: str = field(repr=False)
    html: str = field(repr=False)


class Needless(Exception):
    """The mail has lost its purpose."""

    def __init__(self, reason: Withdrawal) -> None:
        super().__init__(reason)
        self.reason: Withdrawal = reason


def load_templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
    )


async def open_content(running: Running[NotificationsSettings], row: NotificationRow) -> Content:
    """The mail as it is to be sent now. Raises ``Needless``; and ``Unavailable``, if who knows is away."""
    made = await running.wire.ask("invitations", MakeLink(ref=row.ref, generation=row.generation), MadeLink)
    if made.id is None or made.expires_at is None:
        raise Needless(made.closed or "unknown")
    opened = await running.wire.ask("identity", OpenEmails(user_ids=(row.user_id,)), OpenedEmails)
    if row.user_id not in opened.emails:
        raise Needless("no_address")
    link = f"{running.settings.base_url}/ui/onboarding?id={made.id}"
    return word_invitation(
        running.own.templates, running.settings, to=opened.emails[row.user_id], link=link, expires_at=made.expires_at
    )


def word_invitation(
    templates: Environment, settings: NotificationsSettings, *, to: str, link: str, expires_at: datetime
) -> Content:
    facts: dict[str, Any] = {
        "site": urlsplit(settings.base_url).netloc,
        "link": link,
        "expires": f"{expires_at.astimezone(UTC):%d %B %Y, %H:%M} UTC",
        "subject": settings.subject_invitation,
        "logo_url": settings.logo_url,
        "support_contact": settings.support_contact,
        "signature": settings.signature,
    }
    return Content(
        to=to,
        subject=settings.subject_invitation,
        link=link,
        expires_at=expires_at,
        text=templates.get_template("invitation.txt").render(facts),
        html=templates.get_template("invitation.html").render(facts),
    )
