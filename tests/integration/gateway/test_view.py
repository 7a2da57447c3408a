"""What a worker knows and whether it may go by it, with real logs, real streams and a real budgets (design §5)."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.gateway.view import ASK_AGAIN_MAX, SESSION_KEPT_SECONDS, boot_seconds
from services.identity.events import SessionEnded, UserDeleted, UserRoleChanged
from services.identity.requests import FoundSession
from shared.errors import Unavailable
from shared.events import UnknownEvent
from tests.support.eventually import eventually
from tests.support.view_world import BOUND_SECONDS, NOON, ViewWorld, key_blocked, key_updated, view_world


@pytest_asyncio.fixture(scope="module")
async def relayed() -> AsyncIterator[ViewWorld]:
    async with view_world() as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def unrelayed() -> AsyncIterator[ViewWorld]:
    """The streams carry what a test sends, and nothing else."""
    async with view_world(relays=False) as made:
        yield made


@pytest.fixture
def world(relayed: ViewWorld) -> ViewWorld:
    return _fresh(relayed)


@pytest.fixture
def silent(unrelayed: ViewWorld) -> ViewWorld:
    return _fresh(unrelayed)


def _fresh(world: ViewWorld) -> ViewWorld:
    for owner in (world.keys, world.identity):
        owner.answers.clear()
        owner.asked, owner.behind = 0, None
        owner.looked.clear()
        owner.may_answer.set()
    return world


class Clock:
    """The worker's own clock, and as much later as a test makes it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return boot_seconds() + self.ahead


# Being a worker


async def test_a_worker_admits_from_its_first_renewal_until_it_leaves(world: ViewWorld) -> None:
    view = world.view()
    admitted = [view.admits]
    async with view.living():
        await view.renewed.wait()
        admitted.append(view.admits)
        assert await world.workers() == [view.worker_id]
    assert [*admitted, view.admits] == [False, True, False]
    assert await world.workers() == []


async def test_a_worker_can_be_ended_at_any_moment(world: ViewWorld) -> None:
    for turns in range(100):
        async with asyncio.timeout(10), world.view().living():
            for _ in range(turns):
                await asyncio.sleep(0)
    assert await world.workers() == []


async def test_a_worker_admits_no_longer_than_its_renewal_counts(world: ViewWorld) -> None:
    clock = Clock()
    async with world.living(clock) as view:
        clock.ahead += BOUND_SECONDS
        assert not view.admits

        async def renewed() -> bool:
            return view.admits

        await eventually(renewed)


