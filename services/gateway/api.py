"""The gateway's own routes: models, model calls, health (§3.7, §1.6)."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.gateway import rows
from services.gateway.admission import Caller, callable_models
from services.gateway.calls import CallKind, parse_call
from services.gateway.gateway import Gateway
from services.gateway.proxy import AlreadyRecorded, Done
from services.gateway.reply import Reply, StreamedReply
from services.gateway.rows import Journey
from services.gateway.settings import GatewaySettings
from shared.answers import JsonAnswer
from shared.body import StrictRoute, read_json
from shared.errors import Refused
from shared.money import usd_text
from shared.permissions import Operation
from shared.principal import Principal, may, running
from shared.service import Running
from shared.values import Query as QueryModel
from shared.values import Text

BYTES_PER_MB = 1024 * 1024


class ModelRoute(StrictRoute):
    """Model routes take whatever query parameters clients of OpenAI's API send (§1.3)."""

    open_query: ClassVar[bool] = True


calls = APIRouter(route_class=ModelRoute, tags=["model calls"])
router = APIRouter(route_class=StrictRoute, tags=["gateway"])

Running_ = Annotated[Running[GatewaySettings], Depends(running("gateway"))]
Calling = Annotated[Principal, may(Operation.MODEL_CALL)]
Listing = Annotated[Principal, may(Operation.MODEL_LIST)]
_CAP = {"type": "integer", "minimum": 1}
_FIELDS: Mapping[CallKind, Mapping[str, Any]] = {
    CallKind.CHAT: {
        "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "stream": {"type": "boolean"},
        "max_completion_tokens": _CAP,
        "max_tokens": _CAP,
    },
    CallKind.COMPLETION: {"prompt": {}, "stream": {"type": "boolean"}, "max_tokens": _CAP},
    CallKind.EMBEDDING: {"input": {}},
}


def _described(kind: CallKind) -> dict[str, Any]:
    """The fields of OpenAI's body that count here; others go through."""
    properties = {"model": {"type": "string", "minLength": 1}, **_FIELDS[kind]}
    schema = {"type": "object", "required": [*properties][:2], "properties": properties}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


STREAMS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@calls.post("/v1/chat/completions", openapi_extra=_described(CallKind.CHAT), responses=STREAMS)
@calls.post("/chat/completions", openapi_extra=_described(CallKind.CHAT), responses=STREAMS)
async def chat_completions(gateway: Running_, principal: Calling, request: Request) -> Response:
    """A chat completion, in OpenAI's dialect; ``stream`` for server-sent events."""
    return await _call(gateway, principal, request, CallKind.CHAT)


@calls.post("/v1/completions", openapi_extra=_described(CallKind.COMPLETION), responses=STREAMS)
@calls.post("/completions", openapi_extra=_described(CallKind.COMPLETION), responses=STREAMS)
async def completions(gateway: Running_, principal: Calling, request: Request) -> Response:
    """A text completion."""
    return await _call(gateway, principal, request, CallKind.COMPLETION)


@calls.post("/v1/embeddings", openapi_extra=_described(CallKind.EMBEDDING))
@calls.post("/embeddings", openapi_extra=_described(CallKind.EMBEDDING))
async def embeddings(gateway: Running_, principal: Calling, request: Request) -> Response:
    """Embeddings."""
    return await _call(gateway, principal, request, CallKind.EMBEDDING)


async def _call(running_: Running[GatewaySettings], principal: Principal, request: Request, kind: CallKind) -> Response:
    """Every call of a known credential leaves a row, refused ones too."""
    own: Gateway = running_.own
    settings = running_.settings
    journey = rows.journey_of(request, kind, running_.clock(), tag_user_agent=settings.add_user_agent_tags)
    with own.metrics.in_flight.track_inprogress():
        try:
            caller = await own.admission.caller(principal)
            journey = journey.with_(caller=caller)
            body = await read_json(request, settings.max_request_size_mb * BYTES_PER_MB)
            call = parse_call(kind, body, request.headers)
            journey = journey.with_(call=call)
            if call.stream:
                return _streamed(running_, await own.proxy.stream(journey, caller, call), journey)
            # In a task of its own: a client that goes away must not cut the provider's answer off.
            return _answered(running_, await asyncio.shield(own.complete(journey, caller, call)), journey)
        except AlreadyRecorded:
            raise
        except Refused as refused:
            own.note_refusal(journey if journey.caller else journey.with_(caller=_caller_of(principal)), refused)
            raise


