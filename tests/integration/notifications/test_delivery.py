"""Mails of invitations through a whole installation to a real mail server."""

import re

import asyncpg
import pytest
from jinja2 import Environment

from services.notifications.domain import BACK_OFF
from shared.event_store import Transaction
from tests.support.eventually import eventually
from tests.support.installation import PASSWORD, Installation, claims_of
from tests.support.mail_server import TAKE_AND_DROP
from tests.support.mails import PATIENCE_SECONDS, Invited, World, link_in


async def claim(it: Installation, link: str, user_id: str) -> None:
    opened = await it.ok("GET", f"/onboarding/get_token?invite_link={link}", key=None)
    body = {"invitation_link": link, "user_id": user_id, "password": PASSWORD}
    await it.ok("POST", "/onboarding/claim_token", body, key=claims_of(opened["token"])["key"])


async def test_who_is_invited_gets_a_mail_whose_link_lets_them_in(world: World) -> None:
    ada = await world.invite()
    (mail,) = await world.sent(ada.email)
    assert (mail.sender, mail.message["Subject"]) == ("keystead@example.test", "You are invited")
    assert link_in(mail) == ada.invitation["id"]
    await claim(world.it, link_in(mail), ada.user_id)


async def test_an_invitation_says_when_its_mail_was_sent(world: World) -> None:
    ada = await world.invite()
    assert ada.invitation["email_sent"] is False
    await world.sent(ada.email)

    async def told() -> bool:
        return (await world.invitation(ada.ref))["email_sent"] is True

    await eventually(told, PATIENCE_SECONDS)
    sent = await world.has(ada.user_id, status="sent")
    assert sent.keys() == {"id", "kind", "user_id", "status", "attempts", "error", "at"}
    assert (sent["kind"], sent["attempts"], sent["error"]) == ("invitation", 1, None)
    without = await world.it.ok("POST", f"/keystead/v1/invitations/{ada.ref}/resend", {"send_email": False})
    assert without["email_sent"] is False, "the new link was not mailed"


async def test_no_mail_is_sent_where_none_is_wanted(world: World) -> None:
    silent, told = await world.invite(send_email=False), await world.invite()
    await world.sent(told.email)
    assert await world.mails_to(silent.user_id) == [] and world.post.taken_for(silent.email) == []


async def test_a_resent_invitation_is_mailed_with_its_new_link(world: World) -> None:
    ada = await world.invite()
    await world.sent(ada.email)
    again = await world.it.ok("POST", f"/keystead/v1/invitations/{ada.ref}/resend")
    first, second = await world.sent(ada.email, 2)
    assert (link_in(first), link_in(second)) == (ada.invitation["id"], again["id"])
    assert first.message["Message-ID"] != second.message["Message-ID"]


async def test_a_new_user_is_invited_in_the_call_that_makes_them(world: World) -> None:
    user = await world.new_user(send_invite_email=True)
    invitation = await world.invitation(user["invitation_ref"])
    assert (invitation["user_id"], invitation["status"]) == (user["user_id"], "open")
    (mail,) = await world.sent(user["user_email"])
    await claim(world.it, link_in(mail), user["user_id"])
    assert "invitation_ref" not in await world.new_user()


async def test_a_server_that_is_busy_is_asked_again_later(world: World) -> None:
    await world.post.behave(at_addressee=["451 4.7.1 not now"], at_mail=["452 4.3.1 full"])
    ada = await world.invite()
    for attempt in (1, 2):
        waiting = await world.has(ada.user_id, attempts=attempt)
        assert waiting["status"] == "queued" and re.search(r"refused the (addressee|mail): 45", waiting["error"])
        assert world.post.taken_for(ada.email) == []
        world.clock.passes(seconds=BACK_OFF[attempt - 1].total_seconds())
    (mail,) = await world.sent(ada.email)
    assert (await world.has(ada.user_id, status="sent"))["attempts"] == 3
    assert (await world.invitation(ada.ref))["id"] == ada.ref and link_in(mail) == ada.invitation["id"]


@pytest.mark.parametrize("place", ["at_addressee", "at_mail"])
async def test_a_refusal_for_good_is_shown_and_not_repeated(world: World, place: str) -> None:
    await world.post.behave(**{place: ["550 5.1.1 <{address}> is not known here"]})
    ada = await world.invite()
    failed = await world.has(ada.user_id, status="failed")
    assert failed["attempts"] == 1 and failed["error"].endswith(": 550 5.1.1")
    world.clock.passes(days=2)
    await nothing_more_is_sent(world, ada)
    assert (await world.invitation(ada.ref))["email_sent"] is False


async def nothing_more_is_sent(world: World, ada: Invited) -> None:
    """Each lane has looked for what is due since: another's mail has been sent by every one of them."""
    before = len(world.post.taken_for(ada.email))
    for _ in range(2):
        other = await world.invite()
        await world.sent(other.email)
    assert len(world.post.taken_for(ada.email)) == before


async def test_what_was_taken_without_a_word_is_not_sent_again(world: World) -> None:
    """Nobody knows, and that is what is shown; an admin may resend, with a link of its own."""
    await world.post.behave(at_mail=[TAKE_AND_DROP])
    ada = await world.invite()
    failed = await world.has(ada.user_id, status="failed")
    assert "not known whether the server took it" in failed["error"]
    world.clock.passes(days=2)
    await nothing_more_is_sent(world, ada)
    await world.sent(ada.email, 1)


