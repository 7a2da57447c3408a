"""Templates and what they link to; a page is rendered with its status, and nothing of it is ever stored."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from services.portal import wording

FOLDER = Path(__file__).parent
MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
STATIC = "/ui/static/"


class Asset(NamedTuple):
    """A static file; its name holds the hash of its content, so it may be kept for ever."""

    name: str
    content: bytes
    media_type: str


class Renderer:
    """Templates with everything escaped and nothing undefined; assets by the name that they are served by."""

    def __init__(self) -> None:
        found = {path.name: _asset(path) for path in sorted((FOLDER / "static").iterdir())}
        self.assets: Mapping[str, Asset] = {asset.name: asset for asset in found.values()}
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals["asset"] = {name: STATIC + asset.name for name, asset in found.items()}
        self._templates.filters |= {"usd": wording.usd, "moment": wording.moment, "window": wording.window}

    def page(self, template: str, status: int = 200, **facts: Any) -> HTMLResponse:
        """``facts`` are the template's; ``me`` is who has a session, if that is known."""
        text = self._templates.get_template(template).render({"me": None, "notice": "", **facts})
        return HTMLResponse(text, status)


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Asset(f"{path.stem}.{digest}{path.suffix}", content, MEDIA_TYPES[path.suffix])
