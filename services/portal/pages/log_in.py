"""Logging in: the form, and what it leads to (§3.3)."""

import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.portal import wording
from services.portal.client import Declined, visit_of
from services.portal.forms import Form, read_form
from services.portal.pages.route import Own, PageRoute, see_other
from services.portal.portal import Portal
from shared.permissions import Operation
from shared.principal import may

router = APIRouter(route_class=PageRoute, include_in_schema=False)

HOME = "/ui"
FIELDS = ("username", "password", "return_to")
# A path of these pages, and nothing that a browser could read as another site's.
OWN_PATH = re.compile(r"/ui(?:/[A-Za-z0-9_-]+)*")
WRONG = "The user name or the password is wrong."


@router.get("/", dependencies=[may(Operation.PORTAL)])
async def front(_: Request) -> Response:
    return see_other(HOME)


@router.get("/ui/login", dependencies=[may(Operation.PORTAL)])
async def log_in_page(own: Own, request: Request) -> Response:
    form = Form({"return_to": request.query_params.get("return_to", "")}, {})
    return _page(own, 200, form, fault="")


@router.post("/login", dependencies=[may(Operation.LOG_IN)])
async def log_in(own: Own, request: Request) -> Response:
    """Start a session, whose cookie the API sets."""
    form = await read_form(request, FIELDS)
    body = {"username": form.text("username"), "password": form.text("password")}
    try:
        reply = await own.api.post(visit_of(request), "/v2/login", body)
    except Declined as declined:
        return _refused(own, form, declined)
    answer = see_other(_way_back(form.text("return_to")) or f"{HOME}?login=success")
    for cookie in reply.cookies:
        answer.headers.append("Set-Cookie", cookie)
    return answer


def _refused(own: Portal, form: Form, declined: Declined) -> Response:
    match declined.reason:
        case "login_throttled":
            wait = wording.wait(declined.retry_after_seconds)
            answer = _page(own, 429, form, fault=f"Too many log-ins have failed. Try again in {wait}.")
            answer.headers["Retry-After"] = str(declined.retry_after_seconds)
            return answer
        case "password_login_disabled":
            return _page(own, 403, form, fault="Here one logs in by single sign-on, not with a password.")
        case _:
            return _page(own, 401, form, fault=WRONG)


def _page(own: Portal, status: int, form: Form, *, fault: str) -> Response:
    return own.renderer.page(
        "log_in.html",
        status,
        username=form.text("username"),
        return_to=_way_back(form.text("return_to")),
        fault=fault,
    )


def _way_back(path: str) -> str:
    """The page of ours that the visitor wanted; empty for anything else."""
    return path if OWN_PATH.fullmatch(path) else ""
