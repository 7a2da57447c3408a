"""The mock model (§3.7): it answers at once, from nothing but the call, and its usage is fixed."""

import base64
import hashlib
import struct
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

from services.gateway.calls import MOCK_COMPLETION_TOKENS, Call, CallKind, mock_prompt_tokens, prompts_of
from services.gateway.models import Deployment
from services.gateway.reply import Reply, reply_of

VECTOR_LENGTH = 8


def answer(deployment: Deployment, call: Call, cap: int | None) -> Reply:
    """The whole answer of a mock deployment. ``cap`` bounds each choice, as it does at a provider."""
    if call.kind is CallKind.EMBEDDING:
        return reply_of(_embedding(call), call)
    pieces, finish_reason = _pieces(deployment, cap)
    choices = [_choice(call, index, "".join(pieces), finish_reason) for index in range(call.choices)]
    return reply_of({**_opening(call), "choices": choices, "usage": _usage(call, len(pieces))}, call)


async def chunks(deployment: Deployment, call: Call, cap: int | None) -> AsyncIterator[dict[str, Any]]:
    """The same answer in pieces, the usage last."""
    opening = _opening(call)
    pieces, finish_reason = _pieces(deployment, cap)
    for index in range(call.choices):
        for delta in _deltas(call, index, pieces, finish_reason):
            yield {**opening, "choices": [delta]}
    yield {**opening, "choices": [], "usage": _usage(call, len(pieces))}


def _pieces(deployment: Deployment, cap: int | None) -> tuple[list[str], str]:
    """The text in twenty pieces, which are its tokens; as many as the cap allows, and why there are no more."""
    text = deployment.mock_response or ""
    count = MOCK_COMPLETION_TOKENS if cap is None else min(cap, MOCK_COMPLETION_TOKENS)
    ends = [-(-len(text) * number // MOCK_COMPLETION_TOKENS) for number in range(count + 1)]
    pieces = [text[start:end] for start, end in pairwise(ends)]
    return pieces, "stop" if count == MOCK_COMPLETION_TOKENS else "length"


def _usage(call: Call, tokens_a_choice: int) -> dict[str, int]:
    prompt, completion = mock_prompt_tokens(call), tokens_a_choice * call.choices
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _opening(call: Call) -> dict[str, Any]:
    if call.kind is CallKind.COMPLETION:
        return {"id": f"cmpl-{uuid.uuid4()}", "object": "text_completion", "created": int(time.time())}
    kind = "chat.completion.chunk" if call.stream else "chat.completion"
    return {"id": f"chatcmpl-{uuid.uuid4()}", "object": kind, "created": int(time.time())}


def _choice(call: Call, index: int, text: str, finish_reason: str) -> dict[str, Any]:
    if call.kind is CallKind.COMPLETION:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}


def _deltas(call: Call, index: int, pieces: list[str], finish_reason: str) -> Iterator[dict[str, Any]]:
    for number, piece in enumerate(pieces):
        if call.kind is CallKind.COMPLETION:
            yield {"index": index, "text": piece, "logprobs": None, "finish_reason": None}
        else:
            role = {"role": "assistant"} if number == 0 else {}
            yield {"index": index, "delta": {**role, "content": piece}, "finish_reason": None}
    if call.kind is CallKind.COMPLETION:
        yield {"index": index, "text": "", "logprobs": None, "finish_reason": finish_reason}
    else:
        yield {"index": index, "delta": {}, "finish_reason": finish_reason}


def _embedding(call: Call) -> dict[str, Any]:
    packed = call.body.get("encoding_format") == "base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": _vector(text, packed=packed)}
        for index, text in enumerate(prompts_of(call))
    ]
    prompt = mock_prompt_tokens(call)
    return {"object": "list", "data": rows, "usage": {"prompt_tokens": prompt, "total_tokens": prompt}}


def _vector(text: object, *, packed: bool) -> list[float] | str:
    """Eight numbers from -1 to 1, the same for the same input (D35), and exact in the four bytes that base64 has."""
    digest = hashlib.sha256(repr(text).encode()).digest()
    numbers = [part / 32_768 for part in struct.unpack(f"<{VECTOR_LENGTH}h", digest[: 2 * VECTOR_LENGTH])]
    return base64.b64encode(struct.pack(f"<{VECTOR_LENGTH}f", *numbers)).decode() if packed else numbers
