"""The routes of notifications (contract §3.9): what became of mails, and what one says."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.notifications import handlers, read_model
from services.notifications.content import Needless, open_content
from services.notifications.events import Kind
from services.notifications.handlers import NotificationNotFound
from services.notifications.read_model import WITHDRAWN, NotificationRow, Status
from services.notifications.settings import NotificationsSettings
from shared import pages
from shared.answers import Answer, JsonAnswer
from shared.body import StrictRoute
from shared.permissions import Operation
from shared.principal import may, running
from shared.service import Running
from shared.values import Id

router = APIRouter(route_class=StrictRoute, tags=["notifications"])

Notifications = Annotated[Running[NotificationsSettings], Depends(running("notifications"))]

LIST = "notifications"


class NotificationsQuery(pages.PageQuery):
    user_id: Id | None = None
    status: Status | None = None


class Notification(Answer):
    """What became of a mail; its address and its text are nobody's who only looks."""

    id: str
    kind: Kind
    user_id: str
    status: Status
    attempts: int
    error: str | None
    at: datetime

    @classmethod
    def of(cls, row: NotificationRow) -> Self:
        facts: dict[str, Any] = asdict(row)
        return cls(**{name: facts[name] for name in cls.model_fields})


class NotificationContent(Answer):
    """A mail as it would be sent now, its link included."""

    id: str
    kind: Kind
    user_id: str
    to: str
    subject: str
    link: str
    expires_at: datetime
    text: str
    html: str


@router.get(
    "/keystead/v1/notifications",
    response_model=pages.Page[Notification],
    dependencies=[may(Operation.NOTIFICATION_LIST)],
)
async def list_notifications(
    request: Request, notifications: Notifications, query: Annotated[NotificationsQuery, Query()]
) -> Response:
    """All mails and what became of them, the newest first."""
    keyring = notifications.settings.keyring

    def cursor_of(row: NotificationRow) -> str:
        return pages.make_place(keyring, LIST, row.queued_at, row.id)

    after = pages.read_place(keyring, LIST, query.after)
    await notifications.fence({"invitations", "identity"})  # which mails are wanted is theirs to say
    rows = await notifications.run(
        read_model.list_notifications, status=query.status, user_id=query.user_id, after=after, limit=query.limit + 1
    )
    rows, cursor = pages.cut(rows, query.limit, cursor_of)
    page = pages.Page(data=[Notification.of(row) for row in rows], next=cursor)
    return JsonAnswer(page, headers=pages.link_to_next(request, cursor))


@router.get(
    "/keystead/v1/notifications/{id}/content",
    response_model=NotificationContent,
    dependencies=[may(Operation.NOTIFICATION_CONTENT)],
)
async def get_content(notifications: Notifications, id: Id) -> Response:  # noqa: A002 - the path's name
    """The mail, rendered anew: for who has no mail server, and copies the link by hand."""
    await notifications.fence({"invitations"})
    row = await notifications.run(handlers.get_notification, id)
    try:
        content = await open_content(notifications, row)
    except Needless as needless:
        raise NotificationNotFound(f"id: there is nothing to read, {WITHDRAWN[needless.reason]}", param="id") from None
    answer = NotificationContent(id=row.id, kind=row.kind, user_id=row.user_id, **asdict(content))
    return JsonAnswer(answer)
