"""A mail's form (RFC 5322): headers that nobody can add to, plain text, and the same in HTML."""

import re
from datetime import datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from services.notifications.content import Content

# Seven bits and short lines: what any server takes.
_PLAIN = policy.SMTP.clone(cte_type="7bit")
_INTERNATIONAL = policy.SMTPUTF8.clone(cte_type="7bit")
# Python's IDNA turns some characters into a space or a sign, and sees none of them in what it returns.
_DOMAIN = re.compile(r"[A-Za-z0-9._:\[\]-]+")


class AddressUnusable(ValueError):
    """No mail can be sent to an address like that; it is not repeated here."""


def address_of(email: str) -> Address:
    """The one address that ``email`` is: whatever its characters, they end neither it nor the header."""
    username, _, domain = email.rpartition("@")
    try:
        address = Address(username=username, domain=_checked(domain.encode("idna").decode("ascii")))
        _INTERNATIONAL.header_store_parse("To", address)  # what is no domain is found out here, by whatever it raises
    except (ValueError, IndexError, AttributeError) as fault:  # UnicodeError is a ValueError
        raise AddressUnusable("no mail can be sent to an address of this form") from fault
    return address


def _checked(domain: str) -> str:
    if not _DOMAIN.fullmatch(domain):
        raise ValueError("not a domain")
    return domain


def make_message(content: Content, *, sender: str, notification_id: str, now: datetime) -> EmailMessage:
    """``notification_id`` makes the Message-ID, the same however often the mail is tried."""
    from_, to = address_of(sender), address_of(content.to)
    message = EmailMessage(policy=_PLAIN if to.addr_spec.isascii() else _INTERNATIONAL)
    message["From"] = from_
    message["To"] = to
    message["Subject"] = content.subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{notification_id}@{from_.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(content.text, cte="quoted-printable")
    message.add_alternative(content.html, subtype="html", cte="quoted-printable")
    return message
