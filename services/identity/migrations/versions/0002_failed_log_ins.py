"""Log-ins that failed."""

from pathlib import Path

from shared.schema import run_script

revision = "identity_0002"
down_revision = "identity_0001"


def upgrade() -> None:
    run_script(Path(__file__).with_suffix(".sql"))
