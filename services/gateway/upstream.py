"""Calls sent on to providers that speak OpenAI's dialect, and what their answers mean here (§1.4, §3.7)."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from services.gateway import mock
from services.gateway.calls import Call, CallKind
from services.gateway.models import Deployment
from services.gateway.parameters import CAP_NAMES
from services.gateway.reply import BeforeEnd, Reply, StreamedReply, UpstreamRefused, reply_of
from shared.answers import json_bytes

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ERROR_BYTES_MAX = 64 * 1024
MESSAGE_LENGTH_MAX = 1_000

CONNECT_SECONDS = 10.0
# Shorter than the five seconds after which common servers close an idle connection: a call sent into a connection that
# is just being closed may have been heard or not, and would cost its whole hold.
KEEPALIVE_SECONDS = 4.0
LINGER_SECONDS = 0.1

# OpenAI's own models refuse `max_tokens`; the others refuse or, worse, ignore `max_completion_tokens`.
PROVIDERS_OF_COMPLETION_CAP = ("openai", "azure")
# It refuses the option, and reports the usage of a stream without being asked.
PROVIDERS_WITHOUT_STREAM_OPTIONS = ("mistral",)

MALFORMED = (400, 413, 415, 422)
RATE_LIMITED = 429


class Upstream:
    """One HTTP client for all providers. Mock deployments are answered here as well, so that no caller asks."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._streams: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Opens nothing yet: connections are made as calls come."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "keystead"},
        )

    async def stop(self, *, drain_seconds: float = 10.0) -> None:
        """Lets running streams end for so long; those cut off after that are told and metered as cut."""
        if self._streams:
            _, late = await asyncio.wait(self._streams, timeout=drain_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def send(self, deployment: Deployment, call: Call, cap: int | None) -> Reply:
        """The provider's whole answer. Raises ``UpstreamRefused``.

        Being cancelled cuts the connection, and nobody then knows what the call cost: a caller whose client can go away
        runs this in a task of its own.
        """
        if deployment.mock_response is not None:
            return mock.answer(deployment, call, cap)
        with _translated():
            response = await self._post(deployment, call, cap)
            async with response:
                await _check_status(response, deployment)
                text = await _read(response, ANSWER_BYTES_MAX)
        body = _object(text)
        if _is_error(body):
            raise refusal_of(_status_in(body), body, deployment)
        return reply_of(body, call)

    async def stream(
        self, deployment: Deployment, call: Call, cap: int | None, before_end: BeforeEnd | None = None
    ) -> StreamedReply:
        """The provider's answer as it comes. Raises ``UpstreamRefused`` for what goes wrong before the first chunk."""
        chunks = await self._chunks(deployment, call, cap)
        reply = StreamedReply(chunks, call, deployment, before_end)
        self._streams.add(reply.task)
        reply.task.add_done_callback(self._streams.discard)
        return reply

    async def _chunks(self, deployment: Deployment, call: Call, cap: int | None) -> AsyncIterator[dict[str, Any]]:
        if deployment.mock_response is not None:
            return mock.chunks(deployment, call, cap)
        with _translated():
            response = await self._post(deployment, call, cap)
            try:
                await _check_status(response, deployment)
            except BaseException:
                response.close()
                raise
        chunks = _read_chunks(response, deployment)
        first = await anext(chunks, None)
        return _resumed(first, chunks)

    async def _post(self, deployment: Deployment, call: Call, cap: int | None) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("Upstream.start was not called")
        return await self._session.post(
            URL(address(deployment, call.kind), encoded=True),
            data=json_bytes(forwarded_body(deployment, call, cap)),
            headers=_headers(deployment),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=deployment.timeout_seconds, sock_connect=min(CONNECT_SECONDS, deployment.timeout_seconds)
            ),
        )


def address(deployment: Deployment, kind: CallKind) -> str:
    """Where a call goes. Azure has a path a deployment for dated API versions, and OpenAI's paths without one."""
    base = deployment.api_base
    if deployment.provider != "azure":
        return base + kind.path
    if deployment.api_version is None:
        return base.removesuffix("/openai/v1") + "/openai/v1" + kind.path
    name, version = quote(deployment.upstream_model, safe=""), quote(deployment.api_version, safe="")
    return f"{base}/openai/deployments/{name}{kind.path}?api-version={version}"


def forwarded_body(deployment: Deployment, call: Call, cap: int | None) -> dict[str, Any]:
    """The caller's body under the provider's model name, with the cap under the one name that provider takes."""
    body = {name: value for name, value in call.body.items() if name not in CAP_NAMES}
    body["model"] = deployment.upstream_model
    if cap is not None and call.kind is not CallKind.EMBEDDING:
        body[_cap_name(deployment, call.kind)] = cap
    if call.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    if deployment.provider in PROVIDERS_WITHOUT_STREAM_OPTIONS:
        body.pop("stream_options", None)
    return body


def _cap_name(deployment: Deployment, kind: CallKind) -> str:
    if kind is CallKind.CHAT and deployment.provider in PROVIDERS_OF_COMPLETION_CAP:
        return "max_completion_tokens"
    return "max_tokens"


