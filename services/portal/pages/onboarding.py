"""The invited person's first page: an invitation's link, and the password that it lets them set (§3.5, §5.5)."""

import base64
import binascii
import json
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.portal import wording
from services.portal.client import Declined, Visit, visit_of
from services.portal.forms import read_form
from services.portal.pages.route import Own, OwnRunning, PageRoute, see_other
from services.portal.portal import Portal
from services.portal.trouble import unreachable
from shared.permissions import Operation
from shared.principal import may

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ID_LENGTH_MAX = 255
FIELDS = ("id", "username", "password", "password_again")
MISMATCH = "The two are not the same."
STATES = ("invitation_used", "invitation_expired", "invitation_unknown")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Opened(NamedTuple):
    """An open invitation: for whom it is, and what claims it."""

    user_id: str
    user_email: str
    claim: str


@router.get("/ui/onboarding", dependencies=[may(Operation.PORTAL)])
async def onboarding_page(running: OwnRunning, own: Own, request: Request) -> Response:
    """200 for any id: it is the page that says what has become of it."""
    link = _id_in(request.query_params.get("id", ""))
    if not link:
        # `?token=` is what the API hands out to clients; the id, without which nothing is claimed, is not in it.
        return own.renderer.page("onboarding_link.html", asked=bool(request.query_params.get("token")))
    try:
        opened = await _open(own, visit_of(request), link)
    except Declined as declined:
        return _state(own, declined)
    return _form(own, 200, link, opened, running.settings.password_length_min)


@router.post("/ui/onboarding", dependencies=[may(Operation.PORTAL)])
async def claim(running: OwnRunning, own: Own, request: Request) -> Response:
    """Set the password; that logs in, too."""
    form = await read_form(request, FIELDS)
    link, visit, length_min = _id_in(form.text("id")), visit_of(request), running.settings.password_length_min
    try:
        opened = await _open(own, visit, link)
        if form.text("password") != form.text("password_again"):
            return _form(own, 400, link, opened, length_min, again_fault=MISMATCH)
        body = {"invitation_link": link, "user_id": opened.user_id, "password": form.text("password")}
        reply = await own.api.post(visit, "/onboarding/claim_token", body, bearer=opened.claim)
    except Declined as declined:
        if declined.param == "password":
            return _form(own, 400, link, opened, length_min, fault=_about_password(declined.message))
        return _state(own, declined)
    answer = see_other("/ui?login=success")
    for cookie in reply.cookies:
        answer.headers.append("Set-Cookie", cookie)
    return answer


async def _open(own: Portal, visit: Visit, link: str) -> Opened:
    opened = await own.api.get(visit, "/onboarding/get_token", invite_link=link)
    claims = _claims(opened["token"])
    return Opened(claims["user_id"], opened["user_email"] or "", claims["key"])


def _claims(token: str) -> dict[str, Any]:
    """What a JWT says, unverified, as any client reads it: whether it is good is the API's to say."""
    payload = token.split(".")[1]
    try:
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError) as fault:
        raise unreachable() from fault
    return claims


def _form(
    own: Portal,
    status: int,
    link: str,
    opened: Opened,
    length_min: int,
    *,
    fault: str = "",
    again_fault: str = "",
) -> Response:
    return own.renderer.page(
        "onboarding.html",
        status,
        id=link,
        email=opened.user_email,
        length_min=length_min,
        fault=fault,
        again_fault=again_fault,
    )


def _state(own: Portal, declined: Declined) -> Response:
    """A link that opens nothing: it was used, is too old, or never was one."""
    if declined.reason in STATES:
        return own.renderer.page("onboarding_over.html", state=declined.reason)
    if declined.status == 400:
        return own.renderer.page("onboarding_over.html", state="invitation_unknown")
    raise declined


def _id_in(text: str) -> str:
    """The id, also out of the whole link; empty if it can't be one."""
    pasted = text.strip()
    if "id=" in pasted:
        query = pasted.partition("?")[2].partition("#")[0]  # urlsplit refuses some texts, and anything may be pasted
        pasted = parse_qs(query).get("id", [""])[0].strip()
    return "" if len(pasted) > ID_LENGTH_MAX or _CONTROL.search(pasted) else pasted


def _about_password(message: str) -> str:
    return wording.sentence(message.removeprefix("password ").removeprefix("password: "))
