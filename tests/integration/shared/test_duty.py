"""Duty: one replica at a time relays, consumes and does the jobs; another takes over when it is gone (design §4)."""

import time
from typing import Any

import pytest

from shared import duty
from shared.service import Running
from tests.support.toys import LEDGER, READER, Place, Toys, deposit, eventually, open_account

HOLDERS = (
    "select pid from pg_locks join pg_stat_activity using (pid)"
    " where locktype = 'advisory' and application_name = 'keystead duty' and granted"
    " and datname = current_database() and usename = 'keystead_reader'"
)
TAKE_OVER_SECONDS = 5.0
SLOW_MACHINE_SECONDS = 5.0


async def test_one_of_two_replicas_has_the_duty(place: Place) -> None:
    async with place.running(READER).started() as first, place.running(READER).started() as second:
        await eventually(lambda: first.on_duty.is_set() or second.on_duty.is_set())
        assert first.on_duty.is_set() != second.on_duty.is_set()
        assert len(await place.fetch(HOLDERS)) == 1


async def test_two_services_have_a_duty_each(place: Place) -> None:
    async with place.running(LEDGER).started() as ledger, place.running(READER).started() as reader:
        await eventually(lambda: ledger.on_duty.is_set() and reader.on_duty.is_set())


async def test_when_its_holder_ends_the_other_takes_over(place: Place) -> None:
    async with place.running(LEDGER).started() as ledger, place.running(READER).started() as second:
        async with place.running(READER).started() as first:
            if not second.on_duty.is_set():
                await eventually(lambda: first.on_duty.is_set() or second.on_duty.is_set())
        await eventually(second.on_duty.is_set, TAKE_OVER_SECONDS + SLOW_MACHINE_SECONDS)
        await ledger.run(open_account, "a")
        await eventually(lambda: _applied(place, 1))


async def _applied(place: Place, position: int) -> bool:
    return bool(await place.value("select position from reader.subscriptions") == position)


async def test_when_its_session_is_killed_one_of_them_has_it_again_and_nothing_is_applied_twice(place: Place) -> None:
    async with (
        place.running(LEDGER).started() as ledger,
        place.running(READER).started() as first,
        place.running(READER).started() as second,
    ):
        await Toys(place, ledger, first).deposits(3)
        await eventually(lambda: first.on_duty.is_set() or second.on_duty.is_set())
        (killed,) = await _kill_the_holder(place)
        await ledger.run(deposit, "a", 5)
        await eventually(lambda: _another_holds(place, killed), TAKE_OVER_SECONDS + SLOW_MACHINE_SECONDS)
        await eventually(lambda: _applied(place, 5))
        assert await place.fetch("select balance, applied from reader.seen_1") == [(8, 5)]
        await eventually(lambda: first.on_duty.is_set() != second.on_duty.is_set())


async def _kill_the_holder(place: Place) -> list[int]:
    pids = [pid for (pid,) in await place.fetch(HOLDERS)]
    for pid in pids:
        await place.value("select pg_terminate_backend($1, 5000)", pid)
    return pids


async def _another_holds(place: Place, killed: int) -> bool:
    return [pid for (pid,) in await place.fetch(HOLDERS)] not in ([], [killed])


async def test_who_lost_the_duty_knows_it_and_stops_working(place: Place) -> None:
    async with place.running(READER).started() as reader:
        await eventually(reader.on_duty.is_set)
        await _kill_the_holder(place)
        await eventually(lambda: not reader.on_duty.is_set())
        await eventually(reader.on_duty.is_set)


async def test_a_frozen_holder_loses_the_duty_and_changes_nothing_when_it_wakes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends no heartbeat, so PostgreSQL ends its session; here it still consumes, as one does that just woke up."""
    async with place.running(LEDGER).started() as ledger:
        monkeypatch.setattr(duty, "HEARTBEAT_SECONDS", 3600)
        async with place.running(READER).started() as frozen:
            await eventually(frozen.on_duty.is_set)
            began = time.monotonic()
            monkeypatch.undo()
            async with place.running(READER).started() as second:
                await eventually(second.on_duty.is_set)
                assert time.monotonic() - began < TAKE_OVER_SECONDS + SLOW_MACHINE_SECONDS
                await _both_hear_and_apply_once(place, ledger, frozen, second)


async def _both_hear_and_apply_once(place: Place, ledger: Running[Any], *readers: Running[Any]) -> None:
    assert all(reader.on_duty.is_set() for reader in readers)
    await Toys(place, ledger, readers[0]).deposits(20)
    await eventually(lambda: _applied(place, 21))
    assert await place.fetch("select balance, applied from reader.seen_1") == [(20, 21)]
    assert await place.value("select count(*) from reader.events") == 20
    assert all(reader.on_duty.is_set() for reader in readers), "the frozen one has not noticed yet"


async def test_when_the_duty_session_can_not_be_made_it_is_tried_again(place: Place) -> None:
    database = place.owner_url.rpartition("/")[2]
    async with place.running(READER).started() as reader:
        await eventually(reader.on_duty.is_set)
        server = Place(f"{place.owner_url.rpartition('/')[0]}/postgres", "", "")
        async with server.owner() as owner:
            await owner.execute(f"alter database {database} with allow_connections false")
            await owner.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1", database
            )
            await eventually(lambda: not reader.on_duty.is_set())
            await owner.execute(f"alter database {database} with allow_connections true")
        await eventually(reader.on_duty.is_set)
