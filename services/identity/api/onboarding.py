"""Routes of onboarding: an invitation's link becomes a password and a session (§3.5, §5.5)."""

import hashlib
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.identity import credentials, handlers, read_model, tokens
from services.identity.api.answers import User, cookie, jwt_of, user_answer
from services.identity.api.sessions import bearer_of, visitor_of
from services.identity.settings import IdentitySettings
from services.invitations.requests import AcceptedInvitation, AcceptInvitation, CheckInvitation, OpenInvitation
from shared.answers import Answer, JsonAnswer
from shared.body import StrictRoute
from shared.errors import Refused
from shared.event_store import Transaction
from shared.permissions import Operation
from shared.principal import may, running
from shared.service import Running
from shared.values import Body, Id, Text
from shared.values import Query as QueryModel


class LinkRoute(StrictRoute):
    """The gate knows nothing of an invitation's credential: where there is none, no body is looked at (§1.4)."""

    async def _read(self, request: Request) -> Request:
        if request.method == "POST" and not bearer_of(request):
            raise Refused("the onboarding credential is missing", reason="credentials_missing")
        return await super()._read(request)


router = APIRouter(route_class=LinkRoute, tags=["onboarding"])

Identity = Annotated[Running[IdentitySettings], Depends(running("identity"))]


class InvitationUnknown(Refused):
    reason = "invitation_unknown"


class InviteLinkQuery(QueryModel):
    invite_link: Id


class OnboardingAnswer(Answer):
    login_url: str
    token: str
    user_email: str | None


class ClaimBody(Body):
    invitation_link: Id
    user_id: Id
    password: Text


class ClaimedAnswer(OnboardingAnswer):
    user: User


def hash_of_link(link: str) -> str:
    """The SHA-256 by which an invitation's link is known; a UUID in any case is the same link."""
    return hashlib.sha256(link.strip().lower().encode()).hexdigest()


@router.get("/onboarding/get_token", response_model=OnboardingAnswer, dependencies=[may(Operation.ONBOARDING)])
async def get_token(identity: Identity, query: Annotated[InviteLinkQuery, Query()]) -> Response:
    """Open an invitation's link. Changes nothing: mail scanners follow links."""
    settings = identity.settings
    id_hash = hash_of_link(query.invite_link)
    invitation = await identity.wire.ask("invitations", CheckInvitation(id_hash=id_hash), OpenInvitation)

    async def look(tx: Transaction) -> tuple[str | None, str]:
        user = await read_model.find_user(tx, invitation.user_id)
        if user is None:
            raise InvitationUnknown("the invitation is not known, or was revoked")
        return user.email, user.role

    email, role = await identity.run(look)
    token = tokens.onboarding_jwt(
        settings.keyring, user_id=invitation.user_id, email=email, role=role, id_hash=id_hash, now=identity.clock()
    )
    url = f"{settings.base_url}/ui/onboarding?token={token}"
    return JsonAnswer(OnboardingAnswer(login_url=url, token=token, user_email=email))


@router.post(
    "/onboarding/claim_token",
    response_model=ClaimedAnswer,
    dependencies=[may(Operation.ONBOARDING)],
    openapi_extra={"security": [{"bearer": []}]},  # the link's own, which the gate knows nothing of
)
async def claim_token(identity: Identity, request: Request, body: ClaimBody) -> Response:
    """Set the password and log in. One of many at once wins; a refused password leaves the invitation open."""
    settings = identity.settings
    id_hash = hash_of_link(body.invitation_link)
    _check_credential(request, settings, body, id_hash, identity)
    # Before the password is looked at, so that nobody sets one by a link that is dead.
    await identity.wire.ask("invitations", CheckInvitation(id_hash=id_hash), OpenInvitation)
    await identity.run(_check_password, body)
    password_hash = await identity.own.hash(body.password)
    claim_id = str(uuid.uuid4())
    await identity.run(credentials.keep_pending, claim_id, body.user_id, password_hash)
    accepted = await identity.wire.ask(
        "invitations", AcceptInvitation(id_hash=id_hash, user_id=body.user_id, claim_id=claim_id), AcceptedInvitation
    )
    session = await identity.run(
        handlers.claim,
        claim_id=claim_id,
        user_id=body.user_id,
        accepted_position=accepted.position,
        visitor=visitor_of(request),
    )
    user = await identity.run(_user_answer, settings, session.user_id)
    token = jwt_of(settings, session)
    seconds = int((session.expires_at - identity.clock()).total_seconds())
    answer = ClaimedAnswer(
        login_url=f"{settings.base_url}/ui?login=success", token=token, user_email=session.email, user=user
    )
    return JsonAnswer(answer, headers={"Set-Cookie": cookie(settings, token, max_age_seconds=seconds)})


def _check_credential(
    request: Request, settings: IdentitySettings, body: ClaimBody, id_hash: str, identity: Running[IdentitySettings]
) -> None:
    claimed = tokens.read_onboarding(settings.keyring, bearer_of(request), identity.clock())
    if claimed != (body.user_id, id_hash):
        raise InvitationUnknown("the credential is not for this invitation, or is no longer")


async def _check_password(tx: Transaction, body: ClaimBody) -> None:
    user = await read_model.find_user(tx, body.user_id)
    if user is None:
        raise InvitationUnknown("the invitation is not known, or was revoked")
    settings: IdentitySettings = tx.settings
    credentials.check_policy(body.password, email=user.email, length_min=settings.password_length_min)


async def _user_answer(tx: Transaction, settings: IdentitySettings, user_id: str) -> User:
    row = await read_model.find_user(tx, user_id)
    if row is None:
        raise InvitationUnknown("the user was deleted meanwhile")
    return user_answer(row, settings, tx.now)
