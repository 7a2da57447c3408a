"""Routes of sessions as others than themselves see them: listed and ended (§3.3)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Row
from starlette.responses import Response

from services.identity import handlers, read_model, sealing
from services.identity.domain.session import Ending, Method
from services.identity.domain.session import stream_of as session_stream
from services.identity.domain.user import UserUnknown
from services.identity.settings import IdentitySettings
from shared import pages, values
from shared.answers import Answer, JsonAnswer
from shared.body import StrictRoute
from shared.errors import Refused
from shared.event_store import Transaction
from shared.permissions import Operation
from shared.principal import Principal, may, running
from shared.service import Running
from shared.values import Id

router = APIRouter(route_class=StrictRoute, tags=["sessions"])

Identity = Annotated[Running[IdentitySettings], Depends(running("identity"))]
LIST = "sessions"  # what its cursors are for


class SessionUnknown(Refused):
    reason = "not_found"


class SessionsQuery(pages.PageQuery):
    user_id: Id | None = None


class UserSessionsQuery(values.Query):
    user_id: Id


class ListedSession(Answer):
    """A session without what it is used by. ``current``: the one that asks."""

    session_id: str
    user_id: str
    method: Method
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ip: str | None
    user_agent: str | None
    current: bool


@router.get("/keystead/v1/sessions", response_model=pages.Page[ListedSession])
async def list_sessions(
    request: Request,
    identity: Identity,
    principal: Annotated[Principal, may(Operation.SESSION_LIST)],
    query: Annotated[SessionsQuery, Query()],
) -> Response:
    """The sessions that go on, the newest first: one user's, or all that the caller may see."""
    keyring = identity.settings.keyring
    of_whom = query.user_id
    if of_whom is not None or not principal.reaches_all(Operation.SESSION_LIST):
        of_whom = of_whom or principal.user_id
        principal.require(Operation.SESSION_LIST, owner_id=of_whom)
    after = pages.read_place(keyring, LIST, query.after)

    async def look(tx: Transaction) -> tuple[list[ListedSession], str | None]:
        if of_whom is not None:
            await _check_user(tx, of_whom)
        rows = await read_model.list_sessions(
            tx,
            idle_since=handlers.idle_since(tx.settings, tx.now),
            user_id=of_whom,
            after=after,
            limit=query.limit + 1,
        )
        rows, cursor = pages.cut(
            rows,
            query.limit,
            lambda row: pages.make_place(keyring, LIST, row.started_at, row.session_id),
        )
        return await _opened(tx, rows, principal), cursor

    listed, cursor = await identity.run(look)
    page = pages.Page(data=listed, next=cursor)
    return JsonAnswer(page, headers=pages.link_to_next(request, cursor))


async def _opened(tx: Transaction, rows: Sequence[Row[Any]], principal: Principal) -> list[ListedSession]:
    keys = await sealing.find_keys(tx, tx.settings.keyring, {row.user_id for row in rows})
    return [
        ListedSession(
            session_id=row.session_id,
            user_id=row.user_id,
            method=row.method,
            created_at=row.started_at,
            last_seen_at=row.last_seen_at,
            expires_at=row.expires_at,
            ip=sealing.unseal(keys.get(row.user_id), row.sealed_ip, "ip"),
            user_agent=sealing.unseal(keys.get(row.user_id), row.sealed_user_agent, "user_agent"),
            current=row.session_id == principal.session_id,
        )
        for row in rows
    ]


@router.delete("/keystead/v1/sessions/{session_id}", status_code=204)
async def end_session(
    identity: Identity, principal: Annotated[Principal, may(Operation.SESSION_END)], session_id: Id
) -> Response:
    """End a session; it may be the one that asks. When this is answered it opens nothing any more."""

    async def end(tx: Transaction) -> None:
        session = await read_model.find_session_by_id(tx, session_id)
        principal.require(Operation.SESSION_END, owner_id=session.user_id if session is not None else None)
        # Also if it ended before: who is told so may rely on it.
        tx.barriers.add(session_stream(session_id))
        if session is None or session.ended:
            principal.require(Operation.SESSION_END, owner_id=None)
            raise SessionUnknown("there is no such session")
        await handlers.end_session(tx, session_id, _ending(principal, session.user_id))

    await identity.run(end)
    return Response(status_code=204)


@router.delete("/keystead/v1/sessions", status_code=204)
async def end_sessions(
    identity: Identity,
    principal: Annotated[Principal, may(Operation.SESSION_END)],
    query: Annotated[UserSessionsQuery, Query()],
) -> Response:
    """End all sessions of a user, the one that asks too if it is one of them."""
    principal.require(Operation.SESSION_END, owner_id=query.user_id)

    async def end(tx: Transaction) -> None:
        await _check_user(tx, query.user_id)
        await handlers.end_sessions(tx, query.user_id, _ending(principal, query.user_id))

    await identity.run(end)
    return Response(status_code=204)


def _ending(principal: Principal, user_id: str) -> Ending:
    return "logged_out" if principal.user_id == user_id else "ended_by_admin"


async def _check_user(tx: Transaction, user_id: str) -> None:
    if await read_model.find_user(tx, user_id) is None:
        raise UserUnknown("user_id: there is no such user", param="user_id")
