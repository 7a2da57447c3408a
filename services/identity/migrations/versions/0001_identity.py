"""Credentials, sealing keys, and when sessions were last seen."""

from pathlib import Path

from shared.schema import run_script

revision = "identity_0001"
down_revision = None


def upgrade() -> None:
    run_script(Path(__file__).with_suffix(".sql"))
