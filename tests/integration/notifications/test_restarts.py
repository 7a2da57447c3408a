"""Notifications begun anew: after its process was killed with a mail in hand; with a mail server where none was."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystead.app import SERVICES, compose
from services.notifications.read_model import NotificationRow, list_notifications
from services.notifications.service import SERVICE as NOTIFICATIONS
from tests.support.certificates import make_certificate
from tests.support.eventually import eventually
from tests.support.identity import PassingClock, an_email
from tests.support.installation import Installation, connections_to, installation, keyring, serving, settings
from tests.support.mail_server import STALL, mail_server
from tests.support.mails import PATIENCE_SECONDS, told
from tests.support.worker_process import worker_process

OTHERS = [service for service in SERVICES if service is not NOTIFICATIONS]


async def invite(it: Installation, **more: Any) -> tuple[str, dict[str, Any]]:
    email = an_email()
    user = await it.ok("POST", "/user/new", {"user_email": email, "auto_create_key": False})
    body = {"user_id": user["user_id"], "send_email": True, **more}
    return email, await it.ok("POST", "/invitation/new", body)


@dataclass
class Replica:
    """Notifications alone, in this process."""

    running: Any

    async def mails(self) -> dict[str, NotificationRow]:
        """By what they are about."""
        await self.running.fence({"invitations", "identity"})
        rows = await self.running.run(list_notifications, status=None, user_id=None, after=None, limit=100)
        return {row.ref: row for row in rows}

    async def has(self, ref: str, status: str) -> NotificationRow:
        async def so() -> bool:
            return (await self.mails())[ref].status == status

        await eventually(so, PATIENCE_SECONDS)
        return (await self.mails())[ref]


@asynccontextmanager
async def replica(it: Installation, clock: PassingClock, environment: dict[str, str]) -> AsyncIterator[Replica]:
    connections = connections_to(it.owner_url, it.namespace)
    alone = compose(
        [NOTIFICATIONS], settings({"environment_variables": environment}), connections, keyring=keyring(), clock=clock
    )
    async with serving(alone.app):
        yield Replica(alone.services[NOTIFICATIONS.name])


async def test_what_its_process_died_over_is_given_up_and_not_repeated() -> None:
    """The server has the mail and has not said a word when the process is killed: nobody will ever know."""
    async with installation(services=OTHERS) as it, mail_server(at_mail=[STALL]) as post:
        content = {"environment_variables": told(post)}
        async with worker_process(it, content, [NOTIFICATIONS.name]) as killed:
            first, invitation = await invite(it)
            await eventually(lambda: post.handed == [first], PATIENCE_SECONDS)
            killed.kill()
        clock = PassingClock()
        async with replica(it, clock, told(post)) as again:
            second, other = await invite(it)
            await again.has(other["ref"], "sent")
            mail = (await again.mails())[invitation["ref"]]
            assert (mail.status, mail.error) == ("queued", None), "whoever has it in hand may still be at it"
            clock.passes(minutes=6)
            assert "not known whether the server took it" in (
                (await again.has(invitation["ref"], "failed")).error or ""
            )
            third, last = await invite(it)
            await again.has(last["ref"], "sent")
        assert post.handed == [first, second, third]


async def test_once_there_is_a_server_the_outbox_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits there, and nothing that lost its purpose meanwhile; here by a server that wants TLS and a log-in."""
    certificate = make_certificate(tmp_path)
    clock = PassingClock()
    async with installation(services=OTHERS, clock=clock) as it:
        async with replica(it, clock, {}) as without:
            waits, invitation = await invite(it)
            _, revoked = await invite(it)
            _, expired = await invite(it, duration="1h")
            await it.ok("POST", "/invitation/delete", {"invitation_id": revoked["ref"]})
            assert {ref: row.status for ref, row in (await without.mails()).items()} == {
                invitation["ref"]: "queued",
                revoked["ref"]: "failed",
                expired["ref"]: "queued",
            }
        clock.passes(hours=2)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with mail_server(certificate=str(certificate), password="open sesame") as post:
            log_in = {"SMTP_USERNAME": "keystead", "SMTP_PASSWORD": "open sesame", "SMTP_TLS": "True"}
            async with replica(it, clock, told(post, **log_in)) as with_server:
                await with_server.has(invitation["ref"], "sent")
                assert "expired" in ((await with_server.has(expired["ref"], "failed")).error or "")
            (mail,) = post.taken
            assert mail.to == [waits] and invitation["id"] in mail.text and mail.encrypted and mail.logged_in


async def test_a_certificate_that_nobody_vouches_for_is_told_and_nothing_is_sent(tmp_path: Path) -> None:
    """No setting switches the check off: the machine is to know who vouches for the server (SSL_CERT_FILE)."""
    certificate = make_certificate(tmp_path)
    async with installation(services=OTHERS) as it, mail_server(certificate=str(certificate)) as post:
        async with replica(it, PassingClock(), told(post, SMTP_TLS="True")) as here:
            _, invitation = await invite(it)

            async def told_so() -> bool:
                return "certificate does not hold" in ((await here.mails())[invitation["ref"]].error or "")

            await eventually(told_so, PATIENCE_SECONDS)
            assert (await here.mails())[invitation["ref"]].status == "queued"
        assert post.tried == []
