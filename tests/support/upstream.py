"""A provider that speaks OpenAI's dialect, as a process: ``python -m tests.support.upstream --port N``.

What it does is asked for by the model's name (see ``BEHAVIOURS``); any other name gets an ordinary answer.
``GET /seen`` lists the requests since ``POST /forget``; ``POST /go`` lets the calls of ``gated`` and ``held`` go on.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

WORDS = [f"word{number} " for number in range(20)]
SEEN = web.AppKey("seen", list[dict[str, Any]])
GATE = web.AppKey("gate", asyncio.Event)
SLOW_SECONDS = 60.0

Body = dict[str, Any]


@contextmanager
def running_upstream() -> Iterator[str]:
    """Runs one on a free port, and gives its address, without a path."""
    command = [sys.executable, "-m", "tests.support.upstream", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
            process.wait()


def error(status: int, message: str, **headers: str) -> web.Response:
    """A provider's error answer."""
    told = {"message": message, "type": "invalid_request_error", "param": "temperature", "code": None}
    return web.json_response({"error": told}, status=status, headers=headers)


async def reject(request: web.Request, _: Body) -> web.StreamResponse:
    return error(400, f"Bad temperature. You sent {request.headers.get('Authorization', 'no key')}")


async def rate_limit(_: web.Request, __: Body) -> web.StreamResponse:
    return error(429, "slow down", **{"Retry-After": "7"})


def failing(status: int) -> Callable[[web.Request, Body], Awaitable[web.StreamResponse]]:
    """Always this status."""

    async def fail(_: web.Request, __: Body) -> web.StreamResponse:
        return error(status, "internal details that are nobody's business")

    return fail


async def redirect(_: web.Request, __: Body) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/v1/chat/completions?again"})


async def slow(request: web.Request, body: Body) -> web.StreamResponse:
    await asyncio.sleep(SLOW_SECONDS)
    return await ordinary(request, body)


async def bad_json(_: web.Request, __: Body) -> web.StreamResponse:
    return web.Response(text='{"id": "cut', content_type="application/json")


async def no_object(_: web.Request, __: Body) -> web.StreamResponse:
    return web.json_response([1, 2, 3])


async def error_in_200(_: web.Request, __: Body) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no capacity", "code": 503}})


async def cut(request: web.Request, _: Body) -> web.StreamResponse:
    """Promises more than it sends."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"id": "cut')
    return hang_up(request, response)


async def hang_up_unheard(request: web.Request, _: Body) -> web.StreamResponse:
    return hang_up(request, web.Response())


def hang_up(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return response


async def huge(request: web.Request, _: Body) -> web.StreamResponse:
    """A line that does not end."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b"data: " + b"x" * 1_000_000)
    return response


async def no_usage(request: web.Request, body: Body) -> web.StreamResponse:
    return await ordinary(request, body, usage=None)


async def strange_usage(request: web.Request, body: Body) -> web.StreamResponse:
    return await ordinary(request, body, usage={"prompt_tokens": "10", "completion_tokens": -1})


async def overbill(request: web.Request, body: Body) -> web.StreamResponse:
    return await ordinary(request, body, usage=usage_of(1_000_000, 1_000_000))


async def cached(request: web.Request, body: Body) -> web.StreamResponse:
    usage = {**usage_of(100, 5), "prompt_tokens_details": {"cached_tokens": 60}, "note": "\u0000", "price": 0.5}
    return await ordinary(request, body, usage=usage)


