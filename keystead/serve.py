"""``keystead serve NAME…``: some services, against the PostgreSQL and the NATS that somebody else runs.

The gateway is the way in; it passes the routes of services in other processes on to them.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keystead.app import SERVICES, Connections, compose, postgres_urls
from keystead.app import migrate as migrate_schemas
from keystead.configuration import UNMADE, Configuration, configuration
from keystead.data_folder import write_private
from keystead.given_servers import check_migrated, check_nats, check_postgres, until_there
from keystead.nats_users import nats_accounts, nats_urls, nats_users
from keystead.process import Life, address_of, listening, run_to_its_end, say, serve_http, tell, until_signalled
from services.gateway.service import SERVICE as GATEWAY
from shared.keyring import Keyring
from shared.log import configure
from shared.service import Service
from shared.settings import SettingsInvalid, read_file

NAMES = tuple(service.name for service in SERVICES)
KNOW_MASTER_KEY = frozenset({"gateway", "identity"})
# An installation may go without these; without any of the others no flow would end.
DISPENSABLE = frozenset({"notifications", "portal"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to serve, by what settings, and where the other services are that a gateway here passes requests on to."""

    services: Sequence[Service[Any]]
    told: Configuration
    elsewhere: Mapping[str, str]
    relay_delay_seconds: float


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """What the command line says; None where it says nothing. ``relay_delay_seconds`` is for tests."""

    services: Sequence[str]
    config: Path | None = None
    host: str | None = None
    port: int | None = None
    relay_delay_seconds: float = 0.0


def run(arguments: ServeArguments) -> int:
    """Serve until SIGINT or SIGTERM; the exit status."""
    return run_to_its_end(serve(arguments, os.environ))


def run_migrate(config: Path | None) -> int:
    """Make or bring up to date roles, schemas and tables; the exit status."""
    return run_to_its_end(_migrate(_with(os.environ, KEYSTEAD_CONFIG=config)))


def run_nats_config(config: Path | None, output: Path | None) -> int:
    """Tell the part of a NATS server's configuration that lets an installation's services in; the exit status."""
    return run_to_its_end(_nats_config(_with(os.environ, KEYSTEAD_CONFIG=config), output))


async def serve(arguments: ServeArguments, environment: Mapping[str, str]) -> None:
    """Serve until SIGINT or SIGTERM. Raises what the person at the terminal must be told."""
    environ = _with(
        environment, KEYSTEAD_CONFIG=arguments.config, KEYSTEAD_HOST=arguments.host, KEYSTEAD_PORT=arguments.port
    )
    required = ["KEYSTEAD_POSTGRES_URL", "KEYSTEAD_NATS_URL", "PROXY_BASE_URL"]
    told = _told(environ, *required, *(["KEYSTEAD_MASTER_KEY"] if KNOW_MASTER_KEY & {*arguments.services} else []))
    services = [service for service in SERVICES if service.name in arguments.services]
    plan = Plan(services, told, _elsewhere(services, told), arguments.relay_delay_seconds)
    configure(told.process.log_level, "json")
    tell(*(f"warning: {warning}" for warning in told.warnings))
    with listening(told.process.host, told.process.port, f"serve {' '.join(arguments.services)}") as at:
        await until_signalled(lambda life: _serve(plan, at, life))


async def _serve(plan: Plan, at: socket.socket, life: Life) -> None:
    process = plan.told.process
    keyring = Keyring(process.secret_key)
    connections = Connections(
        {**postgres_urls(str(process.postgres_url), keyring), **plan.told.own_urls("POSTGRES")},
        {**nats_urls(str(process.nats_url), keyring), **plan.told.own_urls("NATS")},
        relay_delay_seconds=plan.relay_delay_seconds,
    )
    for service in plan.services:
        await until_there(partial(check_migrated, connections.postgres_urls[service.name], service))
        await until_there(partial(check_nats, connections.nats_urls[service.name]))
    composition = compose(
        plan.services,
        plan.told.services,
        connections,
        keyring=keyring,
        elsewhere=plan.elsewhere,
        cors_origins=process.cors_origins,
    )
    async with composition.started():
        names = ", ".join(service.name for service in plan.services)
        await serve_http(composition.app, at, f"Keystead serves {names}: {address_of(process)}", life)


async def _migrate(environ: Mapping[str, str]) -> None:
    told = _told(environ, "KEYSTEAD_POSTGRES_URL")
    owner_url = str(told.process.postgres_url)
    await until_there(lambda: check_postgres(owner_url))
    await migrate_schemas(owner_url, Keyring(told.process.secret_key))


async def _nats_config(environ: Mapping[str, str], output: Path | None) -> None:
    accounts = nats_accounts(nats_users(Keyring(_told(environ).process.secret_key)))
    if output is None:
        say(accounts)
    else:
        write_private(output, accounts)


def _told(environ: Mapping[str, str], *required: str) -> Configuration:
    """The configuration, in which these and the secret key are really given. Raises ``SettingsInvalid``."""
    config = environ.get("KEYSTEAD_CONFIG")
    told = configuration(read_file(Path(config) if config else None), environ, UNMADE)
    given = {
        "KEYSTEAD_SECRET_KEY": told.process.secret_key != UNMADE.secret_key,
        "KEYSTEAD_MASTER_KEY": told.process.master_key != UNMADE.master_key,
        "KEYSTEAD_POSTGRES_URL": told.process.postgres_url is not None,
        "KEYSTEAD_NATS_URL": told.process.nats_url is not None,
        "PROXY_BASE_URL": told.services[GATEWAY.name].base_url != UNMADE.base_url,
    }
    missing = [name for name in ("KEYSTEAD_SECRET_KEY", *required) if not given[name]]
    if missing:
        raise SettingsInvalid([f"{name}: is required, and only `keystead up` can make one" for name in missing])
    return told


def _elsewhere(services: Sequence[Service[Any]], told: Configuration) -> dict[str, str]:
    """Where the services are that a gateway here passes routes on to. Raises ``SettingsInvalid``."""
    if GATEWAY not in services:
        return {}
    here = {service.name for service in services}
    urls = {name: url for name, url in told.service_urls().items() if name not in here}
    missing = [name for name in NAMES if name not in here and name not in urls and name not in DISPENSABLE]
    if missing:
        raise SettingsInvalid(
            [f"KEYSTEAD_{name.upper()}_URL: is required by a gateway without {name} beside it" for name in missing]
        )
    return urls


def _with(environment: Mapping[str, str], **said: object) -> dict[str, str]:
    """The environment, with what the command line says before it."""
    return {**environment, **{name: str(value) for name, value in said.items() if value is not None}}
