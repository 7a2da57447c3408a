"""`examples/subscriber.py`, run as its reader would."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.up import ROOT, bare_environment


@dataclass
class Subscriber:
    """One that listens."""

    process: "subprocess.Popen[str]"

    def hears(self, *sentences: str) -> None:
        """Read its lines until each of these was in one. It is the test's time limit that ends a vain wait."""
        missing = {*sentences}
        assert self.process.stdout is not None
        for line in self.process.stdout:
            missing -= {sentence for sentence in missing if sentence in line}
            if not missing:
                return
        raise AssertionError(f"it ended without {missing}")


@contextmanager
def subscriber(address: str) -> Iterator[Subscriber]:
    """Listening until the end of the block."""
    environment = {**bare_environment(), "KEYSTEAD_SUBSCRIBER_NATS_URL": address}
    program = [sys.executable, os.fspath(ROOT / "examples" / "subscriber.py")]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Subscriber(process)
        finally:
            process.kill()