async def echo(request: web.Request, body: Body) -> web.StreamResponse:
    """Answers what it was sent."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return await ordinary(request, body, text=json.dumps({"path": request.path_qs, "headers": headers, "body": body}))


async def cut_stream(request: web.Request, body: Body) -> web.StreamResponse:
    return await streamed(request, [chunk(body, content="Hel")], then=hang_up)


async def unfinished_stream(request: web.Request, body: Body) -> web.StreamResponse:
    """Ends in order, and in the middle of a sentence."""
    return await streamed(request, [chunk(body, content="Hel")])


async def no_done(request: web.Request, body: Body) -> web.StreamResponse:
    chunks = [chunk(body, content="Hi"), chunk(body, finish_reason="stop"), usage_chunk(body, usage_of(10, 20))]
    return await streamed(request, chunks)


async def error_first(request: web.Request, _: Body) -> web.StreamResponse:
    return await streamed(request, [{"error": {"message": "no capacity", "code": 429}}])


async def error_late(request: web.Request, body: Body) -> web.StreamResponse:
    return await streamed(request, [chunk(body, content="Hel"), {"error": {"message": "broke", "code": 500}}])


async def no_stream(_: web.Request, body: Body) -> web.StreamResponse:
    return web.json_response(answer(body, "Hello", usage_of(10, 20)))


async def usage_in_last(request: web.Request, body: Body) -> web.StreamResponse:
    """As Mistral does it: the usage comes with the reason to end. With comments and the line ends of HTTP."""
    last = {**chunk(body, finish_reason="stop"), "usage": usage_of(10, 20)}
    chunks: list[Any] = [chunk(body, content="Hi"), last, "[DONE]"]
    return await streamed(request, chunks, line_end="\r\n", comment=True)


async def gated(request: web.Request, body: Body) -> web.StreamResponse:
    """One chunk, and the rest after ``POST /go``."""
    gate = request.app[GATE]
    gate.clear()
    chunks: list[Any] = [chunk(body, content=word) for word in WORDS]
    chunks += [chunk(body, finish_reason="stop"), usage_chunk(body, usage_of(10, 20)), "[DONE]"]
    return await streamed(request, chunks, gate=gate)


async def held(request: web.Request, body: Body) -> web.StreamResponse:
    """Nothing at all before ``POST /go``, which lets all go that are held by then."""
    gate = request.app[GATE]
    gate.clear()
    await gate.wait()
    return await ordinary(request, body)


async def endless(request: web.Request, body: Body) -> web.StreamResponse:
    """More than fits between a provider and a client that does not read."""
    chunks: list[Any] = [chunk(body, content="x" * 100_000) for _ in range(300)]
    chunks += [chunk(body, finish_reason="stop"), usage_chunk(body, usage_of(10, 300)), "[DONE]"]
    return await streamed(request, chunks)


BEHAVIOURS: dict[str, Callable[[web.Request, Body], Awaitable[web.StreamResponse]]] = {
    "reject-400": reject,
    "rate-limit": rate_limit,
    "fail-401": failing(401),
    "fail-403": failing(403),
    "fail-404": failing(404),
    "fail-500": failing(500),
    "fail-503": failing(503),
    "redirect": redirect,
    "slow": slow,
    "bad-json": bad_json,
    "no-object": no_object,
    "error-in-200": error_in_200,
    "cut": cut,
    "hang-up": hang_up_unheard,
    "huge": huge,
    "no-usage": no_usage,
    "strange-usage": strange_usage,
    "overbill": overbill,
    "cached": cached,
    "echo": echo,
    "cut-stream": cut_stream,
    "unfinished-stream": unfinished_stream,
    "no-done": no_done,
    "error-first": error_first,
    "error-late": error_late,
    "no-stream": no_stream,
    "usage-in-last": usage_in_last,
    "gated": gated,
    "held": held,
    "endless": endless,
}


async def ordinary(
    request: web.Request, body: Body, *, text: str | None = None, usage: Any = "counted"
) -> web.StreamResponse:
    """Twenty words, or as many as the cap allows, and a usage that fits."""
    cap = body.get("max_completion_tokens") or body.get("max_tokens") or len(WORDS)
    words = WORDS[:cap] if text is None else [text]
    reported = usage_of(prompt_tokens(body), len(words)) if usage == "counted" else usage
    if not body.get("stream"):
        return web.json_response(answer(body, "".join(words), reported))
    finish_reason = "length" if len(words) < len(WORDS) and text is None else "stop"
    chunks: list[Any] = [chunk(body, content=word) for word in words]
    chunks.append(chunk(body, finish_reason=finish_reason))
    if reported is not None and (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(usage_chunk(body, reported))
    return await streamed(request, [*chunks, "[DONE]"])


def prompt_tokens(body: Body) -> int:
    """Three, and for each text four and a quarter of its bytes, rounded up."""
    texts = [str(message.get("content")) for message in body.get("messages", [])]
    for name in ("prompt", "input"):
        given = body.get(name, [])
        texts += [given] if isinstance(given, str) else [str(text) for text in given]
    return 3 + sum(4 + -(-len(text.encode()) // 4) for text in texts)


def usage_of(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def answer(body: Body, text: str, usage: Any) -> Body:
    if "input" in body:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        rows = [{"object": "embedding", "index": index, "embedding": [0.25, 0.5]} for index in range(len(texts))]
        told = usage if usage is None else {k: v for k, v in usage.items() if k != "completion_tokens"}
        told = told if told is None else {**told, "total_tokens": told.get("prompt_tokens")}
        return {"object": "list", "data": rows, "model": body["model"], "usage": told}
    choice: Body = {"index": 0, "finish_reason": "stop"}
    choice |= {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
    kind = "text_completion" if "prompt" in body else "chat.completion"
    told = {} if usage is None else {"usage": usage}
    return {"id": "up-1", "object": kind, "created": 1, "model": f"{body['model']}-2026", "choices": [choice], **told}


def chunk(body: Body, *, content: str = "", finish_reason: str | None = None) -> Body:
    choice: Body = {"index": 0, "finish_reason": finish_reason}
    choice |= {"text": content} if "prompt" in body else {"delta": {"content": content} if content else {}}
    kind = "text_completion" if "prompt" in body else "chat.completion.chunk"
    return {"id": "up-1", "object": kind, "created": 1, "model": f"{body['model']}-2026", "choices": [choice]}


def usage_chunk(body: Body, usage: Any) -> Body:
    return {**chunk(body), "choices": [], "usage": usage}


async def streamed(
    request: web.Request,
    chunks: list[Any],
    *,
    then: Callable[[web.Request, web.StreamResponse], web.StreamResponse] | None = None,
    gate: asyncio.Event | None = None,
    line_end: str = "\n",
    comment: bool = False,
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for event in events(chunks, gate):
        text = event if isinstance(event, str) else json.dumps(event)
        opening = f": still here{line_end}" if comment else ""
        await response.write(f"{opening}data: {text}{line_end}{line_end}".encode())
    return response if then is None else then(request, response)


async def events(chunks: list[Any], gate: asyncio.Event | None) -> AsyncIterator[Any]:
    for number, event in enumerate(chunks):
        if number == 1 and gate is not None:
            await gate.wait()
        yield event


async def on_call(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    headers = {name.lower(): value for name, value in request.headers.items()}
    request.app[SEEN].append({"path": request.path_qs, "headers": headers, "body": body})
    return await BEHAVIOURS.get(body["model"], ordinary)(request, body)


async def on_seen(request: web.Request) -> web.Response:
    return web.json_response(request.app[SEEN])


async def on_forget(request: web.Request) -> web.Response:
    request.app[SEEN].clear()
    return web.Response(status=204)


async def on_go(request: web.Request) -> web.Response:
    request.app[GATE].set()
    return web.Response(status=204)


def create_app() -> web.Application:
    """The provider. Azure's paths end like the others', so any path will do."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app[SEEN] = []
    app[GATE] = asyncio.Event()
    app.add_routes([web.get("/seen", on_seen), web.post("/forget", on_forget), web.post("/go", on_go)])
    for path in ("chat/completions", "completions", "embeddings"):
        app.router.add_post(f"/{{before:.*}}{path}", on_call)
    return app


async def serve(port: int) -> None:
    """Serves until the process is ended. The first line it prints is the port."""
    runner = web.AppRunner(create_app(), access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    asyncio.run(serve(arguments.parse_args().port))
