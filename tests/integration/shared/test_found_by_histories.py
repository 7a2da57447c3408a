"""What histories that chance drew have found, each said once more by itself."""

import pytest

from shared.errors import Unavailable
from shared.event_store import Transaction
from tests.support.faults import LoseSessions, befalls
from tests.support.toys import Opened, Place, toys

STREAMS = [f"s{number % 7}-{number}" for number in range(50)]


async def test_times_do_not_go_back_within_a_commit_of_many_streams(place: Place) -> None:
    """They are inserted in the order of their streams, and numbered in the order in which they happened."""

    async def record(tx: Transaction) -> None:
        for stream in STREAMS:
            await tx.record(stream, Opened(account=stream))

    async with toys(place) as running:
        await running.ledger.run(record)
        rows = await place.fetch("select stream, recorded_at from ledger.events order by position")
    assert [stream for stream, _ in rows] == STREAMS
    assert [at for _, at in rows] == sorted(at for _, at in rows)


async def test_a_fence_that_meets_a_dead_session_is_unavailable(place: Place) -> None:
    async with toys(place) as running:
        await running.heard()
        await befalls(place.owner_url, LoseSessions("reader"), running.reader)
        with pytest.raises(Unavailable):
            await running.heard()
        await running.heard()
