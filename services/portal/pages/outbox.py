"""The outbox, for admins: what was mailed or waits to be, and what a mail says (§3.9)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.portal import wording
from services.portal.client import Declined, Visit, visit_of
from services.portal.pages.me import Me, get_me
from services.portal.pages.route import Own, PageRoute
from services.portal.portal import Portal
from services.portal.trouble import Trouble, not_allowed, not_there
from shared.permissions import Operation
from shared.principal import may

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PAGE_SIZE = 50
CURSOR_LENGTH_MAX = 1000
QUERY_LENGTH_MAX = 4000  # proxies take addresses of 8,192; the longest id takes 3,060
LIST, CONTENT = "notification:list", "notification:content"


@router.get("/ui/outbox", dependencies=[may(Operation.PORTAL)])
async def outbox(own: Own, request: Request) -> Response:
    """Who may see the list sees it; what a mail says is a question of its own."""
    visit = visit_of(request)
    me = await _admitted(own, visit, LIST)
    after = request.query_params.get("after", "")[:CURSOR_LENGTH_MAX]
    query = {"limit": PAGE_SIZE, **({"after": after} if after else {})}
    listed = await own.api.get(visit, "/keystead/v1/notifications", **query)
    emails = await _emails(own, visit, {each["user_id"] for each in listed["data"]})
    return own.renderer.page("outbox.html", me=me, listed=listed, emails=emails, first=not after)


@router.get("/ui/outbox/{notification_id}", dependencies=[may(Operation.PORTAL)])
async def mail(own: Own, request: Request, notification_id: str) -> Response:
    visit = visit_of(request)
    me = await _admitted(own, visit, CONTENT)
    if not notification_id.strip("."):
        raise not_there()
    path = f"/keystead/v1/notifications/{quote(notification_id, safe='')}/content"
    try:
        content = await own.api.get(visit, path)
    except Declined as declined:
        if declined.status != 404:
            raise
        why = wording.sentence(declined.message.removeprefix("id: "))
        raise Trouble(404, "There is nothing to read", why) from None
    return own.renderer.page("outbox_mail.html", me=me, mail=content)


async def _admitted(own: Portal, visit: Visit, operation: str) -> Me:
    me = await get_me(own.api, visit)
    if not me.may(operation):
        raise not_allowed()
    return me


async def _emails(own: Portal, visit: Visit, user_ids: set[str]) -> Mapping[str, str]:
    """Of those who still have one."""
    emails: dict[str, str] = {}
    for some in _in_short_queries(sorted(user_ids)):
        query = {"user_ids": ",".join(some), "page_size": PAGE_SIZE}
        found: dict[str, Any] = await own.api.get(visit, "/user/list", **query)
        emails |= {user["user_id"]: user["user_email"] for user in found["users"] if user["user_email"]}
    return emails


def _in_short_queries(user_ids: Iterable[str]) -> Iterator[list[str]]:
    """A whole page of made ids in one; those that somebody chose may be longer than an address may be."""
    some: list[str] = []
    left = QUERY_LENGTH_MAX
    for user_id in user_ids:
        length = len(quote(user_id)) + len("%2C")
        if some and length > left:
            yield some
            some, left = [], QUERY_LENGTH_MAX
        some.append(user_id)
        left -= length
    if some:
        yield some