def _caller_of(principal: Principal) -> Caller:
    return Caller(principal, principal.token or principal.credential, None, None)


def _answered(running_: Running[GatewaySettings], done: Done[Reply], journey: Journey) -> Response:
    headers = _headers(running_, done, journey)
    if done.settled is not None:
        headers["x-litellm-response-cost"] = usd_text(done.settled.charged_nano_usd)
    # As the provider sent it: numbers in it are its own, not our money.
    return Response(orjson.dumps(done.reply.body, default=str), media_type="application/json", headers=headers)


def _streamed(running_: Running[GatewaySettings], done: Done[StreamedReply], journey: Journey) -> Response:
    own: Gateway = running_.own
    own.metrics.in_flight.inc()
    done.reply.task.add_done_callback(lambda _: own.metrics.in_flight.dec())
    return Events(done.reply, _headers(running_, done, journey))


class Events(StreamingResponse):
    """A reply on its way to a client. If that is gone, even before the first event, the reply is told."""

    def __init__(self, reply: StreamedReply, headers: dict[str, str]) -> None:
        super().__init__(reply, media_type="text/event-stream", headers=headers)
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.abandon()


def _headers(running_: Running[GatewaySettings], done: Done[Any], journey: Journey) -> dict[str, str]:
    """The headers of §1.5 that this version can fill."""
    milliseconds = (running_.clock() - journey.started_at).total_seconds() * 1000
    headers = {
        "x-litellm-call-id": journey.call_id,
        "x-litellm-model-id": done.deployment.id,
        "x-litellm-model-group": done.deployment.model_name,
        "x-litellm-attempted-retries": str(done.journey.retries),
        "x-litellm-response-duration-ms": f"{milliseconds:.3f}",
    }
    key = done.caller.key
    if key is not None and done.settled is not None:
        spent = done.settled.window_spent_nano_usd.get(f"key:{key.key_id}")
        if spent is not None:
            headers["x-litellm-key-spend"] = usd_text(spent)
    if key is not None and key.max_budget_nano_usd is not None:
        headers["x-litellm-key-max-budget"] = usd_text(key.max_budget_nano_usd)
    return headers


async def _callable(running_: Running[GatewaySettings], principal: Principal) -> list[str]:
    """The models that the credential may call, by name."""
    own: Gateway = running_.own
    key = await own.view.key(principal.token) if principal.credential == "key" and principal.token else None
    user = None
    if principal.credential != "master_key" and principal.user_id is not None:
        user = await own.view.user(principal.user_id)
    return callable_models(key, user, own.catalogue.names)


@calls.get("/v1/models")
@calls.get("/models")
async def list_models(gateway: Running_, principal: Listing) -> Response:
    """What the credential may call."""
    own: Gateway = gateway.own
    return JsonAnswer({"object": "list", "data": own.catalogue.model_rows(await _callable(gateway, principal))})


@calls.get("/v1/models/{model:path}")
async def get_model(gateway: Running_, principal: Listing, model: str) -> Response:
    """One of them."""
    own: Gateway = gateway.own
    names = [name for name in await _callable(gateway, principal) if name == model]
    if not names:
        raise Refused("model: there is no such model for this credential", reason="not_found", param="model")
    return JsonAnswer(own.catalogue.model_rows(names)[0])


class ModelInfoQuery(QueryModel):
    litellm_model_id: Text | None = None


@router.get("/model/info")
@router.get("/v1/model/info")
async def model_info(gateway: Running_, principal: Listing, query: Annotated[ModelInfoQuery, Query()]) -> Response:
    """Prices and limits of those models; no address and no credential of a provider."""
    own: Gateway = gateway.own
    names = await _callable(gateway, principal)
    return JsonAnswer({"data": own.catalogue.info_rows(names, query.litellm_model_id)})


@router.get("/health")
async def health(gateway: Running_, principal: Annotated[Principal, may(Operation.HEALTH)]) -> Response:
    """How the providers did in the last five minutes, from the calls seen."""
    own: Gateway = gateway.own
    return JsonAnswer(own.outcomes.report())


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(gateway: Running_, principal: Annotated[Principal, may(Operation.METRICS)]) -> Response:
    """Prometheus's text."""
    own: Gateway = gateway.own
    return Response(own.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
