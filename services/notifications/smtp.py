"""Speaking to the mail server: what it said, in our words. Its own may name the addressee, and so are not repeated."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from services.notifications.settings import NotificationsSettings

IMPLICIT_TLS_PORT = 465
GREETING_SECONDS = 60.0  # for all that comes before the mail itself
STEP_SECONDS = 30.0
# A server may look at a mail for long before it says that it has taken it; who gives up too early never knows.
TAKING_SECONDS = 120.0
FAREWELL_SECONDS = 2.0
# Authentication required, too weak, refused, or not without encryption: the settings are wrong, and not the mail.
OF_SETTINGS = frozenset({530, 534, 535, 538})
_ENHANCED_CODE = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mails go, and how one is let in there."""

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    implicit_tls: bool
    starttls: bool
    sender: str
    own_name: str
    tls: ssl.SSLContext
    greeting_seconds: float = GREETING_SECONDS
    taking_seconds: float = TAKING_SECONDS


class NotTaken(Exception):
    """The server has not taken the mail; ``for_good`` if it said that it never will."""

    def __init__(self, error: str, *, for_good: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.for_good = for_good


class OutcomeUnknown(Exception):
    """The mail was handed over, and then nothing that could be understood was heard."""


def server_of(settings: NotificationsSettings) -> MailServer | None:
    """The server that is set, if one is. Its certificate must hold, by the authorities this machine knows."""
    if settings.smtp_host is None or settings.smtp_sender_email is None:
        return None
    implicit_tls = settings.smtp_port == IMPLICIT_TLS_PORT
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        username=settings.smtp_username,
        password=settings.smtp_password,
        implicit_tls=implicit_tls,
        starttls=settings.smtp_tls and not implicit_tls,
        sender=settings.smtp_sender_email,
        own_name=own_name(settings.base_url),
        tls=ssl.create_default_context(),
    )


def own_name(base_url: str) -> str:
    """How we introduce ourselves: by the name that links have, or by the address in brackets."""
    host = urlsplit(base_url).hostname or "localhost"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


@asynccontextmanager
async def conversation(server: MailServer, message: EmailMessage) -> AsyncIterator[SMTP]:
    """Let in, and sender and addressee accepted: all that is left is to hand the mail over. Raises ``NotTaken``."""
    client = SMTP(
        hostname=server.host,
        port=server.port,
        username=server.username,
        password=server.password,
        use_tls=server.implicit_tls,
        start_tls=server.starttls,
        tls_context=server.tls,
        timeout=STEP_SECONDS,
        local_hostname=server.own_name,
    )
    try:
        await _be_let_in(client, message, server.greeting_seconds)
        yield client
    finally:
        with suppress(SMTPException, OSError):
            await client.quit(timeout=FAREWELL_SECONDS)
        client.close()


async def _be_let_in(client: SMTP, message: EmailMessage, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await client.connect()
            await _address(client, message)
    except (SMTPException, OSError, ValueError) as fault:
        _hang_up_if_stalled(client, fault)
        raise _not_taken(fault) from fault


async def _address(client: SMTP, message: EmailMessage) -> None:
    """Name sender and addressee; SMTPUTF8 (RFC 6531) only where they need it, for not every server has it."""
    sender, to = (message[name].addresses[0].addr_spec for name in ("From", "To"))
    if client.is_ehlo_or_helo_needed:
        await client.ehlo()
    if (sender + to).isascii():
        await client.mail(sender)
        await client.rcpt(to)
    elif not client.supports_extension("smtputf8"):
        raise NotTaken("the mail server takes no address with letters like these", for_good=True)
    else:
        await client.mail(sender, options=("SMTPUTF8",), encoding="utf-8")
        await client.rcpt(to, encoding="utf-8")


async def hand_over(client: SMTP, message: EmailMessage, *, seconds: float) -> None:
    """Back when the server has taken the mail. Raises ``NotTaken``, and ``OutcomeUnknown`` if it may have."""
    try:
        async with asyncio.timeout(seconds):
            await client.data(message.as_bytes())
    except SMTPDataError as fault:
        if fault.code // 100 not in (4, 5):
            raise OutcomeUnknown from fault
        raise _not_taken(fault) from fault
    except (SMTPException, OSError) as fault:
        _hang_up_if_stalled(client, fault)
        raise OutcomeUnknown from fault


def _hang_up_if_stalled(client: SMTP, fault: Exception) -> None:
    if isinstance(fault, TimeoutError):
        client.close()  # it would not hear a farewell either


def _not_taken(fault: Exception) -> NotTaken:  # noqa: PLR0911 - a line a fault
    match fault:
        case SMTPAuthenticationError():
            return NotTaken(f"the mail server did not accept the log-in: {_said(fault)}")
        case SMTPSenderRefused() | SMTPRecipientRefused() | SMTPDataError():
            what = {SMTPSenderRefused: "sender", SMTPRecipientRefused: "addressee", SMTPDataError: "mail"}[type(fault)]
            for_good = fault.code // 100 == 5 and fault.code not in OF_SETTINGS
            return NotTaken(f"the mail server refused the {what}: {_said(fault)}", for_good=for_good)
        case SMTPResponseException():
            return NotTaken(f"the mail server is not ready: {_said(fault)}")
        case ssl.SSLCertVerificationError():
            return NotTaken(f"the mail server's certificate does not hold: {fault.verify_message}")
        case ssl.SSLError():
            return NotTaken("TLS with the mail server did not come about")
        case TimeoutError():
            return NotTaken("the mail server did not answer in time")
        case OSError() if isinstance(fault.__cause__, ssl.SSLError):
            return _not_taken(fault.__cause__)
        case OSError():
            return NotTaken("the mail server can't be reached, or went away")
        case SMTPException():
            return NotTaken("the mail server does not offer what is set: STARTTLS, or a way to log in that we know")
        case _:
            return NotTaken(f"the mail could not be sent: {type(fault).__name__}")


def _said(fault: SMTPResponseException) -> str:
    """The reply's code, and the enhanced one (RFC 3463) if it has one: they say why, and name nobody."""
    enhanced = _ENHANCED_CODE.match(str(fault.message))
    return f"{fault.code} {enhanced[0]}" if enhanced else str(fault.code)
