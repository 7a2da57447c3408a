"""Who has the session, and what their role lets them do: asked of the API for each page."""

from dataclasses import dataclass

from services.portal.client import Api, Visit
from services.portal.trouble import SignedOut


@dataclass(frozen=True, slots=True)
class Me:
    """``permissions`` decide what a page offers; the API decides what is done."""

    user_id: str
    user_email: str | None
    permissions: frozenset[str]

    @property
    def name(self) -> str:
        return self.user_email or self.user_id

    def may(self, operation: str) -> bool:
        return operation in self.permissions


async def get_me(api: Api, visit: Visit) -> Me:
    """Raises ``SignedOut`` where there is no session."""
    if visit.session is None:
        raise SignedOut
    found = await api.get(visit, "/keystead/v1/me")
    return Me(found["user_id"], found["user_email"], frozenset(found["permissions"]))
