"""A real SMTP server in a process of its own that behaves as it is told: ``python -m tests.support.mail_server``.

Reads its manners from its standard input, a line of JSON each time they change; tells its port, then each mail it took.
"""

import asyncio
import base64
import json
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, TextIO

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

# Replies that are none: nothing until it is told to behave; the line cut; the line cut after the mail was taken.
STALL, DROP, TAKE_AND_DROP = "stall", "drop", "take and drop"


@dataclass
class Manners:
    """``at_…`` are the replies to come, each given once; after them all is well."""

    certificate: str = ""
    implicit_tls: bool = False
    password: str = ""
    at_greeting: str = ""
    at_sender: list[str] = field(default_factory=list)
    at_addressee: list[str] = field(default_factory=list)
    at_mail: list[str] = field(default_factory=list)
    stalls_for: str = ""  # the addressee whose mails it does not answer until it is told to behave


@dataclass
class Taken:
    """A mail that the server has taken."""

    sender: str
    to: list[str]
    message: EmailMessage
    encrypted: bool
    logged_in: bool

    @property
    def text(self) -> str:
        part = self.message.get_body(("plain",))
        assert isinstance(part, EmailMessage)
        return str(part.get_content())

    @property
    def html(self) -> str:
        part = self.message.get_body(("html",))
        assert isinstance(part, EmailMessage)
        return str(part.get_content())


class MailServer:
    """One that runs on ``port``."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port = port
        self.taken: list[Taken] = []
        self.tried: list[str] = []  # addressees that were named
        self.handed: list[str] = []  # … and whose mails came in, taken or not
        self._process = process
        self._acknowledged: asyncio.Queue[None] = asyncio.Queue()

    async def behave(self, **manners: Any) -> None:
        """From now on like this, in what is not said as a good server does. What stalls goes on."""
        await _tell(self._process, Manners(**manners))
        await self._acknowledged.get()

    def taken_for(self, address: str) -> list[Taken]:
        return [mail for mail in self.taken if mail.to == [address]]

    async def hear(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            match said.pop("what"):
                case "behaving":
                    self._acknowledged.put_nowait(None)
                case "tried":
                    self.tried.append(said["to"])
                case "handed":
                    self.handed.append(said["to"])
                case "taken":
                    raw = base64.b64decode(said.pop("raw"))
                    self.taken.append(Taken(**said, message=message_from_bytes(raw, policy=policy.default)))


@asynccontextmanager
async def mail_server(**manners: Any) -> AsyncIterator[MailServer]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.mail_server"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdout is not None
    try:
        await _tell(process, Manners(**manners))
        server = MailServer(int(await process.stdout.readline()), process)
        hearing = asyncio.create_task(server.hear())
        yield server
    finally:
        process.kill()
        await process.wait()
    await hearing


async def _tell(process: asyncio.subprocess.Process, manners: Manners) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(manners)).encode() + b"\n")
    await process.stdin.drain()


# In the process.


class Handler:
    """Answers as its manners are."""

    def __init__(self, manners: Manners, told: TextIO) -> None:
        self._told = told
        self._changed = asyncio.Event()
        self.manners = manners

    def change(self, manners: Manners) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self.manners = manners

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's names
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await self._reply(self.manners.at_sender, server)
        if reply.startswith("250"):
            envelope.mail_from = address
        return reply

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.tell("tried", to=address)
        if address == self.manners.stalls_for:
            await self._changed.wait()
        reply = await self._reply(self.manners.at_addressee, server)
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply.format(address=address)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.tell("handed", to=envelope.rcpt_tos[0])
        takes_silently = self.manners.at_mail[:1] == [TAKE_AND_DROP]
        reply = DROP if takes_silently else await self._reply(self.manners.at_mail, server)
        if takes_silently or reply.startswith("250"):
            self._take(session, envelope)
        if takes_silently:
            self.manners.at_mail.pop(0)
            _cut(server)
        return reply.format(address=envelope.rcpt_tos[0])

    def _take(self, session: Session, envelope: Envelope) -> None:
        assert isinstance(envelope.original_content, bytes)
        self.tell(
            "taken",
            sender=envelope.mail_from,
            to=envelope.rcpt_tos,
            raw=base64.b64encode(envelope.original_content).decode(),
            encrypted=session.ssl is not None or self.manners.implicit_tls,
            logged_in=bool(session.authenticated),
        )

    async def _reply(self, replies: list[str], server: SMTP) -> str:
        reply = replies.pop(0) if replies else "250 2.0.0 well done"
        if reply == STALL:
            await self._changed.wait()
            return "421 4.4.2 too late"
        if reply == DROP:
            _cut(server)
        return reply

    def authenticate(self, _: SMTP, __: Session, ___: Envelope, ____: str, given: LoginPassword) -> AuthResult:
        right = (given.login, given.password) == (b"keystead", self.manners.password.encode())
        return AuthResult(success=right, handled=False)

    def tell(self, what: str, **more: Any) -> None:
        print(json.dumps({"what": what, **more}), file=self._told, flush=True)


def _cut(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.WriteTransport)
    server.transport.abort()


class Silent(asyncio.Protocol):
    """Takes the call and says nothing."""


def _protocol(handler: Handler, context: ssl.SSLContext | None) -> asyncio.BaseProtocol:
    manners = handler.manners
    if manners.at_greeting == STALL:
        return Silent()
    return SMTP(
        handler,
        hostname="mail.example.test",
        enable_SMTPUTF8=True,
        tls_context=None if manners.implicit_tls else context,
        authenticator=handler.authenticate if manners.password else None,
        auth_required=bool(manners.password),
        auth_require_tls=False,
    )


async def serve(told: TextIO) -> None:
    """Until killed, or until whoever started it is gone."""
    loop = asyncio.get_running_loop()
    handler = Handler(_read(), told)
    context = None
    if handler.manners.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(handler.manners.certificate)
    server = await loop.create_server(
        lambda: _protocol(handler, context),
        *("127.0.0.1", 0),
        ssl=context if handler.manners.implicit_tls else None,
    )
    print(server.sockets[0].getsockname()[1], file=told, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        handler.change(Manners(**json.loads(line)))
        handler.tell("behaving")


def _read() -> Manners:
    return Manners(**json.loads(sys.stdin.readline()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    asyncio.run(serve(answers))
