"""Requests by cookie: a browser sends it along with what other sites make it send, and those may change nothing."""

from fastapi import Request

from shared.errors import Refused

READING = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossSite(Refused):
    reason = "csrf"


def check_same_origin(request: Request, base_url: str) -> None:
    """Raises ``CrossSite`` for a change that did not come from this site itself (§1.2)."""
    if request.method in READING:
        return
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return
    if site is None and request.headers.get("origin") == base_url.rstrip("/"):
        return
    raise CrossSite("a change by cookie must come from this site itself")
