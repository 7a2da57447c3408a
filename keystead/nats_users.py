"""Who may say and hear what at NATS: one user a service, each with its own subjects and no more."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keystead.app import SERVICES, passwords
from keystead.servers import NatsUser, accounts_of
from services.gateway.service import SERVICE as GATEWAY
from services.gateway.view import SOURCES as HEARD_BY_WORKERS
from shared.keyring import Keyring
from shared.service import Service
from shared.wire import OUTSIDE_CONSUMER, durable_of, inbox_of

ANY = "*"
SUBSCRIBER = "subscriber"


def nats_users(keyring: Keyring) -> list[NatsUser]:
    """The users of a NATS server that serves one installation."""
    words = passwords(keyring, "nats")
    return [*(_user(service, words[service.name]) for service in SERVICES), _subscriber(keyring)]


def nats_accounts(users: Sequence[NatsUser]) -> str:
    """The part of a NATS server's configuration that lets them in."""
    return f"accounts: {json.dumps(accounts_of(users), indent=2)}\n"


def subscriber_url(url: str, keyring: Keyring) -> str:
    """The log-in of a program that is none of ours, and may only listen, at the server of ``url``."""
    scheme, _, place = url.partition("://")
    return f"{scheme}://{SUBSCRIBER}:{_subscriber(keyring).password}@{place}"


def nats_urls(url: str, keyring: Keyring) -> dict[str, str]:
    """Each service's own log-in at the server of ``url``; all have the one that it names, if it names one."""
    scheme, _, place = url.partition("://")
    if "@" in place:
        return dict.fromkeys((service.name for service in SERVICES), url)
    return {name: f"{scheme}://{name}:{word}@{place}" for name, word in passwords(keyring, "nats").items()}


def _user(service: Service[Any], password: str) -> NatsUser:
    """Tells its own events and no other's, asks anyone, answers what it is asked, reads only its own answers."""
    name = service.name
    return NatsUser(
        name=name,
        password=password,
        publish=[f"{name}.>", "ask.*.*", "topic.*", *_declaring(name), *_following_all(service)],
        subscribe=[f"{inbox_of(name)}.>", f"ask.{name}.*", "topic.*"],
    )


def _subscriber(keyring: Keyring) -> NatsUser:
    """Hears every service's events, by consumers that were made for it: who may make one could have events sent
    anywhere. So could who asks one for them in the services' account, and any answer of NATS's, as a command to it.
    """
    streams = [service.name.upper() for service in SERVICES if service.catalog.types]
    return NatsUser(
        name=SUBSCRIBER,
        password=keyring.password(f"nats:{SUBSCRIBER}"),
        publish=[subject for stream in streams for subject in _taking(stream, OUTSIDE_CONSUMER)],
        subscribe=[f"{inbox_of(SUBSCRIBER)}.>"],
        outside=True,
    )


def _declaring(source: str) -> Iterator[str]:
    """What declaring one's own stream takes."""
    for verb in ("CREATE", "UPDATE", "INFO"):
        yield f"$JS.API.STREAM.{verb}.{source.upper()}"
    yield f"$JS.API.CONSUMER.DURABLE.CREATE.{source.upper()}.{OUTSIDE_CONSUMER}"
    yield f"$JS.API.CONSUMER.CREATE.{source.upper()}.{OUTSIDE_CONSUMER}"


def _following_all(service: Service[Any]) -> Iterator[str]:
    for source, consumer in _consumers(service).items():
        yield from _following(source.upper(), consumer)


def _consumers(service: Service[Any]) -> Mapping[str, str]:
    """The streams that a service follows, and by which consumer; a worker's are new ones, named by the server."""
    if service.name == GATEWAY.name:
        return dict.fromkeys(HEARD_BY_WORKERS, ANY)
    return {each.source: durable_of(service.name, each.source) for each in service.subscriptions}


def _following(stream: str, consumer: str) -> Iterator[str]:
    """What following a stream takes."""
    if consumer == ANY:
        yield f"$JS.API.CONSUMER.CREATE.{stream}"
        yield f"$JS.FC.{stream}.>"
    yield f"$JS.API.STREAM.INFO.{stream}"
    yield f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}"
    yield f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}.>"
    yield f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}"
    yield f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}"
    yield f"$JS.API.CONSUMER.INFO.{stream}.{consumer}"
    yield from _taking(stream, consumer)


def _taking(stream: str, consumer: str) -> Iterator[str]:
    """What taking messages from a consumer takes."""
    yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
    yield f"$JS.ACK.{stream}.{consumer}.>"
