"""What the rules refuse, on which field and with which words, and that nothing is changed by it (contract §1.4)."""

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.errors_world import UNKNOWN, World, errors_world
from tests.support.installation import MASTER_KEY, PASSWORD, claims_of
from tests.support.refusals import refused_raw

Who = Callable[[World], str | None]
Body = Any | Callable[[World], Any]


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with errors_world() as made:
        yield made


def admin(_: World) -> str:
    return MASTER_KEY


def nobody(_: World) -> None:
    return None


def ada(world: World) -> str:
    return world.ada.session


def dora(world: World) -> str:
    return world.dora.session


def weak(world: World) -> str:
    key: str = world.weak_key["key"]
    return key


@dataclass(frozen=True)
class Case:
    """A request that the rules refuse: why, on which field, and with which words beside the field's name."""

    who: Who
    request: str
    body: Body
    reason: str
    param: str | None
    words: tuple[str, ...] = ()
    type: str = ""

    def __str__(self) -> str:
        return f"{self.request.partition('?')[0]} {self.reason} {self.param or ''}".rstrip()


def key_and(**more: Any) -> Callable[[World], Any]:
    return lambda world: {"key": world.key["token"], **more}


def query(text: str, **names: Callable[[World], str]) -> Callable[[World], str]:
    return lambda world: text.format(**{name: of(world) for name, of in names.items()})


