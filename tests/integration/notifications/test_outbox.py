"""Without a mail server: mails stay in the outbox, and an admin copies the link from there (contract §3.9, §4.5)."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.installation import BASE_URL, Installation, installation


@pytest.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation() as it:
        yield it


async def new_user(it: Installation, **more: Any) -> dict[str, Any]:
    body = {"user_email": f"{uuid.uuid4().hex}@example.test", "auto_create_key": False, **more}
    made: dict[str, Any] = await it.ok("POST", "/user/new", body)
    return made


async def invite(it: Installation, user_id: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = await it.ok("POST", "/invitation/new", {"user_id": user_id, "send_email": True, **more})
    return made


async def mails(it: Installation, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await it.ok("GET", f"/keystead/v1/notifications?{query}"))["data"]
    return found


async def test_a_mail_that_nobody_can_send_waits_and_can_be_read(it: Installation) -> None:
    user = await new_user(it)
    invitation = await invite(it, user["user_id"])
    (mail,) = await mails(it, f"user_id={user['user_id']}")
    assert (mail["status"], mail["attempts"], mail["error"]) == ("queued", 0, None)
    path = f"/keystead/v1/notifications/{mail['id']}/content"
    status, content, headers = await it.request("GET", path)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    link = f"{BASE_URL}/ui/onboarding?id={invitation['id']}"
    assert link in content.pop("text") and link in content.pop("html")
    assert content == {
        "id": mail["id"],
        "kind": "invitation",
        "user_id": user["user_id"],
        "to": user["user_email"],
        "subject": "You are invited",
        "link": link,
        "expires_at": invitation["expires_at"],
    }
    assert await mails(it, f"user_id={user['user_id']}") == [mail], "reading changes nothing"


async def test_no_mail_is_asked_for_unless_somebody_asks(it: Installation) -> None:
    """The default of send_email is whether there is a server (§3.5)."""
    user = await new_user(it)
    made = await it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
    await it.ok("POST", f"/keystead/v1/invitations/{made['ref']}/resend")
    assert await mails(it, f"user_id={user['user_id']}") == []
    await it.ok("POST", f"/keystead/v1/invitations/{made['ref']}/resend", {"send_email": True})
    assert len(await mails(it, f"user_id={user['user_id']}")) == 1


async def test_who_is_made_with_an_invitation_has_it_in_the_outbox(it: Installation) -> None:
    user = await new_user(it, send_invite_email=True)
    (mail,) = await mails(it, f"user_id={user['user_id']}&status=queued")
    content = await it.ok("GET", f"/keystead/v1/notifications/{mail['id']}/content")
    opened = await it.ok("GET", f"/onboarding/get_token?invite_link={content['link'].rpartition('=')[2]}", key=None)
    assert opened["user_email"] == user["user_email"]


async def test_nobody_without_an_address_is_made_to_be_invited(it: Installation) -> None:
    user_id = str(uuid.uuid4())
    body = {"user_id": user_id, "send_invite_email": True}
    status, answer = await it.call("POST", "/user/new", body)
    assert (status, answer["error"]["reason"], answer["error"]["param"]) == (400, "user_has_no_email", "user_email")
    assert (await it.call("GET", f"/user/info?user_id={user_id}"))[0] == 404


async def test_a_mail_that_lost_its_purpose_leaves_the_outbox_and_says_nothing_more(it: Installation) -> None:
    user = await new_user(it)
    invitation = await invite(it, user["user_id"])
    (mail,) = await mails(it, f"user_id={user['user_id']}")
    await it.ok("POST", "/invitation/delete", {"invitation_id": invitation["ref"]})
    assert await mails(it, f"user_id={user['user_id']}&status=queued") == []
    (gone,) = await mails(it, f"user_id={user['user_id']}&status=failed")
    assert gone["error"] == "not sent: the invitation was revoked before"
    status, refused = await it.call("GET", f"/keystead/v1/notifications/{mail['id']}/content")
    assert (status, refused["type"]) == (404, "urn:keystead:problem:not_found")


async def test_a_resent_link_is_read_in_its_own_mail_alone(it: Installation) -> None:
    user = await new_user(it)
    invitation = await invite(it, user["user_id"])
    (first,) = await mails(it, f"user_id={user['user_id']}")
    again = await it.ok("POST", f"/keystead/v1/invitations/{invitation['ref']}/resend", {"send_email": True})
    (second,) = await mails(it, f"user_id={user['user_id']}&status=queued")
    assert (await it.call("GET", f"/keystead/v1/notifications/{first['id']}/content"))[0] == 404
    content = await it.ok("GET", f"/keystead/v1/notifications/{second['id']}/content")
    assert content["link"].endswith(again["id"])


async def test_mails_come_in_pages_the_newest_first(it: Installation) -> None:
    user = await new_user(it)
    for _ in range(5):
        await invite(it, user["user_id"])
    everything = await mails(it, f"user_id={user['user_id']}")
    assert [mail["at"] for mail in everything] == sorted((mail["at"] for mail in everything), reverse=True)
    path, read = f"/keystead/v1/notifications?user_id={user['user_id']}&limit=2", []
    while path:
        _, page, headers = await it.request("GET", path)
        read += page["data"]
        path = headers["Link"].partition("<")[2].partition(">")[0] if page["next"] else ""
    assert read == everything and len(read) == 5
