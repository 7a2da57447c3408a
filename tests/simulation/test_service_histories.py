"""Whatever happens to an installation, each read model of each service is what its projection makes of the logs.

The same few histories in every run. KEYSTEAD_TEST_HISTORIES=1000 tries that many others (`make histories`).
"""

from collections.abc import Sequence

import pytest
from hypothesis import given, note

from tests.support.histories import TIMEOUT_SECONDS, histories
from tests.support.service_checks import check_all
from tests.support.service_history import history
from tests.support.service_steps import BEGINNING, Step, steps


@pytest.mark.timeout(TIMEOUT_SECONDS)
@histories(few=3)
@given(steps)
async def test_in_the_end_all_services_agree_with_the_logs_and_with_what_clients_were_told(
    happening: Sequence[Step],
) -> None:
    async with history() as it:
        for step in (*BEGINNING, *happening):
            note(f"{step}")
            note(f"    {await it.happens(step)}")
        await it.heals()
        await check_all(it.owner_url, it.loaded, it.acknowledged)
