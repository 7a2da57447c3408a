"""The principal: who is calling, as the edge found out, and what the permission table lets them reach."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from fastapi import Depends, Request

from shared.errors import Refused
from shared.permissions import NotYours, Operation, Reach, Role, check_key_type, reach_of

CredentialKind = Literal["master_key", "key", "session"]


@dataclass(frozen=True, slots=True)
class Principal:
    """``user_id`` is None for a key without user. ``key_id``, ``key_type``: a key's; ``session_id``: a session's."""

    user_id: str | None
    role: Role | None
    credential: CredentialKind
    key_id: str | None = None
    key_type: str = "default"
    token: str | None = None
    session_id: str | None = None
    expires_at: datetime | None = None

    @property
    def actor(self) -> str:
        """Who events name as the one who did it."""
        return self.user_id or f"key:{self.key_id}"

    def check(self, operation: Operation) -> None:
        """Raises a ``Refused`` where neither role nor key type allows ``operation``, whatever the object."""
        if self.credential == "key":
            check_key_type(operation, self.key_type)
        reach_of(operation, self.role)

    def reaches_all(self, operation: Operation) -> bool:
        """Whether the cell says ``any``."""
        return reach_of(operation, self.role) is Reach.ANY

    def require(self, operation: Operation, *, owner_id: str | None) -> None:
        """Raises ``NotYours`` unless the cell reaches an object of ``owner_id``'s."""
        if self.reaches_all(operation):
            return
        if owner_id is None or owner_id != self.user_id:
            raise NotYours("it is not yours, or does not exist")

    def operations(self) -> list[Operation]:
        """All that this principal may do to some object at least."""
        return [operation for operation in Operation if self._may(operation)]

    def _may(self, operation: Operation) -> bool:
        try:
            self.check(operation)
        except Refused:
            return False
        return True


def may(operation: Operation) -> Any:
    """How a route names its operation, and gets the principal that the gate let through.

    ``principal: Annotated[Principal, may(Operation.KEY_DELETE)]``; a route that names none does not start.
    """
    return Depends(Permitted(operation))


class Permitted:
    """Gives a route its principal; the gate reads ``operation`` off it."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    async def __call__(self, request: Request) -> Principal | None:  # not async, it would cost a thread a request
        principal: Principal | None = request.scope.get("keystead.principal")
        return principal


def operation_of(dependencies: list[Any]) -> Operation | None:
    """The operation that a route's dependencies name, if they do."""
    for dependency in dependencies:
        if isinstance(dependency.call, Permitted):
            return dependency.call.operation
    return None


def running(name: str) -> Callable[[Request], Awaitable[Any]]:
    """The dependency by which a route reaches its own service, running in this process."""

    async def find(request: Request) -> Any:
        return request.app.state.services[name]

    return find
