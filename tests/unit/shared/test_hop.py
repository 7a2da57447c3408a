"""The token of a hop: for one service, for seconds, of the gateway's own key pair, and of its own type (design §5)."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.errors import Unavailable
from shared.hop import Hop, read_hop, sign_hop
from shared.keyring import Keyring
from shared.permissions import Role
from shared.principal import Principal
from shared.session_token import sign, sign_session
from shared.visitor import Visitor, sign_visitor

KEYRING = Keyring(base64.b64encode(bytes(32)).decode())
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ADA = Principal(
    "ada",
    Role.INTERNAL_USER,
    "key",
    key_id="6f7KeysTea01",
    key_type="llm_api",
    token="c1" * 32,
    expires_at=NOW + timedelta(days=1),
)
VISITOR = Visitor("203.0.113.7", exempt=False)
HOP = Hop(ADA, "a call", VISITOR)
PRINCIPALS = [
    ADA,
    Principal("default_user_id", Role.PROXY_ADMIN, "master_key", token="d2" * 32),
    Principal("grace", Role.INTERNAL_USER_VIEWER, "session", session_id="s-1", expires_at=NOW),
    Principal(None, None, "key", key_id="6f7KeysTea02", token="e3" * 32),
    None,
]


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_the_service_reads_what_the_gateway_found_out(principal: Principal | None) -> None:
    hop = Hop(principal, "a call", VISITOR)
    assert read_hop(KEYRING, "keys", sign_hop(KEYRING, "keys", hop, NOW), NOW) == hop


def test_a_token_is_for_one_service() -> None:
    assert read_hop(KEYRING, "identity", sign_hop(KEYRING, "keys", HOP, NOW), NOW) is None


@pytest.mark.parametrize(
    ("seconds", "read"), [(0, True), (4.9, True), (5, False), (60, False), (-4, True), (-6, False)]
)
def test_a_token_lives_five_seconds_and_clocks_may_differ_by_as_many(seconds: float, read: bool) -> None:
    token = sign_hop(KEYRING, "keys", HOP, NOW)
    with capture_logs() as logged:
        try:
            found = read_hop(KEYRING, "keys", token, NOW + timedelta(seconds=seconds)) == HOP
        except Unavailable:
            found = False
    assert found is read
    assert [entry["event"] for entry in logged] == ([] if read else ["hop.out_of_time"]), (
        "who looks for it must find it"
    )


def test_no_other_token_passes_for_one() -> None:
    others = Keyring(base64.b64encode(bytes(range(32))).decode())
    claims: dict[str, Any] = {
        "aud": "keys",
        "exp": NOW.timestamp() + 5,
        "jti": "a call",
        "address": None,
        "exempt": True,
    }
    forged = [
        sign_hop(others, "keys", HOP, NOW),
        sign_session(KEYRING, claims),
        sign_visitor(KEYRING, VISITOR, NOW),
        sign(KEYRING.signing_key("principal-signing"), "session+jwt", claims),
        sign(KEYRING.signing_key("session-signing"), "principal+jwt", claims),
        "",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.e30.",
    ]
    for token in forged:
        assert read_hop(KEYRING, "keys", token, NOW) is None
