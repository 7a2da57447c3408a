"""Pages of own routes: a limit, and a cursor that says where the page before ended (§1.5)."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Request
from pydantic import Field

from shared.answers import Answer
from shared.errors import Refused
from shared.keyring import Keyring, NotSealed
from shared.values import Query

Item = TypeVar("Item")
Row = TypeVar("Row")


class CursorUnknown(Refused):
    """Not made here, or for another list, or changed since."""

    reason = "out_of_range"


class PageQuery(Query):
    """What every own page takes; a list adds its filters."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    after: str | None = None


class Page(Answer, Generic[Item]):
    """``next`` is null on the last page."""

    data: list[Item]
    next: str | None


def make_cursor(keyring: Keyring, subject: str, *place: str) -> str:
    """``place`` in the list of ``subject``, sealed: nobody else can read it, and we need not doubt what we read."""
    return keyring.seal("cursor", json.dumps(place).encode(), subject.encode())


def read_cursor(keyring: Keyring, subject: str, cursor: str) -> tuple[str, ...]:
    """The place that a cursor was made of. Raises ``CursorUnknown``."""
    try:
        return tuple(json.loads(keyring.open("cursor", cursor, subject.encode())))
    except NotSealed as fault:
        raise CursorUnknown("after is no cursor of this list", param="after") from fault


def make_place(keyring: Keyring, subject: str, at: datetime, id_: str) -> str:
    """A cursor in a list that is ordered by time, and at one time by id."""
    return make_cursor(keyring, subject, at.isoformat(), id_)


def read_place(keyring: Keyring, subject: str, after: str | None) -> tuple[datetime, str] | None:
    """Where such a list goes on; None at its beginning. Raises ``CursorUnknown``."""
    if after is None:
        return None
    at, id_ = read_cursor(keyring, subject, after)
    return datetime.fromisoformat(at), id_


def cut(rows: Sequence[Row], limit: int, cursor_of: Callable[[Row], str]) -> tuple[Sequence[Row], str | None]:
    """A page of ``limit`` rows out of one more, which only tells that there are more; and the cursor to go on from."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], cursor_of(rows[limit - 1])


def link_to_next(request: Request, cursor: str | None) -> dict[str, str]:
    """The ``Link`` header to the next page of what was asked for, filters and all; none on the last page."""
    if cursor is None:
        return {}
    filters = [(name, value) for name, value in request.query_params.items() if name != "after"]
    query = urlencode([*filters, ("after", cursor)])
    return {"Link": f'<{request.url.path}?{query}>; rel="next"'}
