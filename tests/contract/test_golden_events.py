"""Events are stored for ever (design §4): a golden example of every version of every event, none of which may change.

A new event or version adds its example to ``golden/events.json``, and to ``EXAMPLES`` what it must load to today.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.app import SERVICES
from services.budgets.events import (
    BudgetExhausted,
    BudgetSet,
    BudgetThresholdReached,
    HoldExceeded,
    ScopeTotal,
    SpendTotalsPublished,
    UsageSettled,
)
from services.identity.events import (
    FirstKey,
    PasswordSet,
    SessionEnded,
    SessionStarted,
    UserCreated,
    UserDeleted,
    UserLimits,
    UserRoleChanged,
    UserUpdated,
    WantedInvitation,
)
from services.invitations.events import (
    InvitationAccepted,
    InvitationCreated,
    InvitationExpired,
    InvitationResent,
    InvitationRevoked,
)
from services.keys.events import (
    KeyBlocked,
    KeyDeleted,
    KeyExpired,
    KeyGenerated,
    KeyTerms,
    KeyUnblocked,
    KeyUpdated,
)
from services.notifications.events import (
    NotificationAttempted,
    NotificationDeferred,
    NotificationFailed,
    NotificationQueued,
    NotificationSent,
    NotificationWithdrawn,
)
from shared.events import Catalog, Event, Recorded, from_cloudevent
from tests.support.history import committed, needs_history

GOLDEN = Path(__file__).parent / "golden"
EVENTS, ENVELOPE = "events.json", "envelope.json"
CATALOGS: dict[str, Catalog] = {service.name: service.catalog for service in SERVICES if service.catalog.types}

AT = datetime(2026, 11, 24, 12, 47, 14, 583000, UTC)
DAY = timedelta(days=1)
ADA, KEY_ID, TOKEN = "2d815ca9-9842-42f5-b5f2-269ba4d879dd", "6f7KeysTea01", "c1" * 32
REF, SESSION_ID = "6f7b5b3f-4e79-4c77-afbb-6813bee38d09", "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
SEALED = "v1.c2VhbGVk"
LIMITS = UserLimits(
    models=("mock-fast", "mock-priced"),
    max_budget_nano_usd=10_000_000_000,
    budget_duration="30d",
    budget_set_at=AT,
    tpm_limit=50_000,
    rpm_limit=100,
    max_parallel_requests=10,
)
MAIL: dict[str, Any] = {"id": SESSION_ID, "kind": "invitation", "user_id": ADA, "ref": REF, "generation": 2}
TERMS = KeyTerms(
    key_alias="ada-laptop",
    models=("mock-fast",),
    max_budget_nano_usd=1_000_000_001,
    soft_budget_nano_usd=800_000_000,
    budget_duration="1d",
    budget_set_at=AT,
    tpm_limit=50_000,
    rpm_limit=100,
    max_parallel_requests=10,
    metadata={"purpose": "transcript", "deep": {"list": [1, 0.5, None, True, "é"]}},
    tags=("t1",),
    duration="30d",
    expires_at=AT + 30 * DAY,
)

# What the example of each event's newest version must load to.
EXAMPLES: dict[str, tuple[Event, ...]] = {
    "identity": (
        UserCreated(
            user_id=ADA,
            sealed_email=SEALED,
            sealed_alias=None,
            role="internal_user",
            limits=LIMITS,
            metadata={"team": "blue"},
            first_key=FirstKey(key_id=KEY_ID, token=TOKEN, key_name="sk-...4P8g"),
            created_at=AT,
            invitation=WantedInvitation(ref=REF, send_email=True),
        ),
        UserUpdated(
            user_id=ADA,
            sealed_email=None,
            sealed_alias=SEALED,
            limits=UserLimits(),
            metadata={},
            updated_at=AT + DAY,
        ),
        UserRoleChanged(user_id=ADA, role="proxy_admin_viewer", updated_at=AT),
        UserDeleted(user_id=ADA, deleted_at=AT),
        PasswordSet(user_id=ADA, claim_id=SESSION_ID, set_at=AT),
        SessionStarted(
            session_id=SESSION_ID,
            user_id=ADA,
            token=TOKEN,
            method="invitation",
            sealed_ip=SEALED,
            sealed_user_agent=None,
            started_at=AT,
            expires_at=AT + DAY,
        ),
        SessionEnded(session_id=SESSION_ID, user_id=ADA, token=TOKEN, reason="password_set", ended_at=AT),
    ),
    "invitations": (
        InvitationCreated(
            ref=REF,
            user_id=ADA,
            generation=1,
            id_hash=TOKEN,
            created_by="default_user_id",
            created_at=AT,
            expires_at=AT + 7 * DAY,
            send_email=True,
        ),
        InvitationResent(
            ref=REF,
            user_id=ADA,
            generation=2,
            id_hash=TOKEN,
            resent_by="default_user_id",
            resent_at=AT,
            expires_at=AT + 7 * DAY,
            send_email=True,
        ),
        InvitationAccepted(ref=REF, user_id=ADA, claim_id=SESSION_ID, accepted_at=AT),
        InvitationRevoked(ref=REF, user_id=ADA, revoked_by="default_user_id", revoked_at=AT),
        InvitationExpired(ref=REF, user_id=ADA, expired_at=AT + 7 * DAY),
    ),
    "keys": (
        KeyGenerated(
            key_id=KEY_ID,
            token=TOKEN,
            key_name="sk-...4P8g",
            user_id=ADA,
            key_type="default",
            terms=TERMS,
            blocked=False,
            created_by=ADA,
            created_at=AT,
        ),
        KeyUpdated(
            key_id=KEY_ID, token=TOKEN, user_id=None, terms=KeyTerms(), updated_by="default_user_id", updated_at=AT
        ),
        KeyBlocked(key_id=KEY_ID, token=TOKEN, updated_by="default_user_id", updated_at=AT),
        KeyUnblocked(key_id=KEY_ID, token=TOKEN, updated_by="default_user_id", updated_at=AT),
        KeyExpired(key_id=KEY_ID, token=TOKEN, expired_at=AT + 30 * DAY),
        KeyDeleted(key_id=KEY_ID, token=TOKEN, user_id=ADA, deleted_by=ADA, deleted_at=AT),
    ),
    "budgets": (
        BudgetSet(
            scope=f"key:{KEY_ID}",
            max_budget_nano_usd=1_000_000_001,
            budget_duration="1d",
            enforcement="strict",
            set_at=AT,
        ),
        BudgetThresholdReached(
            scope=f"user:{ADA}",
            window_start=AT,
            threshold=0.8,
            limit_nano_usd=10_000_000_000,
            spent_nano_usd=8_000_050_000,
            reached_at=AT,
        ),
        BudgetExhausted(
            scope="proxy",
            window_start=AT,
            limit_nano_usd=10_000_000_000,
            spent_nano_usd=10_000_000_000,
            exhausted_at=AT,
        ),
        HoldExceeded(hold_id=REF, held_nano_usd=50_000, billed_nano_usd=51_000, at=AT),
        UsageSettled(count=3, total_nano_usd=150_000, digest=TOKEN, settled_at=AT),
        SpendTotalsPublished(
            totals=(
                ScopeTotal(
                    scope=f"key:{KEY_ID}",
                    window_start=AT,
                    window_end=AT + DAY,
                    window_spent_nano_usd=50_000,
                    total_spent_nano_usd=9_007_199_254_740_993,
                    last_used_at=AT,
                ),
                ScopeTotal(
                    scope="proxy",
                    window_start=None,
                    window_end=None,
                    window_spent_nano_usd=0,
                    total_spent_nano_usd=0,
                    last_used_at=None,
                ),
            ),
            published_at=AT,
        ),
    ),
    "notifications": (
        NotificationQueued(**MAIL, queued_at=AT),
        NotificationAttempted(id=SESSION_ID, attempt=1, attempted_at=AT),
        NotificationDeferred(
            id=SESSION_ID,
            attempt=1,
            error="the mail server did not answer in time",
            deferred_at=AT,
            due_at=AT + DAY,
        ),
        NotificationSent(**MAIL, attempts=2, sent_at=AT),
        NotificationFailed(
            **MAIL,
            attempts=1,
            reason="refused",
            error="the mail server refused the addressee: 550 5.1.1",
            failed_at=AT,
        ),
        NotificationWithdrawn(id=SESSION_ID, reason="revoked", withdrawn_at=AT),
    ),
}

# What an example of an earlier version lacks, as its upcasters fill it in.
FILLED_IN: dict[tuple[str, int], dict[str, Any]] = {
    ("UserCreated", 1): {"invitation": None},
    ("InvitationCreated", 1): {"send_email": False},
    ("InvitationResent", 1): {"send_email": False},
}

Golden = dict[str, dict[str, dict[str, Any]]]


def golden() -> Golden:
    """Service, type, version: the data as it is stored."""
    content: Golden = json.loads((GOLDEN / EVENTS).read_text(encoding="utf-8"))
    return content


def versions() -> Iterator[Any]:
    for service, catalog in CATALOGS.items():
        for name, event in catalog.types.items():
            for version in range(1, event.schema_version + 1):
                yield pytest.param(service, name, version, id=f"{service} {name} {version}")


@pytest.mark.parametrize(("service", "name", "version"), [*versions()])
def test_every_event_that_was_ever_stored_loads(service: str, name: str, version: int) -> None:
    data = golden()[service][name][str(version)]
    (wanted,) = [event for event in EXAMPLES[service] if event.type_name() == name]
    loaded = CATALOGS[service].load(name, version, data)
    assert loaded == wanted.model_copy(update=FILLED_IN.get((name, version), {}))
    if version == type(wanted).schema_version:
        assert json.loads(json.dumps(loaded.model_dump(mode="json"))) == data, "what is stored today is another thing"


def test_no_example_is_of_an_event_that_nobody_publishes() -> None:
    published = {(param.values[0], param.values[1], str(param.values[2])) for param in versions()}
    kept = {(s, name, version) for s, types in golden().items() for name, of in types.items() for version in of}
    assert kept == published


def test_no_example_leaves_a_field_out() -> None:
    """Else the test would not see that such a field was renamed: the newest versions say all that they can."""
    for service, types in golden().items():
        for name, by_version in types.items():
            event = CATALOGS[service].types[name]
            assert by_version[str(event.schema_version)].keys() == event.model_fields.keys()


def test_an_envelope_that_was_ever_published_is_read() -> None:
    data = (GOLDEN / ENVELOPE).read_bytes()
    envelope = json.loads(data)
    recorded = from_cloudevent(data, CATALOGS["keys"])
    assert recorded == Recorded(
        id=SESSION_ID,
        service="keys",
        stream=f"key-{KEY_ID}",
        version=1,
        position=42,
        recorded_at=AT,
        actor=ADA,
        correlation_id=REF,
        causation_id=None,
        event=EXAMPLES["keys"][0],
    )
    assert json.loads(recorded.to_cloudevent()) == envelope


@needs_history
def test_no_committed_example_was_changed() -> None:
    """A version that was stored once is read for ever: an example is added, never changed and never taken away."""
    now = golden()
    for _, text in committed(GOLDEN / ENVELOPE):
        assert json.loads(text) == json.loads((GOLDEN / ENVELOPE).read_bytes())
    for commit, text in committed(GOLDEN / EVENTS):
        before: Golden = json.loads(text)
        for service, types in before.items():
            for name, by_version in types.items():
                for version, data in by_version.items():
                    assert now[service][name][version] == data, f"{service} {name} {version}, as of {commit}"
