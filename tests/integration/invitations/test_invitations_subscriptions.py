"""What invitations does about what happened in identity."""

import json
import uuid
from datetime import timedelta

from services.identity.events import CATALOG, WantedInvitation
from services.invitations import handlers, read_model
from services.invitations.handlers import Link
from services.notifications.events import NotificationSent
from shared.event_store import Transaction, read_log
from shared.events import Recorded, from_cloudevent
from tests.support.invitations_world import NOON, World


async def invite(world: World, user_id: str) -> Link:
    return await world.invitations.run(handlers.create_invitation, user_id=user_id, duration=None)


async def log_of_identity(world: World) -> list[Recorded]:
    async def read(tx: Transaction) -> list[Recorded]:
        events, _ = await read_log(tx.connection, tx.catalog, 0, 1000)
        return [from_cloudevent(json.dumps(event).encode(), CATALOG) for event in events]

    return await world.identity.run(read)


async def position(world: World) -> int:
    return await world.invitations.run(lambda tx: tx.last_position())


async def test_deleting_a_user_closes_what_is_open_for_them_and_for_nobody_else(world: World) -> None:
    user_id = await world.create_user()
    links = [await invite(world, user_id) for _ in range(2)]
    others = await invite(world, await world.create_user())
    await world.delete_user(user_id)
    await world.heard()
    for link in links:
        assert (await world.invitations.run(handlers.get_invitation, link.invitation.ref)).status == "revoked"
    assert (await world.invitations.run(handlers.get_invitation, others.invitation.ref)).status == "open"


async def test_deleting_a_user_leaves_what_was_closed_as_it_was(world: World) -> None:
    expired = await invite(world, await world.create_user())
    world.clock.now += timedelta(days=8)
    await world.delete_user(expired.invitation.user_id)
    await world.heard()
    assert (await world.invitations.run(handlers.get_invitation, expired.invitation.ref)).status == "expired"


async def test_who_is_created_with_an_invitation_has_it_under_the_ref_that_was_told(world: World) -> None:
    wanted = WantedInvitation(ref=str(uuid.uuid4()), send_email=True)
    user_id = await world.create_user(invitation=wanted)
    await world.heard()
    invitation = await world.invitations.run(handlers.get_invitation, wanted.ref)
    assert (invitation.user_id, invitation.status, invitation.email_sent) == (user_id, "open", False)
    before = await position(world)
    reader = world.invitations.readers["identity"]
    for recorded in await log_of_identity(world):
        assert await reader.apply([recorded])
    assert await position(world) == before


async def test_an_invitation_is_mailed_once_the_link_that_it_has_now_was(world: World) -> None:
    """The two logs interleave as they please, and are heard again."""
    link = await invite(world, await world.create_user())
    ref = link.invitation.ref

    async def mailed(generation: int) -> bool:
        sent = NotificationSent(
            id="m1",
            kind="invitation",
            user_id=link.invitation.user_id,
            ref=ref,
            generation=generation,
            attempts=1,
            sent_at=NOON,
        )

        async def hear(tx: Transaction) -> bool:
            await read_model.project_mailed(tx, sent)
            return (await handlers.get_invitation(tx, ref)).email_sent

        return await world.invitations.run(hear)

    assert not await mailed(2), "of a link that is not heard of yet"
    assert await mailed(1)
    await world.invitations.run(handlers.resend_invitation, ref=ref)
    assert await mailed(1), "the second was, and was told before"
    await world.invitations.run(handlers.resend_invitation, ref=ref)
    assert not await mailed(2)


async def test_the_same_events_delivered_again_change_nothing(world: World) -> None:
    user_id = await world.create_user()
    await invite(world, user_id)
    await world.delete_user(user_id)
    await world.heard()
    before = await position(world)
    reader = world.invitations.readers["identity"]
    for recorded in await log_of_identity(world):
        assert await reader.apply([recorded])
    assert await position(world) == before


async def test_a_deletion_waits_for_an_invitation_in_the_making_and_then_closes_it(world: World) -> None:
    """Whoever invites holds the user's row; the subscription changes that row before it looks for invitations."""
    user_id = await world.create_user()
    await world.heard()

    async def invite_while_the_user_is_deleted(tx: Transaction) -> Link:
        link = await handlers.create_invitation(tx, user_id=user_id, duration=None)
        await world.delete_user(user_id)
        return link

    link = await world.invitations.run(invite_while_the_user_is_deleted)
    await world.heard()
    assert (await world.invitations.run(handlers.get_invitation, link.invitation.ref)).status == "revoked"


async def test_of_a_user_only_this_is_kept(world: World) -> None:
    """Nothing that identifies a person is any business of invitations (design §3)."""
    assert [column.name for column in read_model.users.c] == ["user_id", "has_email"]
