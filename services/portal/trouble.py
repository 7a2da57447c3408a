"""What a page says instead when something is in the way."""


class Trouble(Exception):
    """Answered as a page with this status, title and sentence; ``retry_after_seconds`` where it will pass."""

    def __init__(self, status: int, title: str, says: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.says = says
        self.retry_after_seconds = retry_after_seconds


class SignedOut(Exception):
    """There is no session, or it has ended: the visitor logs in first."""


def unreachable() -> Trouble:
    return Trouble(
        503,
        "Keystead can't answer right now",
        "A part of it is away or busy. What you sent may have been done all the same: look again in a moment.",
        retry_after_seconds=5,
    )


def not_there() -> Trouble:
    return Trouble(404, "There is no such page", "The address may be mistyped, or what was here is gone.")


def not_allowed() -> Trouble:
    return Trouble(
        403, "This page is not for your role", "If you need it, ask an admin of this installation to change your role."
    )