async def test_a_server_that_stalls_on_one_mail_does_not_hold_up_the_others(world: World) -> None:
    stalled = await world.new_user()
    await world.post.behave(stalls_for=stalled["user_email"])
    await world.it.ok("POST", "/invitation/new", {"user_id": stalled["user_id"]})
    await eventually(lambda: stalled["user_email"] in world.post.tried, PATIENCE_SECONDS)
    others = [await world.invite() for _ in range(5)]
    for other in others:
        await world.sent(other.email)
    assert (await world.mail_to(stalled["user_id"]))["status"] == "queued"
    await world.it.ok("POST", "/user/delete", {"user_ids": [stalled["user_id"]]})


async def test_hearing_everything_again_sends_nothing_twice(world: World) -> None:
    """A redelivery, a replay from the beginning: the mail's id is that of the event that asked for it."""
    ada = await world.invite()
    await world.sent(ada.email)
    await world.has(ada.user_id, status="sent")
    notifications = world.it.running("notifications")

    async def forget(tx: Transaction) -> None:
        await tx.connection.exec_driver_sql("update subscriptions set position = 0")

    await notifications.run(forget)
    await notifications.fence({"invitations", "identity"})
    await nothing_more_is_sent(world, ada)
    assert (await world.has(ada.user_id, status="sent"))["attempts"] == 1


async def test_a_mail_that_lost_its_purpose_while_the_server_was_busy_is_not_sent(world: World) -> None:
    for happens in ("revoked", "accepted", "resent", "deleted"):
        await world.post.behave(at_addressee=["451 4.7.1 not now"])
        ada = await world.invite()
        await world.has(ada.user_id, attempts=1)
        await lose_purpose(world, ada, happens)
        (*_, mail) = await world.mails_to(ada.user_id)
        assert mail["status"] == "failed" and happens in mail["error"], happens
        world.clock.passes(seconds=11)
        await nothing_more_is_sent(world, ada)
        assert world.post.taken_for(ada.email) == []


async def lose_purpose(world: World, ada: Invited, how: str) -> None:
    match how:
        case "revoked":
            await world.it.ok("POST", "/invitation/delete", {"invitation_id": ada.ref})
        case "accepted":
            await claim(world.it, ada.invitation["id"], ada.user_id)
        case "resent":
            await world.it.ok("POST", f"/keystead/v1/invitations/{ada.ref}/resend", {"send_email": False})
        case "deleted":
            await world.it.ok("POST", "/user/delete", {"user_ids": [ada.user_id]})


async def test_an_expired_invitation_is_not_mailed(world: World) -> None:
    await world.post.behave(at_addressee=["451 4.7.1 not now"])
    ada = await world.invite(duration="1h")
    await world.has(ada.user_id, attempts=1)
    world.clock.passes(hours=1)
    expired = await world.has(ada.user_id, status="failed")
    assert "expired" in expired["error"] and world.post.taken_for(ada.email) == []


async def test_what_is_taken_back_while_the_server_listens_is_not_handed_over(world: World) -> None:
    """The server already has the addressee when the invitation is revoked: the last word is asked for after that."""
    ada = await world.new_user()
    await world.post.behave(stalls_for=ada["user_email"])
    invitation = await world.it.ok("POST", "/invitation/new", {"user_id": ada["user_id"]})
    await eventually(lambda: ada["user_email"] in world.post.tried, PATIENCE_SECONDS)
    await world.it.ok("POST", "/invitation/delete", {"invitation_id": invitation["ref"]})
    await world.post.behave()
    assert "revoked" in (await world.has(ada["user_id"], status="failed"))["error"]
    assert world.post.taken_for(ada["user_email"]) == []


async def test_no_address_no_link_and_no_text_is_kept(world: World) -> None:
    ada = await world.invite()
    await world.sent(ada.email)
    await world.has(ada.user_id, status="sent")
    owner = await asyncpg.connect(world.it.owner_url)
    try:
        tables = await owner.fetch("select tablename from pg_tables where schemaname = 'notifications'")
        assert {"events", "notifications_1"} <= {row["tablename"] for row in tables}
        for row in tables:
            kept = str(await owner.fetchval(f"select json_agg(t)::text from notifications.{row['tablename']} t"))
            for secret in (ada.email, ada.email.partition("@")[0], ada.invitation["id"], "invited"):
                assert secret not in kept, row["tablename"]
    finally:
        await owner.close()


async def test_a_mail_that_cannot_be_addressed_holds_up_no_other(world: World) -> None:
    """It is the one that has been due for longest, again and again."""
    user = await world.new_user(user_email="ada@[")
    await world.it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
    ada = await world.invite()
    await world.sent(ada.email)
    failed = await world.has(user["user_id"], status="failed")
    assert failed["error"] == "no mail can be sent to an address of this form"


async def test_a_mail_over_which_we_fail_holds_up_no_other_and_is_tried_again(world: World) -> None:
    """A fault of ours, and not of the mail's: here, templates that are gone for a while."""
    own = world.it.running("notifications").own
    templates, own.templates = own.templates, Environment(autoescape=True)
    ada = await world.invite()
    waiting = await world.has(ada.user_id, attempts=1)
    assert waiting["status"] == "queued"
    assert waiting["error"] == "it could not be put into words"
    own.templates = templates
    grace = await world.invite()
    await world.sent(grace.email)
    world.clock.passes(seconds=BACK_OFF[0].total_seconds())
    await world.sent(ada.email)
