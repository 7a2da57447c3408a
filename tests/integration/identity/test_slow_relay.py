"""With a relay that is a second late everything is slower, and nothing wrong (design §4)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.identity import an_email, claim, invite, log_in, open_link, refusal
from tests.support.installation import PASSWORD, Installation, installation

KEY_UNKNOWN = (401, "key_unknown", "key")


@pytest.fixture(scope="module")
async def it() -> AsyncIterator[Installation]:
    async with installation(relay_delay_seconds=1.0) as running:
        yield running


async def test_a_first_key_works_at_once_and_dies_at_once(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"user_role": "internal_user"})
    await it.ok("GET", "/v1/models", key=user["key"])
    await it.ok("POST", "/user/delete", {"user_ids": [user["user_id"]]})
    assert refusal(await it.call("GET", "/v1/models", key=user["key"])) == KEY_UNKNOWN


async def test_a_role_is_taken_away_at_once(it: Installation) -> None:
    person = await it.invite(user_role="proxy_admin")
    await it.ok("GET", "/user/list", key=person.session)
    await it.ok("POST", "/user/update", {"user_id": person.user_id, "user_role": "internal_user"})
    assert refusal(await it.call("GET", "/user/list", key=person.session))[:2] == (403, "role_not_allowed")


async def test_a_user_is_invited_and_claims_and_is_deleted_with_what_they_had_without_a_pause(it: Installation) -> None:
    user = await it.ok("POST", "/user/new", {"user_email": an_email(), "auto_create_key": False})
    links = [await invite(it, user["user_id"]) for _ in range(2)]
    credentials = [await open_link(it, link) for link in links]
    assert (await claim(it, links[0], user["user_id"], PASSWORD, credentials[0]))[0] == 200
    assert refusal(await claim(it, links[1], user["user_id"], PASSWORD, credentials[1]))[1] == "invitation_unknown"
    status, answer = await log_in(it, user["user_email"], PASSWORD)
    assert status == 200
    last = await invite(it, user["user_id"])
    await it.ok("POST", "/user/delete", {"user_ids": [user["user_id"]]})
    opened = await it.call("GET", f"/onboarding/get_token?invite_link={last}", key=None)
    assert refusal(opened)[1] == "invitation_unknown"
    assert refusal(await it.call("GET", "/user/info", key=answer["token"])) == KEY_UNKNOWN


async def test_ten_do_so_side_by_side(it: Installation) -> None:
    people = await asyncio.gather(*(it.invite() for _ in range(10)))
    await it.ok("POST", "/user/delete", {"user_ids": [person.user_id for person in people]})
    outcomes = await asyncio.gather(*(it.call("GET", "/user/info", key=person.session) for person in people))
    assert {refusal(outcome) for outcome in outcomes} == {KEY_UNKNOWN}
