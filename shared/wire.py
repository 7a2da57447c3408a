"""The wire between services: one NATS connection a service, its subjects, its stream, questions and answers."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.js import JetStreamContext
from nats.js.api import AckPolicy as Acknowledgement
from nats.js.api import ConsumerConfig, DeliverPolicy, DiscardPolicy, StorageType, StreamConfig
from pydantic import BaseModel, ValidationError

from shared import trace
from shared.errors import REASONS, Refused, Unavailable
from shared.events import Recorded
from shared.requests import Question

log = structlog.get_logger()

A = TypeVar("A", bound=BaseModel)
Q = TypeVar("Q", bound=Question)

# On every service's stream, for a program that is none of ours and may make no consumer itself.
OUTSIDE_CONSUMER = "subscriber"
LIVE_DELIVERY = timedelta(days=7)  # design §4: the truth is the log, the stream only delivers
DUPLICATE_WINDOW = timedelta(minutes=2)
ASK_TIMEOUT_SECONDS = 5.0
CONCURRENT_QUESTIONS = 256
UNAVAILABLE = 503


class Wire:
    """What one service says and hears over NATS. ``namespace`` keeps installations on one server apart (tests do)."""

    def __init__(self, service: str, url: str, *, namespace: str = "") -> None:
        self.service = service
        self.namespace = namespace
        self.closing = False  # we are about to go, and others may have gone: silence is no news
        self.broker = NatsBroker(
            url,
            name=f"keystead-{service}",
            inbox_prefix=inbox_of(service),
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            error_cb=self._noting("wire.error"),
            disconnected_cb=self._noting("wire.disconnected"),
            reconnected_cb=self._noting("wire.reconnected"),
            logger=None,
            # Bodies are read by us, strictly; FastStream's reading and injecting would also cost a thread a message.
            apply_types=False,
            decoder=_whole,
        )

    @property
    def connected(self) -> bool:
        return self._client is not None and bool(self._client.is_connected)

    @property
    def _client(self) -> Any:
        return self.broker._connection

    @property
    def jetstream(self) -> JetStreamContext:
        stream: JetStreamContext = self._client.jetstream()
        return stream

    def stream_of(self, service: str) -> str:
        return f"{self.namespace}{service}".replace(".", "_").upper()

    def subject_of(self, recorded: Recorded) -> str:
        """``<service>.<EventType>.<stream>``, every token made safe for NATS."""
        return f"{self.namespace}{self.service}.{recorded.event.stored().type}.{safe_token(recorded.stream)}"

    def ask_subject(self, service: str, question: type[Question]) -> str:
        return f"{self.namespace}ask.{service}.{question.__name__}"

    def topic(self, name: str) -> str:
        """The subject of a message to all who listen, stored by nobody."""
        return f"{self.namespace}topic.{name}"

    async def stop(self) -> None:
        """Say and hear no more."""
        self.closing = True
        await self.broker.stop()

    async def declare_stream(self) -> None:
        """Make or bring up to date the stream that carries this service's events."""
        config = StreamConfig(
            name=self.stream_of(self.service),
            subjects=[f"{self.namespace}{self.service}.>"],
            storage=StorageType.FILE,
            max_age=LIVE_DELIVERY.total_seconds(),
            discard=DiscardPolicy.OLD,
            duplicate_window=DUPLICATE_WINDOW.total_seconds(),
        )
        try:
            await self.jetstream.add_stream(config)
        except nats.js.errors.BadRequestError:
            await self.jetstream.update_stream(config)
        await self.jetstream.add_consumer(
            self.stream_of(self.service),
            ConsumerConfig(durable_name=OUTSIDE_CONSUMER, ack_policy=Acknowledgement.EXPLICIT, ack_wait=30),
        )

    async def publish(self, recorded: Recorded) -> None:
        """Store one event in the stream; the same event twice is stored once."""
        await self.jetstream.publish(
            self.subject_of(recorded), recorded.to_cloudevent(), headers={"Nats-Msg-Id": recorded.id}
        )

    async def tell(self, topic: str, message: BaseModel) -> None:
        """Say something to all who listen now."""
        headers = trace.current().headers()
        await self._client.publish(self.topic(topic), message.model_dump_json().encode(), headers=headers)

    async def listen(self, topic: str, heard: Callable[[bytes], Awaitable[None]]) -> None:
        """Call ``heard`` with every message on ``topic`` from now on."""

        async def deliver(message: Any) -> None:
            with trace.tracing(trace.Trace.of(message.headers or {})):
                await heard(message.data)

        await self._client.subscribe(self.topic(topic), cb=deliver)

    async def ask(
        self, service: str, question: Question, answer: type[A], *, timeout_seconds: float = ASK_TIMEOUT_SECONDS
    ) -> A:
        """Ask a service. Raises what it refused with, and ``Unavailable`` if it does not answer in time."""
        try:
            reply = await self.broker.request(
                question.model_dump_json().encode(),
                self.ask_subject(service, type(question)),
                headers=trace.current().headers(),
                timeout=timeout_seconds,
            )
        except (nats.errors.Error, TimeoutError, AssertionError, OSError) as fault:
            raise Unavailable(f"the {service} service does not answer") from fault
        content = json.loads(reply.body)
        if "refused" in content:
            raise _refused(content["refused"])
        return answer.model_validate(content["answer"])

    def answer(self, question: type[Q], respond: Callable[[Q], Awaitable[BaseModel]]) -> None:
        """Answer ``question`` from the start of the broker on; replicas share the questions."""

        async def reply(message: NatsMessage) -> bytes:
            with trace.tracing(trace.Trace.of(message.headers)):
                return await _answered(question, respond, message.body)

        subscriber = self.broker.subscriber(
            self.ask_subject(self.service, question), queue=self.service, max_workers=CONCURRENT_QUESTIONS
        )
        subscriber(reply)

    @asynccontextmanager
    async def following(
        self, source: str, deliver: Callable[[NatsMessage], Awaitable[None]]
    ) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
        """Hear ``source``'s stream during the block, one message at a time and in order, by a durable consumer.

        The position in the database says what was applied; the consumer may be lost and made anew. One that is gone
        is merely silent: the block is given a look that raises ``NotFoundError`` then.
        """
        stream = self.stream_of(source)
        durable = f"{self.namespace}{durable_of(self.service, source)}".replace(".", "_")
        subscriber = self.broker.subscriber(
            f"{self.namespace}{source}.>",
            stream=JStream(stream, declare=False),
            durable=durable,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_wait=30, max_ack_pending=1000),
            pull_sub=PullSub(batch_size=1, timeout=5.0),
            inbox_prefix=f"{inbox_of(self.service)}.".encode(),
            ack_policy=AckPolicy.MANUAL,
            persistent=False,
        )
        subscriber(deliver)
        await subscriber.start()
        try:
            yield lambda: self.jetstream.consumer_info(stream, durable)
        finally:
            await subscriber.stop()

    def _noting(self, event: str) -> Callable[..., Awaitable[None]]:
        async def note(fault: Exception | None = None) -> None:
            if not self.closing:
                log.warning(event, service=self.service, fault=repr(fault) if fault else None)

        return note


