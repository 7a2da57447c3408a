"""Invitations as a service at work, and beside it as much of identity as it hears of: a log that tests write."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient

from keystead.app import Connections
from services.identity.events import CATALOG, UserCreated, UserDeleted, UserLimits, UserUpdated, WantedInvitation
from services.invitations.service import SERVICE
from services.invitations.settings import InvitationsSettings
from shared.event_store import Transaction
from shared.events import Event
from shared.gate import answer_refusals
from shared.permissions import Role
from shared.principal import Principal
from shared.service import Running, Service
from shared.settings import Settings
from tests.support.doors import gated
from tests.support.installation import connections_to, database, keyring

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
IDENTITY = Service("identity", settings=Settings, catalog=CATALOG, routes=[])


@dataclass
class Clock:
    """The instant that everything goes by, until a test sets it."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class World:
    """The two services, and what happens in identity."""

    identity: Running[Settings]
    invitations: Running[InvitationsSettings]
    clock: Clock = field(default_factory=Clock)

    async def create_user(self, *, has_email: bool = True, invitation: WantedInvitation | None = None) -> str:
        """A user of the test's own."""
        user_id = f"ada {uuid.uuid4()}"
        created = UserCreated(
            user_id=user_id,
            sealed_email="sealed" if has_email else None,
            sealed_alias=None,
            role="internal_user",
            limits=UserLimits(),
            metadata={},
            first_key=None,
            created_at=NOON,
            invitation=invitation,
        )
        await self._happened(user_id, created)
        return user_id

    async def take_email(self, user_id: str) -> None:
        updated = UserUpdated(
            user_id=user_id, sealed_email=None, sealed_alias=None, limits=UserLimits(), metadata={}, updated_at=NOON
        )
        await self._happened(user_id, updated)

    async def delete_user(self, user_id: str) -> None:
        await self._happened(user_id, UserDeleted(user_id=user_id, deleted_at=self.clock.now))

    async def heard(self) -> None:
        """Back when invitations has applied all that happened in identity."""
        await self.invitations.fence({"identity"})

    async def _happened(self, user_id: str, event: Event) -> None:
        async def record(tx: Transaction) -> None:
            await tx.record(f"user-{user_id}", event)

        await self.identity.run(record)


@asynccontextmanager
async def world(*, relay_delay_seconds: float = 0.0) -> AsyncIterator[World]:
    """On a database and under names of its own."""
    clock = Clock()
    async with database() as owner_url:
        connections = connections_to(owner_url, f"t{uuid.uuid4().hex[:10]}.", relay_delay_seconds=relay_delay_seconds)
        settings = InvitationsSettings.model_validate({"KEYSTEAD_SECRET_KEY": keyring()})
        async with (
            _running(IDENTITY, Settings(), connections, clock).started() as identity,
            _running(SERVICE, settings, connections, clock).started() as invitations,
        ):
            try:
                yield World(identity, invitations, clock)
            finally:
                for each in (identity, invitations):
                    await each.wire.jetstream.delete_stream(each.wire.stream_of(each.service.name))


@asynccontextmanager
async def client_of(world: World) -> AsyncIterator[AsyncClient]:
    """The routes behind the gate; a credential is the role of who has it."""
    app = FastAPI(openapi_url=None)
    app.state.services = {SERVICE.name: world.invitations}
    answer_refusals(app)
    for router in SERVICE.routes:
        app.include_router(router)
    routes = [route for router in SERVICE.routes for route in router.routes]
    gate = gated(app, routes, _identify)
    async with AsyncClient(transport=ASGITransport(app=gate), base_url="http://keystead.test") as client:
        client.headers["Authorization"] = Role.PROXY_ADMIN
        yield client


async def _identify(request: Request) -> Principal:
    role = Role(request.headers["Authorization"])
    return Principal(user_id=f"the {role}", role=role, credential="session")


def _running(service: Service[Any], settings: Any, connections: Connections, clock: Clock) -> Running[Any]:
    return Running(
        service,
        settings,
        dsn=connections.postgres_urls[service.name],
        nats_url=connections.nats_urls[service.name],
        barrier=_no_workers,
        namespace=connections.namespace,
        relay_delay_seconds=connections.relay_delay_seconds,
        clock=clock,
    )


async def _no_workers(_: Running[Any], __: Mapping[str, int]) -> None:
    return
