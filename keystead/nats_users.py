"""Who may say and hear what at NATS: one user a service, each with its own subjects and no more."""

from collections.abc import Sequence

from keystead.app import SERVICES, passwords
from keystead.servers import NatsUser
from shared.keyring import Keyring


def nats_users(keyring: Keyring) -> list[NatsUser]:
    """The users of a NATS server that serves one installation."""
    words = passwords(keyring, "nats")
    return [_user(service.name, words[service.name]) for service in SERVICES]


def nats_urls(url: str, keyring: Keyring) -> dict[str, str]:
    """Each service's own log-in at the server of ``url``."""
    scheme, _, rest = url.partition("://")
    place = rest.rpartition("@")[2]
    return {name: f"{scheme}://{name}:{word}@{place}" for name, word in passwords(keyring, "nats").items()}


def _user(service: str, password: str) -> NatsUser:
    return NatsUser(
        name=service,
        password=password,
        publish=[
            f"{service}.>",
            "ask.>",
            "topic.>",
            "_INBOX.>",
            *_stream_calls(service.upper()),
            *(call for source in SERVICES for call in _consumer_calls(source.name.upper())),
        ],
        subscribe=["_INBOX.>", f"ask.{service}.*", "topic.>"],
    )


def _stream_calls(stream: str) -> Sequence[str]:
    """What declaring one's own stream takes."""
    return [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO")]


def _consumer_calls(stream: str) -> Sequence[str]:
    """What following a stream takes."""
    return [
        f"$JS.API.STREAM.INFO.{stream}",
        *(f"$JS.API.CONSUMER.{verb}.{stream}.>" for verb in ("CREATE", "INFO", "DELETE", "MSG.NEXT")),
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.ACK.{stream}.>",
        "$JS.FC.>",
    ]
