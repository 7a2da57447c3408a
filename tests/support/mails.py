"""What tests of mails say often: invite, look at what was sent and what became of it."""

import re
from dataclasses import dataclass
from typing import Any

from tests.support.eventually import eventually
from tests.support.identity import PassingClock, an_email
from tests.support.installation import BASE_URL, Installation
from tests.support.mail_server import MailServer, Taken

LINK = re.compile(re.escape(f"{BASE_URL}/ui/onboarding?id=") + r"([0-9a-f-]{36})")
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Invited:
    """Somebody, and the answer of the call that invited them."""

    user_id: str
    email: str
    invitation: dict[str, Any]

    @property
    def ref(self) -> str:
        return str(self.invitation["ref"])


@dataclass
class World:
    """An installation and its mail server."""

    it: Installation
    post: MailServer
    clock: PassingClock

    async def new_user(self, **more: Any) -> dict[str, Any]:
        body = {"user_email": an_email(), "auto_create_key": False, **more}
        made: dict[str, Any] = await self.it.ok("POST", "/user/new", body)
        return made

    async def invite(self, **more: Any) -> Invited:
        user = await self.new_user()
        invitation = await self.it.ok("POST", "/invitation/new", {"user_id": user["user_id"], **more})
        return Invited(user["user_id"], user["user_email"], invitation)

    async def mails_to(self, user_id: str) -> list[dict[str, Any]]:
        """What the installation says of them, the newest first."""
        page = await self.it.ok("GET", f"/keystead/v1/notifications?user_id={user_id}")
        mails: list[dict[str, Any]] = page["data"]
        return mails

    async def mail_to(self, user_id: str) -> dict[str, Any]:
        (mail,) = await self.mails_to(user_id)
        return mail

    async def invitation(self, ref: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.it.ok("GET", f"/invitation/info?invitation_id={ref}")
        return found

    async def sent(self, email: str, count: int = 1) -> list[Taken]:
        """The mails that the server has taken for ``email``, as soon as there are that many."""
        await eventually(lambda: len(self.post.taken_for(email)) >= count, PATIENCE_SECONDS)
        taken = self.post.taken_for(email)
        assert len(taken) == count
        return taken

    async def has(self, user_id: str, **state: Any) -> dict[str, Any]:
        """The user's only mail, as soon as it is as described."""

        async def so() -> bool:
            return state.items() <= (await self.mail_to(user_id)).items()

        await eventually(so, PATIENCE_SECONDS)
        return await self.mail_to(user_id)


def told(post: MailServer, **more: str) -> dict[str, str]:
    """What an installation is told of its mail server."""
    place = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(post.port), "SMTP_TLS": "False"}
    return {**place, "SMTP_SENDER_EMAIL": "keystead@example.test", **more}


def link_in(mail: Taken) -> str:
    """The link's id, the same in text and HTML."""
    (in_text,) = set(LINK.findall(mail.text))
    assert set(LINK.findall(mail.html)) == {in_text}
    return str(in_text)
