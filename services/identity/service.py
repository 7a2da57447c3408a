"""Identity: who there is, what role they have, and how they prove it.

It owns users, roles, credentials, sessions and the keys that seal personal data; it tells of them; it hears accepted
invitations and spend.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.identity import api, credentials, handlers, jobs, read_model, subscriptions
from services.identity.events import CATALOG
from services.identity.requests import FindSession, FindUser, OpenEmails
from services.identity.settings import IdentitySettings
from shared.service import Running, Service


@asynccontextmanager
async def _lifespan(running: Running[Any]) -> AsyncIterator[credentials.Hashing]:
    await running.run(handlers.ensure_default_user)
    async with credentials.hashing() as hashing:
        yield hashing


SERVICE = Service(
    name="identity",
    settings=IdentitySettings,
    catalog=CATALOG,
    routes=api.ROUTERS,
    metadata=read_model.METADATA,
    projections=(read_model.USERS, read_model.SESSIONS, read_model.SPEND),
    subscriptions=subscriptions.SUBSCRIPTIONS,
    answers={
        FindUser: subscriptions.find_user,
        FindSession: subscriptions.find_session,
        OpenEmails: subscriptions.open_emails,
    },
    jobs=jobs.JOBS,
    migrations=(Path(__file__).parent / "migrations",),
    lifespan=_lifespan,
)
