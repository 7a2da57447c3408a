"""What requests under an Idempotency-Key were answered."""

from pathlib import Path

from shared.schema import run_script

revision = "kernel_0002"
down_revision = "kernel_0001"


def upgrade() -> None:
    run_script(Path(__file__).parents[2] / "sql" / "kept_answers.sql")
