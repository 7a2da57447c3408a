"""Whatever happens to those who carry it, every read model is the fold of the logs (design §3, §4).

The same few histories in every run. KEYSTEAD_TEST_HISTORIES=1000 tries that many others (`make histories`).
"""

from collections.abc import Sequence

import pytest
from hypothesis import given, note

from tests.support.histories import TIMEOUT_SECONDS, histories
from tests.support.toy_history import history
from tests.support.toy_steps import Step, steps


@pytest.mark.timeout(TIMEOUT_SECONDS)
@histories(few=5)
@given(steps)
async def test_in_the_end_every_read_model_is_the_fold_of_the_logs(happening: Sequence[Step]) -> None:
    async with history() as it:
        for step in happening:
            note(f"{step}")
            note(f"    {await it.happens(step)}")
        await it.heals()
        await it.check()