async def test_a_worker_that_was_given_up_joins_under_another_id_with_an_empty_view(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        first = view.worker_id
        await view.key("t")
        await world.give_up(first)

        async def joined_again() -> bool:
            return view.admits and view.worker_id not in ("", first)

        await eventually(joined_again)
        assert await world.workers() == [view.worker_id]
        await view.key("t")
        assert world.keys.asked == 2


async def test_a_worker_that_was_given_up_admits_nothing_by_what_it_knew(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        key = await view.key("t")
        await world.give_up(view.worker_id)

        async def noticed() -> bool:
            return not view.still(key, None)

        await eventually(noticed)
        await world.blocks()
        assert (await view.key("t")).blocked


async def test_without_budgets_the_renewal_runs_out_and_every_look_up_asks_the_owner(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        await view.key("t")
        await world.budgets.go()

        async def run_out() -> bool:
            return not view.admits

        await eventually(run_out, BOUND_SECONDS + 3)
        asked = world.keys.asked
        assert (await view.key("t")).exists
        assert (await view.key("t")).exists
        assert world.keys.asked == asked + 2
        await world.budgets.come_back()

        async def renewed() -> bool:
            return view.admits

        await eventually(renewed, 10)


async def test_a_worker_begins_at_the_owners_last_positions(world: ViewWorld) -> None:
    position = await world.keys.happened(key_blocked("of before"))
    async with world.living() as view:
        assert view.applied["keys"] >= position
        assert view.applied["identity"] == await world.identity.position()


# What is known


async def test_an_owner_is_asked_once_until_something_happens(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        first = await view.key("t")
        assert await view.key("t") is first
        assert world.keys.asked == 1
        await world.applied(view, "keys", await world.keys.happened(key_blocked("another")))
        assert await view.key("t") is first
        await world.applied(view, "keys", await world.blocks())
        assert (await view.key("t")).blocked
        assert world.keys.asked == 2


async def test_what_is_not_there_is_asked_for_each_time(world: ViewWorld) -> None:
    async with world.living() as view:
        assert not (await view.key("t")).exists
        world.has_key()
        assert (await view.key("t")).exists


async def test_fifty_look_ups_at_once_go_by_one_answer(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        found = await asyncio.gather(*(view.key("t") for _ in range(50)))
        assert {id(key) for key in found} == {id(found[0])}
        assert view.still(found[0], None)


async def test_a_look_up_that_something_overtakes_is_made_again(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        world.keys.hold_up()
        looking = asyncio.create_task(view.key("t"))
        await world.keys.looked.wait()
        await world.applied(view, "keys", await world.blocks())
        world.keys.may_answer.set()
        assert (await looking).blocked
        assert world.keys.asked == 2


async def test_a_look_up_that_began_before_the_worker_joined_is_made_again(world: ViewWorld) -> None:
    world.has_key()
    view = world.view()
    world.keys.hold_up()
    looking = asyncio.create_task(view.key("t"))
    await world.keys.looked.wait()
    await world.blocks()  # nobody hears it
    async with view.living():
        await view.renewed.wait()
        world.keys.may_answer.set()
        assert (await looking).blocked
        assert (await view.key("t")).blocked


async def test_an_owner_that_is_behind_its_own_events_is_asked_five_times_and_no_more(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        world.keys.behind = await world.keys.position()
        await world.applied(view, "keys", await world.blocks())
        with pytest.raises(Unavailable):
            await view.key("t")
        assert world.keys.asked == ASK_AGAIN_MAX


async def test_what_was_found_holds_until_something_is_heard_of_key_or_user(world: ViewWorld) -> None:
    world.has_key()
    world.has_user()
    async with world.living() as view:
        key, user = await view.key("t"), await view.user("ada")
        assert view.still(key, user) and view.still(key, None)
        changed = UserRoleChanged(user_id="ada", role="proxy_admin", updated_at=NOON)
        await world.applied(view, "identity", await world.identity.happened(changed))
        assert not view.still(key, user)
        assert view.still(key, None)
        await world.applied(view, "keys", await world.keys.happened(key_updated()))
        assert not view.still(key, None)


async def test_a_deleted_user_and_an_ended_session_are_forgotten_each_alone(world: ViewWorld) -> None:
    world.has_user()
    world.identity.answers["s"] = FoundSession(position=0, exists=True, session_id="S", user_id="ada")
    async with world.living() as view:
        await view.user("ada")
        await view.session("s")
        ended = SessionEnded(session_id="S", user_id="ada", token="s", reason="logged_out", ended_at=NOON)
        await world.applied(view, "identity", await world.identity.happened(ended))
        del world.identity.answers["s"]
        assert not (await view.session("s")).exists
        assert (await view.user("ada")).exists
        assert world.identity.asked == 3
        gone = UserDeleted(user_id="ada", deleted_at=NOON)
        await world.applied(view, "identity", await world.identity.happened(gone))
        del world.identity.answers["ada"]
        assert not (await view.user("ada")).exists


async def test_a_session_is_asked_for_again_after_half_a_minute(world: ViewWorld) -> None:
    world.identity.answers["s"] = FoundSession(position=0, exists=True, session_id="S", user_id="ada")
    clock = Clock()
    async with world.living(clock) as view:
        await view.session("s")
        await view.session("s")
        assert world.identity.asked == 1
        clock.ahead += SESSION_KEPT_SECONDS
        await view.session("s")
        assert world.identity.asked == 2


async def test_an_event_of_a_later_version_ends_all_that_is_known_of_its_source(world: ViewWorld) -> None:
    world.has_key()
    world.has_user()
    async with world.living() as view:
        key, user = await view.key("t"), await view.user("ada")
        later = UnknownEvent(type="KeyRotated", version=1, data={"token": "t"})
        await world.applied(view, "keys", await world.keys.happened(later))
        assert not view.still(key, user)
        await view.key("t")
        assert await view.user("ada") is user
        assert world.keys.asked == 2


# What is heard, and what is not


async def test_a_barrier_is_passed_at_once_though_the_relay_says_nothing(silent: ViewWorld) -> None:
    silent.has_key()
    async with silent.living() as view:
        await view.key("t")
        began = time.monotonic()
        position = await silent.blocks()
        await silent.passes_barrier(keys=position)
        assert view.applied["keys"] >= position
        assert time.monotonic() - began < 0.9  # and not with the next renewal
        assert (await view.key("t")).blocked


async def test_a_silent_stream_is_noticed_within_a_second_or_so(silent: ViewWorld) -> None:
    async with silent.living() as view:
        await silent.applied(view, "keys", await silent.keys.happened(key_blocked()), seconds=5)


async def test_a_gap_in_the_stream_is_filled_from_the_log(silent: ViewWorld) -> None:
    silent.has_key()
    async with silent.living() as view:
        await view.key("t")
        before = view.applied["keys"]
        await silent.blocks()
        last = await silent.keys.happened(key_blocked("b"), key_blocked("c"))
        await silent.keys.publish(last)
        await silent.applied(view, "keys", last)
        assert last == before + 3
        assert (await view.key("t")).blocked


async def test_what_comes_twice_or_late_changes_nothing(silent: ViewWorld) -> None:
    silent.has_key()
    async with silent.living() as view:
        last = await silent.keys.happened(key_blocked("a"), key_blocked("b"))
        await silent.keys.publish(last)
        await silent.applied(view, "keys", last)
        known = await view.key("t")
        await silent.keys.publish(last - 1)
        following = await silent.keys.happened(key_blocked("c"))
        await silent.keys.publish(following)
        await silent.applied(view, "keys", following)
        assert await view.key("t") is known


async def test_events_that_are_heard_while_the_log_is_read_are_applied_once(silent: ViewWorld) -> None:
    async with silent.living() as view:
        before = view.applied["keys"]
        last = await silent.keys.happened(key_blocked("a"), key_blocked("b"), key_blocked("c"))
        first, second, _ = await silent.keys.recorded(after=before)
        async with silent.owner.transaction():
            await silent.owner.execute("lock table keys.events in access exclusive mode")
            reading = asyncio.create_task(view.catch_up("keys", last))
            await _somebody_waits_for_a_lock(silent)
            await view._hear("keys", first.to_cloudevent())
            await view._hear("keys", second.to_cloudevent())
            assert view.applied["keys"] == before + 2
        await reading
        assert view.applied["keys"] == last == before + 3


async def test_what_is_no_event_is_passed_over(silent: ViewWorld) -> None:
    async with silent.living() as view:
        wire = silent.keys.running.wire
        await wire.jetstream.publish(f"{wire.namespace}keys.KeyBlocked.x", b"no event")
        await silent.applied(view, "keys", await silent.keys.happened(key_blocked()))
        assert view.admits


async def test_an_event_that_cannot_be_read_ends_admission(silent: ViewWorld) -> None:
    silent.has_key()
    async with silent.living() as view:
        position = await silent.keys.happened(key_blocked())
        as_it_was = await silent.owner.fetchval("select data::text from keys.events where position = $1", position)
        try:
            await _spoil(silent, position, "{}")

            async def stopped() -> bool:
                return not view.admits

            await eventually(stopped, 5)
        finally:
            await _spoil(silent, position, as_it_was)


async def test_a_stream_that_nats_lost_is_made_up_for(world: ViewWorld) -> None:
    world.has_key()
    async with world.living() as view:
        await view.key("t")
        wire = world.keys.running.wire
        await wire.jetstream.delete_stream(wire.stream_of("keys"))
        position = await world.blocks()
        await world.passes_barrier(keys=position)
        assert (await view.key("t")).blocked
        await world.applied(view, "keys", await world.keys.happened(key_blocked("another")), seconds=10)
        assert view.admits


async def test_a_barrier_waits_for_no_worker_that_has_left(world: ViewWorld) -> None:
    async with world.living():
        pass
    assert await world.passes_barrier(keys=10**9) == 0


async def _somebody_waits_for_a_lock(world: ViewWorld) -> None:
    async def is_so() -> bool:
        # Within a transaction the view of the activity stays as it was first seen.
        await world.owner.execute("select pg_stat_clear_snapshot()")
        waiting = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        return bool(await world.owner.fetchval(waiting))

    await eventually(is_so)


async def _spoil(world: ViewWorld, position: int, data: str) -> None:
    """What no role may do: change what is in the log."""
    await world.owner.execute("alter table keys.events disable trigger all")
    await world.owner.execute("update keys.events set data = $2::jsonb where position = $1", position, data)
    await world.owner.execute("alter table keys.events enable trigger all")
