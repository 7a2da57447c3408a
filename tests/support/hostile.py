"""What nobody should send, for Hypothesis to draw from."""

import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LIKELY = [
    "",
    " ",
    "-1",
    "0",
    "1e400",
    "NaN",
    "null",
    "true",
    "30d",
    "9999999y",
    "sk-",
    "sk-ks1_",
    "sk-kss1_" + "a" * 43,
    "0" * 64,
    "default_user_id",
    "proxy",
    "key:",
    "user:",
    "../../etc/passwd",
    "%00",
    "\x00",
    "\ud800",
    "\ufeff",
    "\u202e",
    "\ufb00",
    "\u0130@\u0131.test",
    "a@b",
    "'; drop table events; --",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "mock-fast",
    "all-proxy-models",
    "no-default-models",
    "proxy_admin",
    "soft",
    "strict",
    "usd:1",
    "text:x",
    "x" * 255,
    "x" * 256,
    "x" * 5000,
    "\U0001f600" * 64,
    "a\u0301" * 200,
    "2026-11-24",
    "9999-12-31",
    "0001-01-01",
    "2026-11-24T12:47:14.583Z",
    "9" * 400,
]
NUMBERS = [0, -1, 1, 0.5, -0.0, 2**31, 2**53, 2**53 - 1, 2**63, 2**64, 10**19, 10**400, 1e308, 5e-324, 1e-10]
texts = (
    st.sampled_from(LIKELY) | st.text(max_size=40) | st.text(st.characters(categories=["Cc", "Cs", "Zs"]), max_size=8)
)
numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats()
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
deep = st.integers(1, 40).map(lambda depth: json.loads("[" * depth + "]" * depth))
anything = values | deep


def as_value(value: bytes) -> bytes:
    """Bytes that HTTP lets a header hold: none of the control characters, and no white space at its ends."""
    return bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F).strip()


def as_target(value: bytes) -> bytes:
    """Bytes that HTTP lets a request line hold."""
    return bytes(byte for byte in value if 0x20 < byte < 0x7F and byte not in b"?#")


def hostile(examples: int) -> settings:
    """The same examples in every run: what one run finds is found by all."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
