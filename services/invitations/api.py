"""The routes of invitations (contract §3.5); those under /onboarding are identity's, which asks us."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.invitations import handlers, read_model
from services.invitations.handlers import Link
from services.invitations.read_model import InvitationRow, Status
from services.invitations.settings import InvitationsSettings
from shared import pages, values
from shared.answers import Answer, JsonAnswer
from shared.body import StrictRoute
from shared.durations import DurationText
from shared.idempotency import Idempotent
from shared.permissions import Operation
from shared.principal import may, running
from shared.service import Running
from shared.values import Body, Id

router = APIRouter(route_class=StrictRoute, tags=["invitations"])

Invitations = Annotated[Running[InvitationsSettings], Depends(running("invitations"))]

# Who reads a list may not be who may let somebody in, so no list has an id, and its cursors are for it alone.
LIST = "invitations"


class NewInvitationBody(Body):
    user_id: Id
    duration: DurationText | None = None
    send_email: bool | None = None


class InvitationQuery(values.Query):
    invitation_id: Id


class UpdateInvitationBody(Body):
    invitation_id: Id
    is_accepted: bool


class DeleteInvitationBody(Body):
    invitation_id: Id


class ResendInvitationBody(Body):
    send_email: bool | None = None


class InvitationsQuery(pages.PageQuery):
    status: Status | None = None
    user_id: Id | None = None


class ListedInvitation(Answer):
    """An invitation without what opens it."""

    ref: str
    user_id: str
    status: Status
    is_accepted: bool
    accepted_at: datetime | None
    expires_at: datetime
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    email_sent: bool

    @classmethod
    def of(cls, row: InvitationRow, **more: Any) -> Self:
        facts = asdict(row) | more
        del facts["generation"]
        return cls(is_accepted=row.status == "accepted", **facts)


class Invitation(ListedInvitation):
    """``id`` is the link's secret in the answer that made it; in any other it is what was asked by."""

    id: str


@router.post(
    "/invitation/new",
    response_model=Invitation,
    dependencies=[may(Operation.INVITATION_NEW)],
    openapi_extra=Idempotent("invitations"),
)
async def create_invitation(invitations: Invitations, body: NewInvitationBody) -> Response:
    """Invite a user to set a password. The link is `<base>/ui/onboarding?id=<id>`."""
    link = await invitations.run(
        handlers.create_invitation, user_id=body.user_id, duration=body.duration, send_email=body.send_email
    )
    return _linked(link)


@router.get("/invitation/info", response_model=Invitation, dependencies=[may(Operation.INVITATION_INFO)])
async def get_invitation(invitations: Invitations, query: Annotated[InvitationQuery, Query()]) -> Response:
    """One invitation, by its `id` or its `ref`."""
    row = await invitations.run(handlers.get_invitation, query.invitation_id)
    return _echoed(query.invitation_id, row)


@router.post("/invitation/update", response_model=Invitation, dependencies=[may(Operation.INVITATION_UPDATE)])
async def update_invitation(invitations: Invitations, body: UpdateInvitationBody) -> Response:
    """Nothing can be updated: only the invited can accept."""
    row = await invitations.run(
        handlers.update_invitation, invitation_id=body.invitation_id, is_accepted=body.is_accepted
    )
    return _echoed(body.invitation_id, row)


@router.post("/invitation/delete", response_model=Invitation, dependencies=[may(Operation.INVITATION_DELETE)])
async def delete_invitation(invitations: Invitations, body: DeleteInvitationBody) -> Response:
    """Take an open invitation back."""
    row = await invitations.run(handlers.delete_invitation, invitation_id=body.invitation_id)
    return _echoed(body.invitation_id, row)


@router.get(
    "/keystead/v1/invitations",
    response_model=pages.Page[ListedInvitation],
    dependencies=[may(Operation.INVITATION_LIST)],
)
async def list_invitations(
    request: Request, invitations: Invitations, query: Annotated[InvitationsQuery, Query()]
) -> Response:
    """All invitations, the newest first."""
    keyring = invitations.settings.keyring

    def cursor_of(row: InvitationRow) -> str:
        return pages.make_place(keyring, LIST, row.created_at, row.ref)

    after = pages.read_place(keyring, LIST, query.after)
    rows = await invitations.run(
        read_model.list_invitations, status=query.status, user_id=query.user_id, after=after, limit=query.limit + 1
    )
    rows, cursor = pages.cut(rows, query.limit, cursor_of)
    page = pages.Page(data=[ListedInvitation.of(row) for row in rows], next=cursor)
    return JsonAnswer(page, headers=pages.link_to_next(request, cursor))


@router.post(
    "/keystead/v1/invitations/{ref}/resend",
    response_model=Invitation,
    dependencies=[may(Operation.INVITATION_RESEND)],
    openapi_extra=Idempotent("invitations"),
)
async def resend_invitation(invitations: Invitations, ref: Id, body: ResendInvitationBody | None = None) -> Response:
    """Make a new link, good for a full term; the old one is dead."""
    send_email = body.send_email if body is not None else None
    return _linked(await invitations.run(handlers.resend_invitation, ref=ref, send_email=send_email))


def _linked(link: Link) -> Response:
    return _echoed(link.id, link.invitation)


def _echoed(given: str, row: InvitationRow) -> Response:
    return JsonAnswer(Invitation.of(row, id=given))
