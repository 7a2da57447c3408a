"""How events are appended. Until here each row had an instant of its own, and times could go back inside a batch.

The function has one file, the newest: on a new database this migration is what makes it.
"""

from pathlib import Path

from shared.schema import run_script

revision = "kernel_0003"
down_revision = "kernel_0002"


def upgrade() -> None:
    run_script(Path(__file__).parents[2] / "sql" / "append_events.sql")
