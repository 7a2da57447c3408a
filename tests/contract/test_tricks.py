"""Requests that take HTTP apart, tried on the server itself; the compose test tries the same on the proxy before it."""

from urllib.parse import urlsplit

from tests.support.half_done import nothing_is_half_done
from tests.support.installation import installation
from tests.support.spellings import asked_otherwise
from tests.support.tricks import failures


async def test_no_trick_makes_a_request_of_another() -> None:
    async with installation() as it:
        viewer = await it.invite(user_role="internal_user_viewer")
        address = urlsplit(it.url)
        assert address.hostname and address.port
        assert await failures(address.hostname, address.port, viewer.session) == []
        assert (await it.ok("GET", "/keystead/v1/me", key=viewer.session))["user_role"] == "internal_user_viewer"
        await nothing_is_half_done(it.owner_url)


async def test_every_refused_operation_is_tried_in_every_spelling() -> None:
    asked = asked_otherwise("a viewer's")
    plain = {(each.method, each.target) for each in asked if not each.header}
    assert {("POST", b"/user/new"), ("POST", b"/user/new/"), ("POST", b"/user%2fnew"), ("GET", b"//user/list")} <= plain
    assert ("GET", b"/keystead/v1/budgets/x") in {(each.method, each.target) for each in asked if not each.credential}
    assert len(asked) > 2000
