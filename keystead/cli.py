"""The command line."""

import argparse
import asyncio
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from keystead.app import version
from keystead.child import ServerFailed
from keystead.data_folder import FolderUnusable
from keystead.servers import ServerMissing
from keystead.up import PortTaken, UpArguments, up
from shared.settings import SettingsInvalid

EXIT_FAILED, EXIT_SETTINGS = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for what went wrong, 2 for a bad setting or argument."""
    # The contract names EdDSA (RFC 8037), which clients know; its successor name is for later.
    warnings.filterwarnings("ignore", message="EdDSA is deprecated")
    parsed = _parser().parse_args(arguments)
    try:
        asyncio.run(up(UpArguments(parsed.data, parsed.config, parsed.host, parsed.port)))
    except SettingsInvalid as invalid:
        for fault in invalid.faults:
            print(fault, file=sys.stderr)  # noqa: T201 - for the person at the terminal
        return EXIT_SETTINGS
    except (FolderUnusable, PortTaken, ServerFailed, ServerMissing) as fault:
        print(f"keystead: {fault}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("keystead", description="Self-serve access to an LLM gateway.")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    starting = commands.add_parser("up", help="run everything on this machine, PostgreSQL and NATS included")
    starting.add_argument("--config", type=Path, help="the YAML file (KEYSTEAD_CONFIG)")
    starting.add_argument("--data", type=Path, help="the data folder (KEYSTEAD_DATA_DIR, ./.keystead)")
    starting.add_argument("--host", help="the address to listen on (KEYSTEAD_HOST, 127.0.0.1)")
    starting.add_argument("--port", type=_port, help="the port to listen on (KEYSTEAD_PORT, 4000)")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")
    return int(text)
