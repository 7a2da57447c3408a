"""The routes of invitations, field by field (contract §3.5, §1.3, §1.5)."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from httpx2 import AsyncClient, Response

from services.invitations import handlers
from services.invitations.handlers import hash_link_id
from services.invitations.requests import AcceptedInvitation, AcceptInvitation
from tests.support.invitations_world import NOON, World

FIELDS = (
    "id user_id is_accepted accepted_at expires_at created_at created_by updated_at updated_by ref status email_sent"
)
EXPIRY = "2026-12-01T12:00:00.000000Z"


async def new(client: AsyncClient, world: World, **fields: Any) -> dict[str, Any]:
    body = {"user_id": await world.create_user()} | fields
    answer = await client.post("/invitation/new", json=body)
    assert answer.status_code == 200, answer.text
    invitation: dict[str, Any] = answer.json()
    return invitation


async def accept(world: World, invitation: dict[str, Any]) -> None:
    question = AcceptInvitation(
        id_hash=hash_link_id(invitation["id"]), user_id=invitation["user_id"], claim_id=str(uuid.uuid4())
    )
    await world.identity.wire.ask("invitations", question, AcceptedInvitation)


async def info(client: AsyncClient, invitation_id: str) -> Response:
    return await client.get("/invitation/info", params={"invitation_id": invitation_id})


async def delete(client: AsyncClient, invitation_id: str) -> Response:
    return await client.post("/invitation/delete", json={"invitation_id": invitation_id})


async def resend(client: AsyncClient, ref: str, **kwargs: Any) -> Response:
    return await client.post(f"/keystead/v1/invitations/{ref}/resend", **kwargs)


def assert_refused(answer: Response, status: int, reason: str, param: str | None = None) -> None:
    body = answer.json()
    error = body.get("error", body)
    told = (answer.status_code, error.get("reason") or error["type"].rpartition(":")[2], error.get("param"))
    assert told == (status, reason, param), answer.text


async def test_an_invitation_has_every_field_of_the_contract_and_no_other(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    assert set(invitation) == set(FIELDS.split())
    ours = {name: invitation.pop(name) for name in ("id", "ref", "user_id")}
    assert len(set(ours.values())) == 3
    noon = "2026-11-24T12:00:00.000000Z"
    assert invitation == {
        "status": "open",
        "is_accepted": False,
        "accepted_at": None,
        "expires_at": EXPIRY,
        "created_at": noon,
        "created_by": "the proxy_admin",
        "updated_at": noon,
        "updated_by": "the proxy_admin",
        "email_sent": False,
    }


async def test_an_answer_with_a_links_secret_is_stored_by_nobody(client: AsyncClient, world: World) -> None:
    answer = await client.post("/invitation/new", json={"user_id": await world.create_user()})
    assert answer.headers["cache-control"] == "no-store"


async def test_an_invitation_lasts_as_long_as_was_asked(client: AsyncClient, world: World) -> None:
    assert (await new(client, world, duration="1h"))["expires_at"] == "2026-11-24T13:00:00.000000Z"
    assert (await new(client, world, duration="90d"))["expires_at"] == "2027-02-22T12:00:00.000000Z"
    assert (await new(client, world, duration=None))["expires_at"] == EXPIRY


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"duration": "59m"}, "out_of_range", "duration"),
        ({"duration": "91d"}, "out_of_range", "duration"),
        ({"duration": "a week"}, "duration_malformed", "duration"),
        ({"duration": 7}, "wrong_type", "duration"),
        ({"user_id": 7}, "wrong_type", "user_id"),
        ({"user_id": ""}, "out_of_range", "user_id"),
        ({"user_id": None}, "wrong_type", "user_id"),
        ({"send_email": "yes"}, "wrong_type", "send_email"),
        ({"email": "ada@example.test"}, "field_unknown", "email"),
    ],
)
async def test_a_bad_field_is_named(
    client: AsyncClient, world: World, fields: dict[str, Any], reason: str, param: str
) -> None:
    body = {"user_id": await world.create_user()} | fields
    assert_refused(await client.post("/invitation/new", json=body), 400, reason, param)


async def test_a_missing_field_is_named(client: AsyncClient) -> None:
    assert_refused(await client.post("/invitation/new", json={}), 400, "field_missing", "user_id")


@pytest.mark.parametrize("says_nothing", [False, None])
async def test_no_mail_is_asked_for_and_none_is_sent(client: AsyncClient, world: World, says_nothing: Any) -> None:
    assert (await new(client, world, send_email=says_nothing))["email_sent"] is False


async def test_an_unknown_user_is_not_found(client: AsyncClient) -> None:
    assert_refused(await client.post("/invitation/new", json={"user_id": "nobody"}), 404, "not_found", "user_id")


async def test_a_user_without_an_email_is_told_apart(client: AsyncClient, world: World) -> None:
    body = {"user_id": await world.create_user(has_email=False)}
    assert_refused(await client.post("/invitation/new", json=body), 400, "user_has_no_email", "user_id")


async def test_info_echoes_what_it_was_asked_by(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    for given in (invitation["id"], invitation["ref"]):
        answer = await info(client, given)
        assert answer.status_code == 200
        assert answer.json() == invitation | {"id": given}


async def test_a_link_in_capitals_is_the_same_link(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    assert (await info(client, invitation["id"].upper())).json()["ref"] == invitation["ref"]


async def test_info_on_what_nobody_made_is_not_found(client: AsyncClient) -> None:
    assert_refused(await info(client, str(uuid.uuid4())), 404, "not_found", "invitation_id")


async def test_info_follows_the_clock_to_the_moment(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    world.clock.now = NOON + timedelta(days=7) - timedelta(microseconds=1)
    assert (await info(client, invitation["ref"])).json()["status"] == "open"
    world.clock.now = NOON + timedelta(days=7)
    assert (await info(client, invitation["ref"])).json()["status"] == "expired"


async def test_an_accepted_invitation_says_when_and_by_whom(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    world.clock.now = NOON + timedelta(seconds=1)
    await accept(world, invitation)
    later = "2026-11-24T12:00:01.000000Z"
    accepted = {"status": "accepted", "is_accepted": True, "accepted_at": later}
    updated = {"updated_at": later, "updated_by": invitation["user_id"]}
    assert (await info(client, invitation["id"])).json() == invitation | accepted | updated


async def test_an_update_to_what_is_so_already_answers_it(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    body = {"invitation_id": invitation["id"], "is_accepted": False}
    assert (await client.post("/invitation/update", json=body)).json() == invitation
    await accept(world, invitation)
    answer = await client.post("/invitation/update", json=body | {"is_accepted": True})
    assert answer.json()["is_accepted"] is True


async def test_nobody_else_accepts_or_takes_an_acceptance_back(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    body = {"invitation_id": invitation["ref"], "is_accepted": True}
    assert_refused(await client.post("/invitation/update", json=body), 400, "field_read_only", "is_accepted")
    await accept(world, invitation)
    body["is_accepted"] = False
    assert_refused(await client.post("/invitation/update", json=body), 400, "field_read_only", "is_accepted")


@pytest.mark.parametrize("by", ["id", "ref"])
async def test_a_deleted_invitation_is_revoked_and_gone_by_its_link(client: AsyncClient, world: World, by: str) -> None:
    invitation = await new(client, world)
    answer = await delete(client, invitation[by])
    assert answer.status_code == 200
    assert answer.json() == invitation | {"id": invitation[by], "status": "revoked"}
    assert_refused(await info(client, invitation["id"]), 404, "not_found", "invitation_id")
    assert_refused(await delete(client, invitation["id"]), 404, "not_found", "invitation_id")
    assert (await info(client, invitation["ref"])).json()["status"] == "revoked"
    assert_refused(await delete(client, invitation["ref"]), 400, "invitation_closed", "invitation_id")


async def test_an_accepted_or_expired_invitation_is_not_deleted(client: AsyncClient, world: World) -> None:
    accepted, expired = await new(client, world), await new(client, world)
    await accept(world, accepted)
    assert_refused(await delete(client, accepted["id"]), 400, "invitation_closed", "invitation_id")
    world.clock.now = NOON + timedelta(days=7)
    assert_refused(await delete(client, expired["id"]), 400, "invitation_closed", "invitation_id")


@pytest.mark.parametrize(
    "kwargs", [{}, {"json": {}}, {"json": {"send_email": False}}], ids=["no body", "empty", "no mail"]
)
async def test_a_resent_invitation_has_a_new_link_and_a_full_term(
    client: AsyncClient, world: World, kwargs: dict[str, Any]
) -> None:
    invitation = await new(client, world)
    world.clock.now = NOON + timedelta(days=30)
    answer = await resend(client, invitation["ref"], **kwargs)
    assert answer.status_code == 200
    resent = answer.json()
    assert resent["id"] != invitation["id"]
    assert (resent["ref"], resent["status"]) == (invitation["ref"], "open")
    assert (resent["created_at"], resent["expires_at"]) == (invitation["created_at"], "2026-12-31T12:00:00.000000Z")
    assert_refused(await info(client, invitation["id"]), 404, "not_found", "invitation_id")


async def test_an_accepted_or_revoked_invitation_is_not_resent(client: AsyncClient, world: World) -> None:
    accepted, revoked = await new(client, world), await new(client, world)
    await accept(world, accepted)
    await delete(client, revoked["id"])
    for invitation in (accepted, revoked):
        answer = await resend(client, invitation["ref"])
        assert_refused(answer, 409, "invitation_not_resendable", "ref")
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_resending_is_by_ref_only(client: AsyncClient, world: World) -> None:
    invitation = await new(client, world)
    assert_refused(await resend(client, invitation["id"]), 404, "not_found", "ref")


class TestList:
    @pytest.fixture
    async def invited(self, client: AsyncClient, world: World) -> AsyncIterator[list[dict[str, Any]]]:
        """One user's invitations, the newest first, two of them made in the same moment."""
        user_id = await world.create_user()
        made = []
        for minute in (1, 2, 2, 3):
            world.clock.now = NOON + timedelta(minutes=minute)
            made.append(await new(client, world, user_id=user_id))
        yield sorted(made, key=lambda each: (each["created_at"], each["ref"]), reverse=True)

    async def page(self, client: AsyncClient, **params: Any) -> dict[str, Any]:
        answer = await client.get("/keystead/v1/invitations", params=params)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    async def test_no_list_has_a_links_secret(self, client: AsyncClient, invited: list[dict[str, Any]]) -> None:
        page = await self.page(client, user_id=invited[0]["user_id"])
        shown = [{name: value for name, value in each.items() if name != "id"} for each in invited]
        assert page == {"data": shown, "next": None}

    async def test_pages_follow_each_other_without_gap_or_repetition(
        self, client: AsyncClient, invited: list[dict[str, Any]]
    ) -> None:
        path, refs = f"/keystead/v1/invitations?user_id={invited[0]['user_id']}&limit=2", []
        while path:
            answer = await client.get(path)
            refs.append([each["ref"] for each in answer.json()["data"]])
            link = answer.headers.get("link", "")
            assert bool(link) == bool(answer.json()["next"])
            path = link.removeprefix("<").removesuffix('>; rel="next"')
        assert refs == [[each["ref"] for each in invited[:2]], [each["ref"] for each in invited[2:]]]

    async def test_a_list_is_filtered_by_status_as_the_clock_has_it(
        self, client: AsyncClient, world: World, invited: list[dict[str, Any]]
    ) -> None:
        user_id = invited[0]["user_id"]
        await delete(client, invited[0]["ref"])
        world.clock.now = NOON + timedelta(days=7, minutes=1)
        refs = {
            status: [each["ref"] for each in (await self.page(client, user_id=user_id, status=status))["data"]]
            for status in ("revoked", "expired", "open", "accepted")
        }
        newest, *open_still, oldest = [each["ref"] for each in invited]
        assert refs == {"revoked": [newest], "expired": [oldest], "open": open_still, "accepted": []}

    @pytest.mark.parametrize(
        ("params", "reason", "param"),
        [
            ({"limit": "0"}, "out_of_range", "limit"),
            ({"limit": "201"}, "out_of_range", "limit"),
            ({"limit": "ten"}, "wrong_type", "limit"),
            ({"status": "gone"}, "out_of_range", "status"),
            ({"after": ""}, "out_of_range", "after"),
            ({"after": "1.AAAA"}, "out_of_range", "after"),
            ({"after": "\u00e9\u0000"}, "out_of_range", "after"),
            ({"page": "1"}, "field_unknown", "page"),
        ],
    )
    async def test_a_bad_parameter_is_named(
        self, client: AsyncClient, params: dict[str, str], reason: str, param: str
    ) -> None:
        assert_refused(await client.get("/keystead/v1/invitations", params=params), 400, reason, param)

    async def test_a_viewer_reads_the_list_and_nothing_that_opens(
        self, client: AsyncClient, invited: list[dict[str, Any]]
    ) -> None:
        client.headers["Authorization"] = "proxy_admin_viewer"
        assert len((await self.page(client, user_id=invited[0]["user_id"]))["data"]) == 4
        assert_refused(await info(client, invited[0]["ref"]), 403, "role_not_allowed")


@pytest.mark.parametrize("role", ["internal_user", "internal_user_viewer"])
async def test_no_user_reads_or_makes_invitations(client: AsyncClient, world: World, role: str) -> None:
    invitation = await new(client, world)
    client.headers["Authorization"] = role
    for answer in (
        await client.post("/invitation/new", json={"user_id": invitation["user_id"]}),
        await info(client, invitation["id"]),
        await client.post("/invitation/update", json={"invitation_id": invitation["id"], "is_accepted": False}),
        await delete(client, invitation["id"]),
        await client.get("/keystead/v1/invitations"),
        await resend(client, invitation["ref"]),
    ):
        assert_refused(answer, 403, "role_not_allowed")
    assert (await world.invitations.run(handlers.get_invitation, invitation["ref"])).status == "open"
