"""The command line."""

import argparse
import gc
import signal
import warnings
from collections.abc import Sequence
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
    starting.add_argument("--config", type=Path, metavar="FILE", help="the YAML file (KEYSTEAD_CONFIG)")
    starting.add_argument("--data", type=Path, metavar="DIR", help="the data folder (KEYSTEAD_DATA_DIR, ./.keystead)")
    starting.add_argument("--host", help="the address to listen on (KEYSTEAD_HOST, 127.0.0.1)")
    starting.add_argument("--port", type=_port, help="the port to listen on (KEYSTEAD_PORT, 4000)")
    starting.set_defaults(run=_up)
    writing = commands.add_parser("docs", help="write the pages that are made from the code")
    writing.add_argument("folder", type=Path, nargs="?", default=Path("docs"), help="where to (./docs)")
    writing.set_defaults(run=_docs)
    return parser


def _port(text: str) -> int:
    try:
        return parse_port(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(f"{text!r} {fault}") from fault


def _up(parsed: argparse.Namespace) -> int:
    gc.disable()  # importing makes much and drops little: to collect meanwhile is an eighth of the start
    from keystead.up import UpArguments, run  # noqa: PLC0415 - a second, that a wrong argument need not wait for

    gc.freeze()
    gc.enable()
    return run(UpArguments(parsed.data, parsed.config, parsed.host, parsed.port))


def _docs(parsed: argparse.Namespace) -> int:
    from keystead.docs import write  # noqa: PLC0415 - as above

    write(parsed.folder)
    return 0
