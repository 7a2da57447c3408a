"""Styles and icons, and the page for addresses that lead nowhere."""

from fastapi import APIRouter
from starlette.responses import Response

from services.portal.pages.route import Own, PageRoute, see_other
from services.portal.trouble import not_there
from shared.permissions import Operation
from shared.principal import may

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/ui/static/{name}", dependencies=[may(Operation.PORTAL)])
async def static(own: Own, name: str) -> Response:
    """A name holds its content's hash: what it names never changes."""
    asset = own.renderer.assets.get(name)
    if asset is None:
        raise not_there()
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@router.get("/ui/{path:path}", dependencies=[may(Operation.PORTAL)])
async def nothing(path: str) -> Response:
    """Where a form was answered, and where an address was typed with one stroke too many, my keys are."""
    if path in ("", "keys"):
        return see_other("/ui")
    raise not_there()