async def _answered(question: type[Q], respond: Callable[[Q], Awaitable[BaseModel]], body: bytes) -> bytes:
    try:
        answer = await respond(question.model_validate_json(body))
    except Refused as refused:
        content = {"code": refused.code, "message": refused.message, "param": refused.param, "type": refused.type}
        return json.dumps({"refused": content | {"headers": refused.headers}}).encode()
    except ValidationError as fault:
        log.warning("wire.question_malformed", question=question.__name__, faults=fault.error_count())
        return json.dumps(
            {"refused": {"code": "unavailable", "message": "a question that was not understood"}}
        ).encode()
    except Exception:
        # Whoever asks must not wait for a time-out because answering failed.
        log.exception("wire.answer_failed", question=question.__name__)
        message = f"the service could not answer {question.__name__}"
        return json.dumps({"refused": {"code": "unavailable", "message": message}}).encode()
    return b'{"answer":' + answer.model_dump_json().encode() + b"}"


def _refused(content: dict[str, Any]) -> Refused:
    code = content["code"] if content["code"] in REASONS else "unavailable"
    if REASONS[code].status == UNAVAILABLE:
        return Unavailable(content["message"], reason=code)
    return Refused(
        content["message"],
        reason=code,
        param=content.get("param"),
        type=content.get("type"),
        headers=content.get("headers"),
    )


def durable_of(service: str, source: str) -> str:
    """The durable consumer by which ``service`` follows ``source``."""
    return f"{service}-{source}"


def inbox_of(service: str) -> str:
    """Where the answers to a service's own questions come in: its alone, so that no other can read them."""
    return f"_INBOX_{service}"


def safe_token(text: str) -> str:
    """``text`` as one NATS token: anything but letters, digits, ``-`` and ``_`` becomes ``=`` and its hex code."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else f"={ord(c):x}=" for c in text)


async def _whole(message: NatsMessage) -> NatsMessage:
    """The message itself, for handlers to read."""
    return message
