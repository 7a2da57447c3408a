"""``Idempotency-Key`` (§1.5): for 24 hours the same caller, route and body get the first answer again.

A route takes it by ``openapi_extra=Idempotent("keys")``, ``StrictRoute`` sees to it. The handler draws what is new
with ``tx.draw`` and changes its service in one transaction: then a request that was cut off anywhere can come again.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import Request
from starlette.responses import Response

from shared import seed as sowing
from shared import trace
from shared.errors import Refused, Unavailable
from shared.gate import refusal
from shared.kept_answers import KeptAnswer
from shared.keyring import Keyring, open_sealed, seal
from shared.principal import Principal
from shared.seed import Seed, draw_seed

if TYPE_CHECKING:
    from shared.service import Running

log = structlog.get_logger()

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
PRINTABLE = r"^[ -~]{1,255}$"
# What else an answer says is of the one request; a cookie is for one client.
KEPT_HEADERS = ("content-type", "location")

_DESCRIPTION = "The same caller, route and body get the first answer again for 24 hours, instead of a second doing."


class KeyMalformed(Refused):
    reason = "out_of_range"


class InProgress(Refused):
    reason = "idempotency_in_progress"


class Mismatch(Refused):
    reason = "idempotency_mismatch"


class Idempotent(dict[str, Any]):
    """How a route of ``service``'s takes the header, and describes it: ``openapi_extra=Idempotent("keys")``.

    A dependency would say it as well, and cost each request without the header, too.
    """

    def __init__(self, service: str) -> None:
        header = {"name": HEADER, "in": "header", "required": False, "description": _DESCRIPTION}
        super().__init__(parameters=[{**header, "schema": {"type": "string", "pattern": PRINTABLE}}])
        self.service = service


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under the header. ``id`` finds what is kept, ``sealing_key`` opens it; neither tells the other."""

    id: str
    sealing_key: bytes = field(repr=False)
    body_hash: str

    def seal(self, what: str, plaintext: bytes) -> str:
        return seal(self.sealing_key, plaintext, what.encode())

    def open(self, what: str, sealed: str) -> bytes:
        return open_sealed(self.sealing_key, sealed, what.encode())


def asked(keyring: Keyring, principal: Principal, request: Request, body: Any) -> Asked:
    """Raises ``KeyMalformed``."""
    values = request.headers.getlist(HEADER)
    if len(values) != 1 or not re.fullmatch(PRINTABLE, values[0]):
        raise KeyMalformed(f"{HEADER} is not 1 to 255 printable ASCII characters, once", param=HEADER)
    route = [request.method, request.scope["path"], request.scope["query_string"].decode("latin-1")]
    whole = json.dumps([*_caller(principal), *route, values[0]])
    digest = hashlib.sha256(whole.encode()).hexdigest()
    sealing_key = keyring.derive(f"kept-answer/{digest}")
    return Asked(
        id=keyring.hmac("kept-answer-id", digest.encode()).hex(),
        sealing_key=sealing_key,
        body_hash=hmac.digest(sealing_key, canonical(body).encode("utf-8", "surrogatepass"), "sha256").hex(),
    )


def _caller(principal: Principal) -> list[str | None]:
    """The credential and what it may now, not the user alone: an answer with a key in it is for no weaker credential.

    A user's sessions are as strong as one another, and who logs in anew retries what was cut off before.
    """
    return [principal.credential, principal.actor, principal.key_id, principal.role]


def canonical(body: Any) -> str:
    """The same text for the same JSON, however it was spaced and its members ordered."""
    return repr(_ordered(body))


def _ordered(value: Any) -> Any:
    match value:
        case dict():
            return tuple(sorted((name, _ordered(item)) for name, item in value.items()))
        case list():
            return [_ordered(item) for item in value]
        case _:
            return value


async def answer_once(service: str, request: Request, body: Any, answer: Callable[[], Awaitable[Response]]) -> Response:
    """The kept answer, or the one that ``answer`` gives now. Raises ``KeyMalformed``, ``Mismatch``, ``InProgress``."""
    running: Running[Any] = request.app.state.services[service]
    ask = asked(running.settings.keyring, request.scope["keystead.principal"], request, body)
    async with running.kept_answers.at_work(ask.id) as alone:
        kept = await _find(running, ask, begin=alone)
        if kept is not None and kept.body_hash != ask.body_hash:
            raise Mismatch(f"{HEADER} was sent with another body before", param=HEADER)
        if kept is not None and kept.sealed_answer is not None:
            return unpacked(ask.open("answer", kept.sealed_answer))
        if kept is None or not alone:
            raise InProgress("the same request is being worked on", param=HEADER, headers={"Retry-After": "1"})
        response = await _answered(request, Seed(ask.open("seed", kept.sealed_seed)), answer)
        if response.status_code < 500 and response.status_code != 401:
            await _keep(running, ask, response)
        return response


async def _find(running: "Running[Any]", ask: Asked, *, begin: bool) -> KeptAnswer | None:
    now = running.clock()
    kept = await running.kept_answers.find(ask.id, now)
    if kept is None and begin:
        return await running.kept_answers.begin(ask.id, ask.body_hash, ask.seal("seed", draw_seed().content), now)
    return kept


async def _answered(request: Request, seed: Seed, answer: Callable[[], Awaitable[Response]]) -> Response:
    with sowing.sown(seed), trace.tracing(replace(trace.current(), causation_id=seed.command_id)):
        try:
            return await answer()
        except Refused as refused:
            return refusal(request, refused)


async def _keep(running: "Running[Any]", ask: Asked, response: Response) -> None:
    try:
        await running.kept_answers.keep(ask.id, ask.seal("answer", packed(response)))
    except Unavailable as fault:
        # What was done stands, and a retry finds it done.
        log.warning("idempotency.answer_not_kept", service=running.service.name, fault=str(fault))


def packed(response: Response) -> bytes:
    """An answer as it is kept."""
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    return json.dumps([response.status_code, headers, bytes(response.body).decode("latin-1")]).encode()


def unpacked(kept: bytes) -> Response:
    """The same answer again, and that it is."""
    status, headers, body = json.loads(kept)
    return Response(body.encode("latin-1"), status, {**headers, REPLAYED: "true"})
