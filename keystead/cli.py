"""The command line."""

import argparse
import gc
import importlib.util
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keystead.port import parse_port
from keystead.version import version

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for what went wrong, 2 for a bad setting or argument."""
    # The contract names EdDSA (RFC 8037), which clients know; its successor name is for later.
    warnings.filterwarnings("ignore", message="EdDSA is deprecated")
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("keystead", description="Self-serve access to an LLM gateway.")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    starting = commands.add_parser("up", help="run everything on this machine, PostgreSQL and NATS included")
    _add_config(starting)
    starting.add_argument("--data", type=Path, metavar="DIR", help="the data folder (KEYSTEAD_DATA_DIR, ./.keystead)")
    _add_address(starting)
    starting.set_defaults(run=_up)
    serving = commands.add_parser("serve", help="run some services, against servers that somebody else runs")
    serving.add_argument("services", nargs="+", choices=_names(), metavar="NAME", help=", ".join(_names()))
    _add_config(serving)
    _add_address(serving)
    serving.set_defaults(run=_serve)
    migrating = commands.add_parser("migrate", help="make or update the database that `serve` needs, as its owner")
    _add_config(migrating)
    migrating.set_defaults(run=_migrate)
    telling = commands.add_parser("nats-config", help="print the users that a NATS server must know (with passwords)")
    _add_config(telling)
    telling.add_argument("--output", type=Path, metavar="FILE", help="write it there, for its owner's eyes only")
    telling.set_defaults(run=_nats_config)
    writing = commands.add_parser("docs", help="write the pages that are made from the code")
    writing.add_argument("folder", type=Path, nargs="?", default=Path("docs"), help="where to (./docs)")
    writing.add_argument("--check", action="store_true", help="write nothing; fail if one of them is stale")
    writing.set_defaults(run=_docs)
    return parser


def _names() -> list[str]:
    """The services, from their folders: to import them takes a second."""
    found = importlib.util.find_spec("services")
    folders = found.submodule_search_locations if found else None
    return sorted(path.parent.name for folder in folders or () for path in Path(folder).glob("*/service.py"))


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="the YAML file (KEYSTEAD_CONFIG)")


def _add_address(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", help="the address to listen on (KEYSTEAD_HOST, 127.0.0.1)")
    command.add_argument("--port", type=_port, help="the port to listen on (KEYSTEAD_PORT, 4000)")


def _port(text: str) -> int:
    try:
        return parse_port(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(f"{text!r} {fault}") from fault


def _up(parsed: argparse.Namespace) -> int:
    with _importing():
        from keystead.up import UpArguments, run  # noqa: PLC0415 - a second, that a wrong argument need not wait for
    return run(UpArguments(parsed.data, parsed.config, parsed.host, parsed.port))


def _serve(parsed: argparse.Namespace) -> int:
    with _importing():
        from keystead.serve import ServeArguments, run  # noqa: PLC0415 - as above
    return run(ServeArguments(parsed.services, parsed.config, parsed.host, parsed.port))


def _migrate(parsed: argparse.Namespace) -> int:
    from keystead.serve import run_migrate  # noqa: PLC0415 - as above

    return run_migrate(parsed.config)


def _nats_config(parsed: argparse.Namespace) -> int:
    from keystead.serve import run_nats_config  # noqa: PLC0415 - as above

    return run_nats_config(parsed.config, parsed.output)


@contextmanager
def _importing() -> Iterator[None]:
    """Importing makes much and drops little: to collect meanwhile is an eighth of the start."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _docs(parsed: argparse.Namespace) -> int:
    from keystead.docs import check, write  # noqa: PLC0415 - as above

    if not parsed.check:
        write(parsed.folder)
        return 0
    stale = check(parsed.folder)
    if stale:
        print(*stale, "Run `make docs`, and look at what it changed.", sep="\n", file=sys.stderr)
    return 1 if stale else 0
