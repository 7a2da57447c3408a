"""The log, the claims, the subscriptions' positions and the relay's."""

from pathlib import Path

from shared.schema import run_script

revision = "kernel_0001"
down_revision = None


def upgrade() -> None:
    run_script(Path(__file__).parents[2] / "sql" / "kernel.sql")
