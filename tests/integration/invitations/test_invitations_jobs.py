"""What time causes."""

from datetime import timedelta

from services.invitations import handlers, jobs
from services.invitations.handlers import Link
from tests.support.invitations_world import NOON, World


async def invite(world: World, user_id: str, duration: str) -> Link:
    return await world.invitations.run(handlers.create_invitation, user_id=user_id, duration=duration)


async def position(world: World) -> int:
    return await world.invitations.run(lambda tx: tx.last_position())


async def test_what_is_due_expires_by_an_event_once_and_looks_the_same_before_and_after(world: World) -> None:
    user_id = await world.create_user()
    due, not_yet = await invite(world, user_id, "1h"), await invite(world, user_id, "2h")
    world.clock.now = NOON + timedelta(hours=1)
    before = await world.invitations.run(handlers.get_invitation, due.invitation.ref)
    begun = await position(world)
    await jobs.expire_invitations(world.invitations)
    assert await position(world) == begun + 1
    assert await world.invitations.run(handlers.get_invitation, due.invitation.ref) == before
    assert before.status == "expired"
    assert (await world.invitations.run(handlers.get_invitation, not_yet.invitation.ref)).status == "open"
    await jobs.expire_invitations(world.invitations)
    assert await position(world) == begun + 1


async def test_more_than_one_batch_expires_in_one_round(world: World) -> None:
    user_id = await world.create_user()
    links = [await invite(world, user_id, "1h") for _ in range(jobs.BATCH + 1)]
    world.clock.now = NOON + timedelta(hours=1)
    begun = await position(world)
    await jobs.expire_invitations(world.invitations)
    assert await position(world) == begun + len(links)
