"""The settings of the process as a whole: where it listens, where its servers are."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainValidator

from keystead.port import parse_port
from shared.log import LEVELS
from shared.settings import Settings, setting

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")


def _level(value: object) -> str:
    if str(value).lower() not in LEVELS:
        raise ValueError(f"is not a level ({', '.join(LEVELS)})")
    return str(value).lower()


def _origins(value: object) -> tuple[str, ...]:
    """A comma list, or a default that is one already. A browser sends an origin in lower case, without a path."""
    origins = tuple(part.strip().lower() for part in value.split(",")) if isinstance(value, str) else ()
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("is not a comma list of origins (https://app.example.com,http://localhost:3000)")
    return origins


def _server(*schemes: str) -> BeforeValidator:
    def check(value: object) -> object:
        url = urlsplit(str(value))
        if url.scheme not in schemes or not url.hostname:
            raise ValueError(f"is not the address of a server ({schemes[0]}://user:password@host:port)")
        return value

    return BeforeValidator(check)


class ProcessSettings(Settings):
    """What `keystead up` is told. A command's argument goes before the variable."""

    host: str = setting("127.0.0.1", env=("KEYSTEAD_HOST",), says="The address to listen on.")
    port: Annotated[int, BeforeValidator(parse_port)] = setting(
        4000, env=("KEYSTEAD_PORT",), says="The port to listen on."
    )
    data_folder: Path = setting(
        Path(".keystead"), env=("KEYSTEAD_DATA_DIR",), says="Where `up` keeps the servers' data and what it made."
    )
    log_level: Annotated[str, BeforeValidator(_level)] = setting(
        "warning", env=("KEYSTEAD_LOG_LEVEL",), says=f"How much is logged, to standard error: {', '.join(LEVELS)}."
    )
    cors_origins: Annotated[tuple[str, ...], PlainValidator(_origins)] = setting(
        (), env=("KEYSTEAD_CORS_ORIGINS",), says="Origins whose pages may call, with a key and never with cookies."
    )
    secret_key: str = setting(
        env=("KEYSTEAD_SECRET_KEY",),
        says="≥ 32 bytes, base64; seals what must be sealed.",
    )
    master_key: str = setting(
        yaml_path="general_settings.master_key",
        env=("KEYSTEAD_MASTER_KEY", "LITELLM_MASTER_KEY"),
        says="The admin's key, from `sk-` on; acts as default_user_id.",
    )
    permit_weak_master_key: bool = setting(
        False,
        yaml_path="general_settings.dangerously_permit_weak_or_unset_master_key",
        says="Whether a weak master key may guard an address that others can reach.",
    )
    postgres_url: Annotated[str, _server("postgresql", "postgres")] | None = setting(
        None,
        yaml_path="general_settings.database_url",
        env=("KEYSTEAD_POSTGRES_URL", "DATABASE_URL"),
        says="The owner's log-in at a PostgreSQL ≥ 15. `up` starts one of its own.",
    )
    nats_url: Annotated[str, _server("nats", "tls")] | None = setting(
        None, env=("KEYSTEAD_NATS_URL",), says="A NATS server with JetStream. `up` starts one of its own."
    )