CASES = (
    # Over the upper bounds, looked at first; null and -1 are over them (D23).
    Case(ada, "POST /key/generate", {"max_budget": 100000}, "over_upper_bound", "max_budget", ("100000", "100")),
    Case(admin, "POST /key/generate", {"max_budget": 100.000000001}, "over_upper_bound", "max_budget", ("100",)),
    Case(admin, "POST /key/generate", {"duration": "91d"}, "over_upper_bound", "duration", ("91d", "90d")),
    Case(admin, "POST /key/generate", {"duration": "-1"}, "over_upper_bound", "duration", ("90d",)),
    Case(ada, "POST /key/generate", {"budget_duration": "2mo"}, "over_upper_bound", "budget_duration", ("2mo", "30d")),
    Case(admin, "POST /key/update", key_and(max_budget=101), "over_upper_bound", "max_budget", ("101", "100")),
    Case(admin, "POST /key/update", key_and(max_budget=None), "over_upper_bound", "max_budget", ("no limit", "100")),
    Case(admin, "POST /key/update", key_and(max_budget=""), "over_upper_bound", "max_budget", ("no limit", "100")),
    Case(admin, "POST /key/update", key_and(duration="1y"), "over_upper_bound", "duration", ("1y", "90d")),
    Case(dora, "POST /key/update", key_and(duration=None), "over_upper_bound", "duration", ("no limit", "90d")),
    Case(dora, "POST /key/update", key_and(duration="-1"), "over_upper_bound", "duration", ("90d",)),
    Case(admin, "POST /key/update", key_and(budget_duration=None), "over_upper_bound", "budget_duration", ("30d",)),
    # Over what the caller has: the user's budget, the key that is used (§2.2 *6, D44).
    Case(ada, "POST /key/generate", {"max_budget": 10.01}, "over_own_limit", "max_budget", ("10.01", "10")),
    Case(weak, "POST /key/generate", {"max_budget": 2}, "over_own_limit", "max_budget", ("2", "1")),
    Case(weak, "POST /key/generate", {"duration": "11d"}, "over_own_limit", "duration", ("11d",)),
    Case(weak, "POST /key/generate", {"models": ["mock-priced"]}, "over_own_limit", "models"),
    Case(weak, "POST /key/generate", {"models": ["all-proxy-models"]}, "over_own_limit", "models"),
    Case(weak, "POST /key/generate", {"budget_duration": "1d"}, "over_own_limit", "budget_duration"),
    Case(weak, "POST /key/update", key_and(duration="11d"), "over_own_limit", "duration", ("11d",)),
    Case(weak, "POST /key/update", key_and(models=[]), "over_own_limit", "models"),
    # Models.
    Case(ada, "POST /key/generate", {"models": ["nothing"]}, "model_unknown", "models", ("'nothing'",)),
    Case(admin, "POST /user/update", {"user_id": "default_user_id", "models": ["nothing"]}, "model_unknown", "models"),
    Case(
        ada,
        "POST /key/generate",
        {"models": ["mock-fast", "mock-priced"]},
        "model_not_allowed",
        "models",
        ("'mock-priced'",),
        "user_model_access_denied",
    ),
    # Duplicates.
    Case(admin, "POST /user/new", lambda w: {"user_email": w.ada.email.upper()}, "duplicate_email", "user_email"),
    Case(
        admin,
        "POST /user/update",
        lambda w: {"user_id": w.dora.user_id, "user_email": f" {w.ada.email}"},
        "duplicate_email",
        "user_email",
    ),
    Case(admin, "POST /user/new", lambda w: {"user_id": w.ada.user_id}, "duplicate_user_id", "user_id"),
    Case(admin, "POST /user/new", {"user_id": "default_user_id"}, "duplicate_user_id", "user_id"),
    Case(admin, "POST /key/generate", lambda w: {"key_alias": w.taken_alias}, "duplicate_key_alias", "key_alias"),
    Case(
        ada,
        "POST /key/update",
        lambda w: {"key": w.adas_key["token"], "key_alias": w.taken_alias},
        "duplicate_key_alias",
        "key_alias",
    ),
    # Unknown ids: 404 to who sees all of the kind.
    Case(admin, f"GET /user/info?user_id={UNKNOWN}", None, "not_found", "user_id"),
    Case(admin, "POST /user/update", {"user_id": UNKNOWN}, "not_found", "user_id"),
    Case(admin, "POST /user/update", {"user_email": "nobody@example.test"}, "not_found", "user_email"),
    Case(admin, "POST /user/delete", {"user_ids": [UNKNOWN]}, "not_found", "user_ids"),
    Case(admin, "POST /user/delete", lambda w: {"user_ids": [w.ada.user_id, UNKNOWN]}, "not_found", "user_ids"),
    Case(admin, "POST /user/new", {"teams": [UNKNOWN]}, "not_found", "teams"),
    Case(admin, "POST /invitation/new", {"user_id": UNKNOWN}, "not_found", "user_id"),
    Case(admin, f"GET /invitation/info?invitation_id={UNKNOWN}", None, "not_found", "invitation_id"),
    Case(
        admin, "POST /invitation/update", {"invitation_id": UNKNOWN, "is_accepted": True}, "not_found", "invitation_id"
    ),
    Case(admin, "POST /invitation/delete", {"invitation_id": UNKNOWN}, "not_found", "invitation_id"),
    Case(admin, f"POST /keystead/v1/invitations/{UNKNOWN}/resend", None, "not_found", "ref"),
    Case(admin, "POST /key/generate", {"user_id": UNKNOWN}, "not_found", "user_id"),
    Case(admin, "POST /key/generate", {"team_id": UNKNOWN}, "not_found", "team_id"),
    Case(admin, f"GET /key/info?key={UNKNOWN}", None, "not_found", "key"),
    Case(admin, "POST /key/update", {"key": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/update", {"key_alias": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/delete", {"keys": [UNKNOWN]}, "not_found", "keys"),
    Case(admin, "POST /key/delete", lambda w: {"keys": [w.key["token"], UNKNOWN]}, "not_found", "keys"),
    Case(admin, "POST /key/delete", {"key_aliases": [UNKNOWN]}, "not_found", "key_aliases"),
    Case(admin, "POST /key/block", {"key": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/unblock", {"key": UNKNOWN}, "not_found", "key"),
    Case(admin, "POST /key/block", lambda w: {"key": w.bad["deleted"]}, "not_found", "key"),
    Case(admin, f"GET /spend/logs?api_key={UNKNOWN}", None, "not_found", "api_key"),
    Case(admin, f"GET /spend/logs?user_id={UNKNOWN}", None, "not_found", "user_id"),
    Case(admin, f"GET /keystead/v1/budgets/key:{UNKNOWN}", None, "not_found", "scope"),
    Case(admin, "GET /keystead/v1/budgets/team:unknown", None, "not_found", "scope"),
    Case(admin, f"GET /v1/models/{UNKNOWN}", None, "not_found", "model"),
    Case(ada, "GET /v1/models/mock-priced", None, "not_found", "model"),
    # ... and the answer of a foreign one to who sees only some.
    Case(ada, f"GET /user/info?user_id={UNKNOWN}", None, "not_yours", None),
    Case(ada, "POST /user/update", {"user_email": "nobody@example.test"}, "not_yours", None),
    Case(ada, "POST /user/update", lambda w: {"user_email": w.dora.email}, "not_yours", None),
    Case(ada, "POST /key/generate", lambda w: {"user_id": w.dora.user_id}, "not_yours", None),
    Case(ada, "POST /key/generate", {"team_id": UNKNOWN}, "not_yours", "team_id"),
    Case(ada, "POST /key/update", lambda w: {"key": w.key["token"]}, "not_yours", None),
    Case(ada, "POST /key/update", lambda w: {"key_alias": w.taken_alias}, "not_yours", None),
    Case(ada, "POST /key/delete", lambda w: {"keys": [w.adas_key["token"], w.key["token"]]}, "not_yours", None),
    Case(ada, "POST /key/delete", lambda w: {"key_aliases": [w.taken_alias]}, "not_yours", None),
    Case(ada, "GET /keystead/v1/budgets/proxy", None, "not_yours", None),
    # Invitations.
    Case(admin, "POST /invitation/new", {"user_id": "default_user_id"}, "user_has_no_email", "user_id"),
    Case(
        admin,
        "POST /invitation/update",
        lambda w: {"invitation_id": w.links["open"], "is_accepted": True},
        "field_read_only",
        "is_accepted",
    ),
    Case(
        admin,
        "POST /invitation/update",
        lambda w: {"invitation_id": w.links["used ref"], "is_accepted": False},
        "field_read_only",
        "is_accepted",
    ),
    Case(
        admin,
        "POST /invitation/delete",
        lambda w: {"invitation_id": w.links["used ref"]},
        "invitation_closed",
        "invitation_id",
    ),
    # The last way in can't be lost.
    Case(admin, "POST /user/delete", {"user_ids": ["default_user_id"]}, "out_of_range", "user_ids"),
    Case(
        admin,
        "POST /user/update",
        {"user_id": "default_user_id", "user_role": "internal_user"},
        "out_of_range",
        "user_role",
    ),
    # Log-in: one answer for all that is wrong.
    Case(
        nobody,
        "POST /v2/login",
        {"username": "nobody@example.test", "password": PASSWORD},
        "credentials_wrong",
        "invalid_credentials",
    ),
    Case(
        nobody,
        "POST /v2/login",
        lambda w: {"username": w.ada.email, "password": PASSWORD + "!"},
        "credentials_wrong",
        "invalid_credentials",
    ),
    Case(
        nobody,
        "POST /v2/login",
        {"username": "expiring@example.test", "password": PASSWORD},
        "credentials_wrong",
        "invalid_credentials",
    ),
    Case(
        nobody,
        "POST /v2/login",
        {"username": "admin", "password": PASSWORD},
        "credentials_wrong",
        "invalid_credentials",
    ),
    # Ranges.
    Case(admin, "GET /spend/logs?start_date=2026-11-25&end_date=2026-11-24", None, "range_malformed", "end_date"),
)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_rules_refuse(world: World, case: Case) -> None:
    method, _, path = case.request.partition(" ")
    body = case.body(world) if callable(case.body) else case.body
    refusal = await world.refused(method, path, body, key=case.who(world))
    assert (refusal.reason, refusal.param) == (case.reason, case.param), refusal
    if case.param is not None and refusal.status in (400, 404, 409) and case.reason != "credentials_wrong":
        assert case.param in refusal.message, refusal
    for word in case.words:
        assert word in refusal.message, refusal
    if case.type:
        assert refusal.type == case.type


async def test_all_that_is_wrong_with_a_log_in_is_answered_alike(world: World) -> None:
    cases = [case for case in CASES if case.reason == "credentials_wrong"]
    bodies = [case.body(world) if callable(case.body) else case.body for case in cases]
    assert len({await world.refused("POST", "/v2/login", body, key=None) for body in bodies}) == 1


async def test_a_foreign_object_is_answered_like_an_unknown_one(world: World) -> None:
    for foreign, unknown in (
        (f"/user/info?user_id={world.dora.user_id}", f"/user/info?user_id={UNKNOWN}"),
        (f"/key/info?key={world.key['key_id']}", f"/key/info?key={UNKNOWN}"),
        (f"/key/list?user_id={world.dora.user_id}", f"/key/list?user_id={UNKNOWN}"),
        (f"/key/list?key_hash={world.key['token']}", f"/key/list?key_hash={'0' * 64}"),
        (f"/spend/logs?user_id={world.dora.user_id}", f"/spend/logs?user_id={UNKNOWN}"),
        (f"/spend/logs?api_key={world.key['token']}", f"/spend/logs?api_key={UNKNOWN}"),
        (f"/keystead/v1/budgets/user:{world.dora.user_id}", f"/keystead/v1/budgets/user:{UNKNOWN}"),
        (f"/keystead/v1/budgets/key:{world.key['key_id']}", f"/keystead/v1/budgets/key:{UNKNOWN}"),
    ):
        refusals = [await world.refused("GET", path, key=world.ada.session) for path in (foreign, unknown)]
        assert refusals[0] == refusals[1], foreign
        assert refusals[0].reason == "not_yours", foreign


async def test_a_chosen_key_that_there_is_already_is_refused(world: World) -> None:
    chosen = f"sk-chosen-{uuid.uuid4().hex}"
    assert (await world.it.ok("POST", "/key/generate", {"key": chosen}))["key"] == chosen
    refusal = await world.refused("POST", "/key/generate", {"key": chosen})
    assert (refusal.reason, refusal.param) == ("duplicate_key", "key")
    assert chosen not in refusal.message


async def test_deletes_of_several_are_all_or_none(world: World) -> None:
    """D36."""
    made = [await world.it.ok("POST", "/key/generate", {}) for _ in range(2)]
    await world.refused("POST", "/key/delete", {"keys": [made[0]["token"], made[1]["token"], UNKNOWN]})
    for key in made:
        assert (await world.it.ok("GET", f"/key/info?key={key['token']}"))["info"]["status"] == "active"
    await world.refused("POST", "/user/delete", {"user_ids": [world.ada.user_id, UNKNOWN]})
    await world.refused("POST", "/user/delete", {"user_ids": [world.ada.user_id, "default_user_id"]})
    assert await world.it.ok("GET", "/keystead/v1/me", key=world.ada.session)


async def test_a_link_that_opens_nothing_says_why(world: World) -> None:
    used = await _claimable(world)
    await world.it.ok("POST", "/onboarding/claim_token", used.body(PASSWORD), key=used.credential)
    for link, reason in (
        (str(uuid.uuid4()), "invitation_unknown"),
        ("nonsense", "invitation_unknown"),
        (world.links["open ref"], "invitation_unknown"),
        (world.links["revoked"], "invitation_unknown"),
        (world.links["expired"], "invitation_expired"),
        (used.link, "invitation_used"),
    ):
        refusal = await world.refused("GET", f"/onboarding/get_token?invite_link={link}", key=None)
        assert (refusal.status, refusal.reason) == (401, reason), link
        assert link not in refusal.message
    refusal = await world.refused("POST", "/onboarding/claim_token", used.body(PASSWORD), key=used.credential)
    assert refusal.reason == "invitation_used"


@dataclass(frozen=True)
class Claimable:
    link: str
    ref: str
    user_id: str
    email: str
    credential: str

    def body(self, password: str, **more: Any) -> dict[str, Any]:
        return {"invitation_link": self.link, "user_id": self.user_id, "password": password, **more}


async def _claimable(world: World) -> Claimable:
    email = f"{uuid.uuid4().hex}.a.long.name@example.test"
    user = await world.it.ok("POST", "/user/new", {"user_email": email, "auto_create_key": False})
    made = await world.it.ok("POST", "/invitation/new", {"user_id": user["user_id"]})
    opened = await world.it.ok("GET", f"/onboarding/get_token?invite_link={made['id']}", key=None)
    return Claimable(made["id"], made["ref"], user["user_id"], email, claims_of(opened["token"])["key"])


async def test_a_claim_needs_the_links_own_credential(world: World) -> None:
    mine, other = await _claimable(world), await _claimable(world)
    body = mine.body(PASSWORD)
    refusal = await world.refused("POST", "/onboarding/claim_token", body, key=None)
    assert refusal.reason == "credentials_missing"
    for credential in (other.credential, MASTER_KEY, world.dora.session, mine.credential[:-4] + "AAAA", "x"):
        refusal = await world.refused("POST", "/onboarding/claim_token", body, key=credential)
        assert (refusal.status, refusal.reason) == (401, "invitation_unknown"), credential
    for wrong in ({"user_id": other.user_id}, {"user_id": UNKNOWN}, {"invitation_link": other.link}):
        refusal = await world.refused("POST", "/onboarding/claim_token", {**body, **wrong}, key=mine.credential)
        assert (refusal.status, refusal.reason) == (401, "invitation_unknown"), wrong


async def test_a_claim_without_credential_is_refused_before_its_body_is_looked_at(world: World) -> None:
    refusal = await refused_raw(world.it, "/onboarding/claim_token", b"{", key=None)
    assert (refusal.status, refusal.reason) == (401, "credentials_missing")


async def test_a_refused_password_leaves_the_invitation_open(world: World) -> None:
    """§5.6: 15 characters, 1,024 bytes, not among the most common, not the address nor its first part."""
    invited = await _claimable(world)
    for password, rule in (
        ("short", "15 characters"),
        ("x" * 1025, "1024 bytes"),
        ("é" * 513, "1024 bytes"),
        ("x" * 5000, "1024 bytes"),
        (invited.email, "e-mail"),
        (invited.email.upper(), "e-mail"),
        (invited.email.partition("@")[0], "e-mail"),
        ("1QAZ2wsx3edc4rfv", "most common"),
    ):
        refusal = await world.refused("POST", "/onboarding/claim_token", invited.body(password), key=invited.credential)
        assert (refusal.status, refusal.reason, refusal.param) == (400, "password_policy", "password")
        assert rule in refusal.message and password not in refusal.message
    claimed = await world.it.ok("POST", "/onboarding/claim_token", invited.body(PASSWORD), key=invited.credential)
    assert claimed["user_email"] == invited.email


async def test_only_open_and_expired_invitations_are_sent_again(world: World) -> None:
    path = f"/keystead/v1/invitations/{world.links['used ref']}/resend"
    refusal = await world.refused("POST", path)
    assert (refusal.status, refusal.reason) == (409, "invitation_not_resendable")
