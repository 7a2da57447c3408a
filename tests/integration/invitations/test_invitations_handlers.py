"""Invitations on the real database: what commits together, what races, what rests on identity."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest

from services.invitations import handlers
from services.invitations.domain import (
    InvitationNotFound,
    InvitationNotResendable,
    LinkExpired,
    LinkUnknown,
    LinkUsed,
    UserHasNoEmail,
    UserNotFound,
)
from services.invitations.events import InvitationAccepted, InvitationRevoked
from services.invitations.handlers import Link, hash_link_id, make_link_id
from services.invitations.requests import AcceptedInvitation, AcceptInvitation, CheckInvitation, OpenInvitation
from shared.errors import Refused
from shared.event_store import Transaction, read_log
from tests.support.installation import keyring
from tests.support.invitations_world import NOON, World
from tests.support.invitations_world import world as a_world

DAY = timedelta(days=1)


async def invite(world: World, user_id: str, duration: str | None = None) -> Link:
    return await world.invitations.run(handlers.create_invitation, user_id=user_id, duration=duration)


async def accept(world: World, link: Link, claim_id: str | None = None) -> AcceptedInvitation:
    """As identity does: by a question over the wire."""
    question = AcceptInvitation(
        id_hash=hash_link_id(link.id), user_id=link.invitation.user_id, claim_id=claim_id or str(uuid.uuid4())
    )
    return await world.identity.wire.ask("invitations", question, AcceptedInvitation)


async def check(world: World, link: Link) -> OpenInvitation:
    return await world.identity.wire.ask("invitations", CheckInvitation(id_hash=hash_link_id(link.id)), OpenInvitation)


async def status(world: World, link: Link) -> str:
    return (await world.invitations.run(handlers.get_invitation, link.invitation.ref)).status


async def events_of(world: World, link: Link) -> list[dict[str, Any]]:
    async def read(tx: Transaction) -> list[dict[str, Any]]:
        events, _ = await read_log(tx.connection, tx.catalog, 0, 1000)
        return [event for event in events if event["subject"] == f"invitation-{link.invitation.ref}"]

    return await world.invitations.run(read)


async def test_a_user_is_invited_at_once_after_they_were_created(world: World) -> None:
    link = await invite(world, await world.create_user())
    assert link.invitation.status == "open"
    assert link.invitation.expires_at == NOON + 7 * DAY


async def test_with_the_relay_a_second_late_it_is_slow_and_not_wrong() -> None:
    async with a_world(relay_delay_seconds=1.0) as world:
        link = await invite(world, await world.create_user())
        await accept(world, link)
        assert await status(world, link) == "accepted"
        with pytest.raises(UserNotFound):
            await invite(world, "nobody")


async def test_a_link_is_a_uuid_that_only_the_installations_secret_can_make_again(world: World) -> None:
    link = await invite(world, await world.create_user())
    assert uuid.UUID(link.id).version == 4
    assert make_link_id(keyring(), link.invitation.ref, 1) == link.id
    assert make_link_id(keyring(), link.invitation.ref, 2) != link.id


async def test_a_links_secret_is_in_no_event(world: World) -> None:
    link = await invite(world, await world.create_user())
    (created,) = await events_of(world, link)
    assert link.id not in str(created)
    assert created["data"]["id_hash"] == hash_link_id(link.id)


async def test_a_user_whom_nobody_has_is_not_invited(world: World) -> None:
    with pytest.raises(UserNotFound) as refused:
        await invite(world, "nobody")
    assert refused.value.param == "user_id"


async def test_a_user_who_is_deleted_is_not_invited_any_more(world: World) -> None:
    user_id = await world.create_user()
    await world.heard()
    await world.delete_user(user_id)
    await world.heard()
    with pytest.raises(UserNotFound):
        await invite(world, user_id)


async def test_a_user_without_an_email_is_not_invited(world: World) -> None:
    with pytest.raises(UserHasNoEmail):
        await invite(world, await world.create_user(has_email=False))


async def test_a_user_whose_email_was_taken_away_is_not_sent_another_link(world: World) -> None:
    link = await invite(world, await world.create_user())
    await world.take_email(link.invitation.user_id)
    await world.heard()
    with pytest.raises(UserHasNoEmail):
        await world.invitations.run(handlers.resend_invitation, ref=link.invitation.ref)


async def test_an_expired_invitation_of_a_user_who_is_gone_is_not_resent(world: World) -> None:
    link = await invite(world, await world.create_user())
    world.clock.now = link.invitation.expires_at
    await world.delete_user(link.invitation.user_id)
    await world.heard()
    with pytest.raises(UserNotFound):
        await world.invitations.run(handlers.resend_invitation, ref=link.invitation.ref)


async def test_an_open_link_tells_whose_it_is_and_changes_nothing(world: World) -> None:
    link = await invite(world, await world.create_user())
    for _ in range(2):
        opened = await check(world, link)
        assert (opened.ref, opened.user_id, opened.generation) == (link.invitation.ref, link.invitation.user_id, 1)
    assert len(await events_of(world, link)) == 1


async def test_a_link_is_over_by_the_clock_before_any_job_has_noticed(world: World) -> None:
    link = await invite(world, await world.create_user(), "1h")
    world.clock.now = link.invitation.expires_at
    for question in (check, accept):
        with pytest.raises(Refused) as refused:
            await question(world, link)
        assert refused.value.code == LinkExpired.reason
    assert await status(world, link) == "expired"


async def test_an_accepted_link_is_used(world: World) -> None:
    link = await invite(world, await world.create_user())
    await accept(world, link)
    for question in (check, accept):
        with pytest.raises(Refused) as refused:
            await question(world, link)
        assert refused.value.code == LinkUsed.reason


async def test_a_revoked_link_and_one_that_nobody_made_are_equally_unknown(world: World) -> None:
    link = await invite(world, await world.create_user())
    await world.invitations.run(handlers.delete_invitation, invitation_id=link.id)
    told = []
    for unknown in (link, Link(str(uuid.uuid4()), link.invitation)):
        for question in (check, accept):
            with pytest.raises(Refused) as refused:
                await question(world, unknown)
            told.append((refused.value.code, refused.value.message))
    assert set(told) == {(LinkUnknown.reason, "there is no such invitation")}


async def test_the_answer_to_an_accepter_says_where_the_acceptance_stands_in_the_log(world: World) -> None:
    link = await invite(world, await world.create_user())
    accepted = await accept(world, link)
    assert accepted.ref == link.invitation.ref
    (event,) = [e for e in await events_of(world, link) if e["type"] == InvitationAccepted.type_name()]
    assert event["position"] == accepted.position


async def test_the_same_claim_again_gets_the_same_answer_and_closes_nothing_that_came_later(world: World) -> None:
    link = await invite(world, await world.create_user())
    first = await accept(world, link, "claim")
    later = await invite(world, link.invitation.user_id)
    assert await accept(world, link, "claim") == first
    assert await status(world, later) == "open"


async def test_of_fifty_who_accept_at_once_one_does_and_the_others_are_told_that_it_is_used(world: World) -> None:
    link = await invite(world, await world.create_user())
    outcomes = await asyncio.gather(*(accept(world, link) for _ in range(50)), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert {refused.code for refused in refusals} == {LinkUsed.reason}
    assert len(refusals) == 49
    assert [event["type"] for event in await events_of(world, link)] == ["InvitationCreated", "InvitationAccepted"]


async def test_accepting_one_closes_all_that_the_user_has_open_and_nobody_elses(world: World) -> None:
    user_id = await world.create_user()
    first, second, third = [await invite(world, user_id) for _ in range(3)]
    others = await invite(world, await world.create_user())
    await accept(world, second)
    assert [await status(world, link) for link in (first, second, third)] == ["revoked", "accepted", "revoked"]
    assert await status(world, others) == "open"
    (_, revoked) = await events_of(world, first)
    assert revoked["type"] == InvitationRevoked.type_name()
    assert revoked["data"]["revoked_by"] == user_id


async def test_two_links_of_one_user_accepted_at_once_open_one_door(world: World) -> None:
    user_id = await world.create_user()
    links = [await invite(world, user_id) for _ in range(4)]
    outcomes = await asyncio.gather(*(accept(world, link) for link in links), return_exceptions=True)
    assert sum(isinstance(outcome, AcceptedInvitation) for outcome in outcomes) == 1
    assert {o.code for o in outcomes if isinstance(o, Refused)} == {LinkUnknown.reason}
    assert sorted([await status(world, link) for link in links]) == ["accepted", "revoked", "revoked", "revoked"]


async def test_a_resent_invitation_opens_by_the_new_link_only(world: World) -> None:
    old = await invite(world, await world.create_user(), "1d")
    world.clock.now = NOON + 2 * DAY
    new = await world.invitations.run(handlers.resend_invitation, ref=old.invitation.ref)
    assert new.id != old.id
    assert (new.invitation.status, new.invitation.expires_at) == ("open", NOON + 3 * DAY)
    with pytest.raises(Refused) as refused:
        await accept(world, old)
    assert refused.value.code == LinkUnknown.reason
    await accept(world, new)


async def test_a_closed_invitation_is_not_resent(world: World) -> None:
    link = await invite(world, await world.create_user())
    await accept(world, link)
    with pytest.raises(InvitationNotResendable):
        await world.invitations.run(handlers.resend_invitation, ref=link.invitation.ref)


async def test_many_resendings_at_once_leave_exactly_one_link_alive(world: World) -> None:
    link = await invite(world, await world.create_user())
    resent = await asyncio.gather(
        *(world.invitations.run(handlers.resend_invitation, ref=link.invitation.ref) for _ in range(5))
    )
    alive = {each.id for each in resent if await _opens(world, each)}
    assert len(alive) == 1


async def _opens(world: World, link: Link) -> bool:
    try:
        await check(world, link)
    except Refused:
        return False
    return True


async def test_an_invitation_that_nobody_made_is_not_found(world: World) -> None:
    with pytest.raises(InvitationNotFound) as refused:
        await world.invitations.run(handlers.resend_invitation, ref="nobody's")
    assert refused.value.param == "ref"
