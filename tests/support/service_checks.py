"""What must be true of the logs and read models of a whole installation, when everybody has heard everything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from keystead.app import SERVICES, postgres_urls
from tests.support.histories import Entry, Log, Scratch, check_fold, check_log, check_reactions, log_of
from tests.support.installation import keyring
from tests.support.service_steps import HEARS

# What happens to a thing once, whatever happens to those who do it.
ONCE = {
    "identity": ("UserCreated", "UserDeleted", "SessionStarted", "SessionEnded"),
    "invitations": ("InvitationCreated", "InvitationAccepted", "InvitationRevoked", "InvitationExpired"),
    "keys": ("KeyGenerated", "KeyDeleted"),
    "notifications": ("NotificationQueued", "NotificationWithdrawn"),
}


async def check_all(owner_url: str, loaded: Mapping[str, Any], acknowledged: Sequence[tuple[str, str, str]]) -> None:
    """Everything."""
    owner = await asyncpg.connect(owner_url)
    try:
        logs = {service: await log_of(owner, service) for service in HEARS}
        await _check_claims(owner)
    finally:
        await owner.close()
    for service, log in logs.items():
        check_log(service, log)
    _check_once(logs)
    _check_acknowledged(logs, acknowledged)
    _check_flows(logs)
    _check_budgets(logs)
    for folding in (each for each in SERVICES if each.projections):
        dsn = postgres_urls(owner_url, keyring())[folding.name]
        await check_fold(Scratch(folding, loaded[folding.name], owner_url, dsn))


async def _check_claims(owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    """An address and an alias are claimed by who has them, and by nobody else."""
    for service, kind, has in (
        ("identity", "email", "select 'user-' || user_id from identity.users_1 where email is not null"),
        (
            "keys",
            "alias",
            "select 'key-' || key_id from keys.keys_1 where key_alias is not null and deleted_at is null",
        ),
    ):
        claims = await owner.fetch(f"select stream from {service}.claims where claim like '{kind}:%' order by 1")
        holders = await owner.fetch(f"{has} order by 1")
        assert [row[0] for row in claims] == [row[0] for row in holders], f"{kind}"


def _check_once(logs: Mapping[str, Log]) -> None:
    for service, types in ONCE.items():
        for type_ in types:
            of_stream = Counter(entry.stream for entry in logs[service] if entry.type == type_)
            assert set(of_stream.values()) <= {1}, f"{type_} more than once: {of_stream.most_common(1)}"
    claims = Counter(entry.data["claim_id"] for entry in logs["identity"] if entry.type == "PasswordSet")
    assert set(claims.values()) <= {1}, "a claim set a password twice"


def _check_acknowledged(logs: Mapping[str, Log], acknowledged: Sequence[tuple[str, str, str]]) -> None:
    there = {(service, entry.type, entry.stream) for service, log in logs.items() for entry in log}
    assert {*acknowledged} <= there, "what was acknowledged is gone"


def _check_flows(logs: Mapping[str, Log]) -> None:
    """What one service's event asks of another, that one did: once, and in order."""
    mails = [entry for entry in logs["notifications"] if entry.type == "NotificationQueued"]
    check_reactions(logs["invitations"], mails, lambda entry: bool(entry.data.get("send_email")), "mails")
    created = {entry.id for entry in logs["identity"] if entry.type == "UserCreated"}
    first_keys = [e for e in logs["keys"] if e.type == "KeyGenerated" and e.causation_id in created]
    check_reactions(logs["identity"], first_keys, lambda entry: bool(entry.data.get("first_key")), "first keys")
    wanted = [e for e in logs["invitations"] if e.type == "InvitationCreated" and e.causation_id in created]
    check_reactions(logs["identity"], wanted, lambda entry: bool(entry.data.get("invitation")), "first invitations")
    accepted = {e.data["claim_id"] for e in logs["invitations"] if e.type == "InvitationAccepted"}
    claimed = {e.data["claim_id"] for e in logs["identity"] if e.type == "PasswordSet"}
    assert claimed <= accepted, "a password was set that no invitation was accepted for"


def _check_budgets(logs: Mapping[str, Log]) -> None:
    """Each key's and user's budget is the last that they were given, and none once they are gone."""
    expected = _limits(logs["keys"], "key", "terms") | _limits(logs["identity"], "user", "limits")
    in_force = {e.data["scope"]: e.data["max_budget_nano_usd"] for e in logs["budgets"] if e.type == "BudgetSet"}
    assert {scope: in_force.get(scope) for scope in expected} == expected


def _limits(log: Log, kind: str, field: str) -> dict[str, int | None]:
    limits: dict[str, int | None] = {}
    for entry in log:
        if field in entry.data:
            limits[_scope(kind, entry)] = entry.data[field]["max_budget_nano_usd"]
        elif entry.type in ("KeyDeleted", "UserDeleted"):
            limits[_scope(kind, entry)] = None
    return limits


def _scope(kind: str, entry: Entry) -> str:
    return f"{kind}:{entry.data[f'{kind}_id']}"
