"""A history of a whole installation as it happens: its sites come and go, are asked over HTTP, and tell something."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from keystead.app import SERVICES, Composition, compose
from shared.errors import Unavailable
from tests.support import service_steps as step
from tests.support.eventually import eventually
from tests.support.faults import Fault, befalls, source_of
from tests.support.flow import CHAT
from tests.support.half_done import nothing_is_half_done
from tests.support.installation import (
    MASTER_KEY,
    PASSWORD,
    claims_of,
    connections_to,
    database,
    keyring,
    serving,
    settings,
)
from tests.support.servers import nats_url
from tests.support.streams import forget_streams

CONVERGED_SECONDS = 30.0
# A hold whose worker is gone is written off by then (design §6).
FINISHED_SECONDS = 75.0


@dataclass
class Site:
    """Every service once, behind a gateway."""

    url: str
    composition: Composition
    stack: AsyncExitStack


@dataclass
class Known:
    """What clients were told: ids, links and secrets."""

    users: list[tuple[str, str | None]] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)


def at(things: list[Any], number: int) -> Any:
    return things[number % len(things)]


@dataclass
class History:
    """Who is there, what clients know, and the events that were acknowledged: type and stream."""

    owner_url: str
    namespace: str
    http: aiohttp.ClientSession
    loaded: Mapping[str, Any]
    sites: list[Site] = field(default_factory=list)
    known: Known = field(default_factory=Known)
    acknowledged: list[tuple[str, str, str]] = field(default_factory=list)

    async def start(self) -> str:
        if len(self.sites) < step.SITES_MAX:
            stack = AsyncExitStack()
            composition = compose(
                SERVICES, self.loaded, connections_to(self.owner_url, self.namespace), keyring=keyring()
            )
            url = await stack.enter_async_context(serving(composition.app))
            self.sites.append(Site(url, composition, stack))
        return f"{len(self.sites)} there"

    async def end(self, number: int) -> str:
        if len(self.sites) > 1:
            await self.sites.pop(number % len(self.sites)).stack.aclose()
        return f"{len(self.sites)} there"

    async def happens(self, what: step.Step) -> str:
        """Carry a step out; what came of it, to be read."""
        match what:
            case step.At(site, command):
                return await self._ask(at(self.sites, site).url, command)
            case step.AtOnce(requests, loss):
                asked = [asyncio.ensure_future(self.happens(request)) for request in requests]
                if loss:
                    await self._befalls(loss)
                return ", ".join(await asyncio.gather(*asked))
            case step.StartSite():
                return await self.start()
            case step.EndSite(site):
                return await self.end(site)
            case fault:
                return await self._befalls(fault)

    async def _befalls(self, fault: Fault) -> str:
        running = self.sites[0].composition.services[source_of(fault)]
        return await befalls(self.owner_url, fault, running)

    async def _ask(self, url: str, command: step.Command) -> str:
        try:
            return await self._command(url, command)
        except NothingThere:
            return "nothing there"

    async def _call(self, url: str, path: str, body: Any, key: str | None = MASTER_KEY) -> tuple[int, Any]:
        """Whatever happens, the answer is one of the contract's; that it can't be done now is one."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        method = "POST" if body is not None else "GET"
        async with self.http.request(method, url + path, json=body, headers=headers, allow_redirects=False) as response:
            answer = await response.json() if response.content_type.endswith("json") else await response.text()
            assert response.status < 500 or response.status == 503, (path, response.status, answer)
            return response.status, answer

    def _one(self, things: list[Any], number: int) -> Any:
        if not things:
            raise NothingThere
        return at(things, number)

    async def _command(self, url: str, command: step.Command) -> str:  # noqa: PLR0911 - the table of contents
        match command:
            case step.NewUser():
                return await self._new_user(url, command)
            case step.UpdateUser(user, email, role, max_budget):
                user_id, _ = self._one(self.known.users, user)
                changes = {"user_email": email, "user_role": role, "max_budget": max_budget}
                return _said(await self._call(url, "/user/update", {"user_id": user_id, **changes}))
            case step.DeleteUser(user):
                user_id, _ = self._one(self.known.users, user)
                answer = await self._call(url, "/user/delete", {"user_ids": [user_id]})
                return self._acknowledge(answer, ("identity", "UserDeleted", f"user-{user_id}"))
            case step.Invite() | step.Resend() | step.CloseInvitation() | step.Claim():
                return await self._invitation(url, command)
            case step.LogIn(user):
                _, email = self._one(self.known.users, user)
                return await self._log_in(url, email)
            case step.LogOut(session):
                token = self._one(self.known.sessions, session)
                return _said(await self._call(url, "/logout", {}, token))
            case step.GenerateKey():
                return await self._generate_key(url, command)
            case step.UpdateKey(key, alias, max_budget):
                token = self._one(self.known.keys, key)["token"]
                return _said(
                    await self._call(url, "/key/update", {"key": token, "key_alias": alias, "max_budget": max_budget})
                )
            case step.ChangeKey(key, how):
                return await self._change_key(url, self._one(self.known.keys, key), how)
            case step.CallModel(key):
                return _said(
                    await self._call(url, "/v1/chat/completions", CHAT, self._one(self.known.keys, key)["key"])
                )

    async def _new_user(self, url: str, new: step.NewUser) -> str:
        user_id = f"u{uuid.uuid4().hex[:8]}"
        body: dict[str, Any] = {"user_id": user_id, "user_email": new.email, "max_budget": new.max_budget}
        body |= {"auto_create_key": new.with_key, "user_role": "internal_user"}
        body |= {"send_invite_email": True} if new.invited else {}
        status, answer = await self._call(url, "/user/new", body)
        if status in (200, 503):  # it may stand all the same
            self.known.users.append((user_id, new.email))
        if status == 200 and new.with_key:
            self.known.keys.append(answer)
            self.acknowledged.append(("keys", "KeyGenerated", f"key-{answer['key_id']}"))
        if status == 200 and new.invited:
            self.acknowledged.append(("invitations", "InvitationCreated", f"invitation-{answer['invitation_ref']}"))
        return self._acknowledge((status, answer), ("identity", "UserCreated", f"user-{user_id}"))

    async def _invitation(
        self, url: str, command: step.Invite | step.Resend | step.CloseInvitation | step.Claim
    ) -> str:
        match command:
            case step.Invite(user, mailed):
                user_id, _ = self._one(self.known.users, user)
                status, answer = await self._call(url, "/invitation/new", {"user_id": user_id, "send_email": mailed})
                event = "InvitationCreated"
            case step.Resend(link):
                ref = self._one(self.known.links, link)["ref"]
                status, answer = await self._call(url, f"/keystead/v1/invitations/{ref}/resend", {})
                event = "InvitationResent"
            case step.CloseInvitation(link):
                ref = self._one(self.known.links, link)["ref"]
                return _said(await self._call(url, "/invitation/delete", {"invitation_id": ref}))
            case step.Claim(link):
                return await self._claim(url, self._one(self.known.links, link))
        if status != 200:
            return _said((status, answer))
        self.known.links.append(answer)
        return self._acknowledge((status, answer), ("invitations", event, f"invitation-{answer['ref']}"))

    async def _claim(self, url: str, link: dict[str, Any]) -> str:
        status, opened = await self._call(url, f"/onboarding/get_token?invite_link={link['id']}", None, None)
        if status != 200:
            return _said((status, opened))
        body = {"invitation_link": link["id"], "user_id": link["user_id"], "password": PASSWORD}
        status, claimed = await self._call(url, "/onboarding/claim_token", body, claims_of(opened["token"])["key"])
        if status == 200:
            self.known.sessions.append(claims_of(claimed["token"])["key"])
        return self._acknowledge((status, claimed), ("invitations", "InvitationAccepted", f"invitation-{link['ref']}"))

    async def _log_in(self, url: str, email: str | None) -> str:
        status, answer = await self._call(url, "/v2/login", {"username": email or "-", "password": PASSWORD}, None)
        if status == 200:
            self.known.sessions.append(claims_of(answer["token"])["key"])
        return _said((status, answer))

    async def _generate_key(self, url: str, new: step.GenerateKey) -> str:
        body: dict[str, Any] = {"key_alias": new.alias, "max_budget": new.max_budget}
        if new.session is None:
            key = MASTER_KEY
            body["user_id"] = self._one(self.known.users, new.user)[0]
        else:
            key = self._one(self.known.sessions, new.session)
        status, answer = await self._call(url, "/key/generate", body, key)
        if status != 200:
            return _said((status, answer))
        self.known.keys.append(answer)
        return self._acknowledge((status, answer), ("keys", "KeyGenerated", f"key-{answer['key_id']}"))

    async def _change_key(self, url: str, key: dict[str, Any], how: str) -> str:
        body: dict[str, Any] = {"keys": [key["token"]]} if how == "delete" else {"key": key["token"]}
        answer = await self._call(url, f"/key/{how}", body)
        if how == "delete":
            return self._acknowledge(answer, ("keys", "KeyDeleted", f"key-{key['key_id']}"))
        return _said(answer)

    def _acknowledge(self, answer: tuple[int, Any], event: tuple[str, str, str]) -> str:
        if answer[0] == 200:
            self.acknowledged.append(event)
        return _said(answer)

    async def heals(self) -> None:
        """Everybody has heard everything, nothing that was begun is unfinished; and then nobody is there any more."""
        await nothing_is_half_done(self.owner_url, FINISHED_SECONDS)
        await eventually(self._converged, CONVERGED_SECONDS)
        await self.end_all()

    async def end_all(self) -> None:
        while self.sites:
            await self.sites.pop().stack.aclose()

    async def _converged(self) -> bool:
        """Nobody hears anything new in a round: what one tells, another may answer."""
        services = self.sites[0].composition.services
        try:
            before = [await services[name].run(lambda tx: tx.last_position()) for name in step.HEARS]
            for name in step.HEARS:
                await services[name].fence(sorted(services[name].readers))
            after = [await services[name].run(lambda tx: tx.last_position()) for name in step.HEARS]
        except Unavailable:
            return False
        return before == after


class NothingThere(Exception):
    """Of what a step is about, nothing was made yet."""


def _said(answer: tuple[int, Any]) -> str:
    status, body = answer
    error = body.get("error") if isinstance(body, dict) else None
    reason = error["reason"] if error else body.get("type", "") if isinstance(body, dict) and status >= 400 else ""
    return f"{status} {reason}".strip()


@asynccontextmanager
async def history() -> AsyncIterator[History]:
    """An installation of its own, with one site."""
    async with database() as owner_url, aiohttp.ClientSession() as http:
        loaded = settings(None, KEYSTEAD_API_URL="http://127.0.0.1:9")
        it = History(owner_url, f"t{uuid.uuid4().hex[:10]}.", http, loaded)
        try:
            await it.start()
            yield it
        finally:
            await it.end_all()
            await forget_streams(nats_url(), it.namespace)
