"""Windows, holds, workers and the usage ledger."""

from pathlib import Path

from shared.schema import run_script

revision = "budgets_0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    run_script(Path(__file__).with_suffix(".sql"))
