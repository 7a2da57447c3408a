"""Routes of sessions: log in, log out, who am I (§3.3)."""

import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.identity import credentials, handlers, read_model, throttle
from services.identity.api.answers import COOKIE, cookie, jwt_of
from services.identity.domain.throttle import source_of
from services.identity.domain.user import DEFAULT_USER_ID
from services.identity.handlers import StartedSession, Visitor
from services.identity.settings import IdentitySettings
from services.identity.throttle import Attempt
from shared import session_token
from shared.answers import Answer, JsonAnswer
from shared.body import StrictRoute
from shared.event_store import Transaction
from shared.permissions import Operation, RoleNotAllowed
from shared.principal import Principal, may, running
from shared.same_origin import check_same_origin
from shared.secret import is_session
from shared.service import Running
from shared.values import Body, Text

router = APIRouter(route_class=StrictRoute, tags=["sessions"])

Identity = Annotated[Running[IdentitySettings], Depends(running("identity"))]
NAME_LENGTH_MAX = 254


class LogInBody(Body):
    username: Text
    password: Text


class LogInAnswer(Answer):
    redirect_url: str
    token: str
    user_id: str
    expires_at: Any


def visitor_of(request: Request) -> Visitor:
    address: str | None = request.scope["keystead.address"]
    source = None if address is None or request.scope["keystead.exempt"] else source_of(address)
    return Visitor(address, request.headers.get("user-agent"), source)


def bearer_of(request: Request) -> str:
    """What ``Authorization`` brings, with the scheme or without; empty if nothing."""
    value = request.headers.get("authorization", "").strip()
    scheme, _, rest = value.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value


@router.post("/v2/login", response_model=LogInAnswer, dependencies=[may(Operation.LOG_IN)])
async def log_in(identity: Identity, request: Request, body: LogInBody) -> Response:
    """Start a session with an e-mail address and a password. Who failed too often is not heard for a while."""
    settings, visitor = identity.settings, visitor_of(request)
    name = body.username.strip().lower()
    attempt = throttle.attempt_of(settings, visitor.source, name)
    if _is_ui_login(settings, body.username):
        session = await _log_in_as_master(identity, attempt, body.password, visitor)
    else:
        session = await _log_in(identity, attempt, name, body.password, visitor)
    token = jwt_of(settings, session)
    answer = LogInAnswer(
        redirect_url=f"{settings.base_url}/ui?login=success",
        token=token,
        user_id=session.user_id,
        expires_at=session.expires_at,
    )
    seconds = int((session.expires_at - identity.clock()).total_seconds())
    return JsonAnswer(answer, headers={"Set-Cookie": cookie(settings, token, max_age_seconds=seconds)})


async def _log_in(
    identity: Running[IdentitySettings], attempt: Attempt | None, email: str, password: str, visitor: Visitor
) -> StartedSession:
    async def look(tx: Transaction) -> tuple[str, str | None]:
        await throttle.check_heard(tx, attempt)
        user = await read_model.find_user_by_email(tx, email) if len(email) <= NAME_LENGTH_MAX else None
        return ("", None) if user is None else (user.user_id, await credentials.find_hash(tx, user.user_id))

    user_id, password_hash = await identity.run(look)

    async def is_right() -> bool:
        # Hashed also for a name that nobody has: the answer takes as long.
        matches: bool = await identity.own.verify(password[: credentials.LENGTH_MAX + 1], password_hash)
        return matches

    if not await throttle.check(identity, attempt, is_right):
        raise handlers.credentials_wrong()
    return await identity.run(handlers.log_in, user_id, password_hash=password_hash, method="password", visitor=visitor)


def _is_ui_login(settings: IdentitySettings, username: str) -> bool:
    return hmac.compare_digest(username.encode(), settings.ui_username.encode())


async def _log_in_as_master(
    identity: Running[IdentitySettings], attempt: Attempt | None, password: str, visitor: Visitor
) -> StartedSession:
    settings = identity.settings
    expected = settings.ui_password or settings.master_key

    async def is_right() -> bool:
        # Hashed for nothing: that this name is taken should be no faster to learn than that another is not.
        await identity.own.verify(password[: credentials.LENGTH_MAX + 1], None)
        return hmac.compare_digest(password.encode(), expected.encode())

    await identity.run(throttle.check_heard, attempt)
    if not await throttle.check(identity, attempt, is_right):
        raise handlers.credentials_wrong()
    return await identity.run(handlers.log_in, DEFAULT_USER_ID, password_hash=None, method="password", visitor=visitor)


@router.get("/logout", dependencies=[may(Operation.LOG_OUT)], status_code=303, response_class=Response)
@router.post("/logout", dependencies=[may(Operation.LOG_OUT)], status_code=303, response_class=Response)
async def log_out(identity: Identity, request: Request) -> Response:
    """End the session that asks, if one does, and lead on."""
    credential = bearer_of(request)
    if not credential and (credential := request.cookies.get(COOKIE, "")):
        check_same_origin(request, identity.settings.base_url)
    session = (
        credential if is_session(credential) else session_token.read_session(identity.settings.keyring, credential)
    )
    if session is not None:
        await identity.run(_end_by_token, session_token.hash_of(session))
    location = identity.settings.logout_url or "/ui/login"
    cleared = cookie(identity.settings, "", max_age_seconds=0)
    return Response(status_code=303, headers={"Location": location, "Set-Cookie": cleared})


async def _end_by_token(tx: Transaction, token: str) -> None:
    session = await read_model.find_session(tx, token)
    if session is not None:
        await handlers.end_session(tx, session.session_id, "logged_out")


@router.post("/session/logout")
async def revoke_session(
    identity: Identity, principal: Annotated[Principal, may(Operation.SESSION_LOG_OUT)]
) -> Response:
    """End the session that asks."""
    if principal.session_id is None:
        raise RoleNotAllowed("only a session can be logged out, and this is none")
    await identity.run(handlers.end_session, principal.session_id, "logged_out")
    cleared = cookie(identity.settings, "", max_age_seconds=0)
    return JsonAnswer({"message": "Session revoked."}, headers={"Set-Cookie": cleared})


@router.get("/.well-known/jwks.json", dependencies=[may(Operation.JWKS)])
async def key_set(identity: Identity) -> Response:
    """The public keys of what is signed here for others: sessions' JWTs, and what ``/keystead/v1/verify`` answers."""
    return JsonAnswer(
        session_token.key_set(identity.settings.keyring), headers={"Cache-Control": "public, max-age=300"}
    )


@router.get("/keystead/v1/me")
async def me(identity: Identity, principal: Annotated[Principal, may(Operation.ME)]) -> Response:
    """Who is calling, with what, and what it may do."""

    async def look(tx: Transaction) -> str | None:
        user = await read_model.find_user(tx, principal.user_id or "")
        return user.email if user is not None else None

    credential: dict[str, Any] = {"kind": principal.credential}
    if principal.credential == "key":
        credential |= {"key_id": principal.key_id, "key_type": principal.key_type}
    if principal.session_id is not None:
        credential["session_id"] = principal.session_id
    if principal.expires_at is not None:
        credential["expires_at"] = principal.expires_at
    return JsonAnswer(
        {
            "user_id": principal.user_id,
            "user_email": await identity.run(look),
            "user_role": principal.role,
            "teams": [],
            "credential": credential,
            "permissions": principal.operations(),
        }
    )