def _headers(deployment: Deployment) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if deployment.api_key is not None and deployment.provider == "azure":
        headers["api-key"] = deployment.api_key
    elif deployment.api_key is not None:
        headers["Authorization"] = f"Bearer {deployment.api_key}"
    if deployment.organization is not None:
        headers["OpenAI-Organization"] = deployment.organization
    return headers


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what the HTTP client raises into a refusal, which says whether the provider can have heard the call."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as fault:
        raise UpstreamRefused(
            "The provider can't be reached in time", reason="upstream_timeout", costs_nothing=True, retryable=True
        ) from fault
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as fault:
        raise UpstreamRefused(
            "The provider can't be reached", reason="upstream_failed", costs_nothing=True, retryable=True
        ) from fault
    except TimeoutError as fault:
        raise UpstreamRefused(
            "The provider did not answer in time", reason="upstream_timeout", costs_nothing=False
        ) from fault
    except (aiohttp.ClientError, OSError) as fault:
        raise _broken("The provider's answer was cut off") from fault


def _broken(message: str) -> UpstreamRefused:
    return UpstreamRefused(message, reason="upstream_failed", costs_nothing=False)


async def _check_status(response: aiohttp.ClientResponse, deployment: Deployment) -> None:
    if 200 <= response.status < 300:
        return
    try:
        body: object = orjson.loads(await _read(response, ERROR_BYTES_MAX))
    except (ValueError, UpstreamRefused):
        body = None
    raise refusal_of(response.status, body, deployment, response.headers.get("Retry-After"))


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    text = bytearray()
    async for part in response.content.iter_any():
        text += part
        if len(text) > most:
            raise _broken("The provider's answer is too long")
    return bytes(text)


def _object(text: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(text)
    except ValueError as fault:
        raise _broken("The provider's answer is no JSON") from fault
    if not isinstance(body, dict):
        raise _broken("The provider's answer is no JSON object")
    return body


def _is_error(body: Mapping[str, Any]) -> bool:
    """Some providers answer 200, or send a chunk, that holds an error and nothing else."""
    return bool(body.get("error")) and not body.get("choices") and not body.get("data")


def _status_in(body: Mapping[str, Any]) -> int:
    error = body.get("error")
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def refusal_of(status: int, body: object, deployment: Deployment, retry_after: str | None = None) -> UpstreamRefused:
    """What a provider's error answer is to our client (§1.4). It costs nothing."""
    if status in MALFORMED:
        told = f"The provider refused the call: {_message(body, deployment)}"
        return UpstreamRefused(told, reason="upstream_rejected", costs_nothing=True, param=_param(body))
    if status == RATE_LIMITED:
        headers = {"Retry-After": retry_after} if retry_after is not None and _is_retry_after(retry_after) else None
        told = "The provider's rate limit is reached"
        return UpstreamRefused(
            told, reason="upstream_rate_limited", costs_nothing=True, retryable=True, headers=headers
        )
    # Ours, not the client's: a credential that the provider does not know, a model that it does not have (D26).
    told = f"The provider failed the call with status {status}"
    return UpstreamRefused(told, reason="upstream_failed", costs_nothing=True, retryable=status >= 500)


def _message(body: object, deployment: Deployment) -> str:
    """The provider's sentence, without the credential that some of them repeat."""
    error = body.get("error", body) if isinstance(body, Mapping) else None
    inner = error if isinstance(error, Mapping) else {}
    told = next((text for text in (inner.get("message"), inner.get("detail"), error) if isinstance(text, str)), "")
    if deployment.api_key is not None:
        told = told.replace(deployment.api_key, "(hidden)")
    printable = "".join(character if character.isprintable() else " " for character in told[:MESSAGE_LENGTH_MAX])
    return printable.strip() or "no reason given"


def _param(body: object) -> str | None:
    error = body.get("error") if isinstance(body, Mapping) else None
    param = error.get("param") if isinstance(error, Mapping) else None
    return param if isinstance(param, str) and param.isprintable() and len(param) <= MESSAGE_LENGTH_MAX else None


def _is_retry_after(text: str) -> bool:
    if re.fullmatch(r"[0-9]{1,9}", text):
        return True
    with suppress(ValueError, TypeError):
        return len(text) <= 64 and parsedate_to_datetime(text) is not None
    return False


async def _resumed(first: dict[str, Any] | None, rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    if first is not None:
        yield first
        async for chunk in rest:
            yield chunk


async def _read_chunks(response: aiohttp.ClientResponse, deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    """The chunks up to ``[DONE]``. Raises ``UpstreamRefused`` for an error among them, and for an end without it."""
    began = False
    try:
        with _translated():
            async for data in _read_events(response):
                if data.strip() == b"[DONE]":
                    await _linger(response)
                    return
                chunk = _object(data)
                if _is_error(chunk):
                    refusal = refusal_of(_status_in(chunk), chunk, deployment)
                    raise _broken(refusal.message) if began else refusal
                began = True
                yield chunk
        raise _broken("The provider's answer was cut off")
    finally:
        response.close()


async def _linger(response: aiohttp.ClientResponse) -> None:
    """The end of the body is mostly there already, and once it is read the connection can be used again."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(LINGER_SECONDS):
            while not response.content.at_eof():
                await response.content.readany()


async def _read_events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The data of each server-sent event. Comments and other fields say nothing that we need."""
    data: list[bytes] = []
    async for line in _read_lines(response):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []
    if data:
        yield b"\n".join(data)


async def _read_lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    begun: list[bytes] = []  # parts of a line that has no end yet
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise _broken("The provider's answer is too long")
        first, *ended = part.split(b"\n")
        begun.append(first)
        for following in ended:
            yield b"".join(begun).removesuffix(b"\r")
            begun = [following]
    if any(begun):
        yield b"".join(begun).removesuffix(b"\r")
