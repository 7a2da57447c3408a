"""A page: its headers, where its forms may come from, and what is said where it can't be shown."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

from fastapi import Depends, Request
from starlette.responses import RedirectResponse, Response

from services.portal import wording
from services.portal.client import Declined
from services.portal.portal import Portal
from services.portal.settings import PortalSettings
from services.portal.trouble import SignedOut, Trouble, unreachable
from shared.body import StrictRoute
from shared.errors import Refused
from shared.principal import running
from shared.same_origin import READING, check_same_origin
from shared.service import Running

LOG_IN = "/ui/login"
SERVICE_NAME = "portal"
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; form-action {form_targets};"
    " base-uri 'none'; frame-ancestors 'none'"
)

OwnRunning = Annotated[Running[PortalSettings], Depends(running(SERVICE_NAME))]


async def _own(portal: OwnRunning) -> Portal:
    own: Portal = portal.own
    return own


Own = Annotated[Portal, Depends(_own)]


class PageRoute(StrictRoute):
    """Whatever goes wrong is said by a page. Links that others have added something to still lead here."""

    open_query: ClassVar[bool] = True

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            portal: Running[PortalSettings] = request.app.state.services[SERVICE_NAME]
            try:
                check_same_origin(request, portal.settings.base_url)
                answer = await handle(request)
            except SignedOut:
                answer = to_log_in(request)
            except Declined as declined:
                answer = _say(portal.own, declined.as_trouble())
            except Trouble as trouble:
                answer = _say(portal.own, trouble)
            except Refused as refused:
                answer = _say(portal.own, _trouble_of(refused))
            answer.headers.update(_headers(portal.settings))
            answer.headers.setdefault("Cache-Control", "no-store")
            return answer

        return page


def _headers(settings: PortalSettings) -> dict[str, str]:
    return {
        "Content-Security-Policy": POLICY.format(form_targets=settings.form_targets),
        "Referrer-Policy": "no-referrer",  # an invitation's secret is in an address
        "X-Content-Type-Options": "nosniff",
    }


def see_other(location: str) -> Response:
    return RedirectResponse(location, status_code=303)


def to_log_in(request: Request) -> Response:
    """Log in, and come back to where a link led; a form that was sent is not sent again."""
    if request.method not in READING or request.url.path == "/ui":
        return see_other(LOG_IN)
    return see_other(f"{LOG_IN}?return_to={quote(request.url.path, safe='/')}")


def _say(portal: Portal, trouble: Trouble) -> Response:
    answer = portal.renderer.page("trouble.html", trouble.status, trouble=trouble)
    if trouble.retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(trouble.retry_after_seconds)
    return answer


def _trouble_of(refused: Refused) -> Trouble:
    match refused.code:
        case "csrf":
            return Trouble(
                403,
                "That did not come from here",
                "Another site may have sent it, so nothing was done. Open the page here and use its own form.",
            )
        case "unavailable":
            return unreachable()
        case _:
            return Trouble(refused.status, "That can't be read", wording.sentence(refused.message))
