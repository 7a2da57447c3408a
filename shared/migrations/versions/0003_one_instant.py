"""A transaction's events are recorded at one instant, so that times never go back between them."""

from pathlib import Path

from shared.schema import run_script

revision = "kernel_0003"
down_revision = "kernel_0002"


def upgrade() -> None:
    run_script(Path(__file__).parents[2] / "sql" / "append_events.sql")
