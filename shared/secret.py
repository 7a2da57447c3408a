"""Keys and sessions: how they are drawn, recognised and stored (§6, §1.2)."""

import hashlib
import re
import secrets
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

KEY_PREFIX = "sk-ks1_"
SESSION_PREFIX = "sk-kss1_"

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(r"sk-ks1_([0-9A-Za-z]{12})_[0-9A-Za-z]{38}")
_SESSION = re.compile(r"sk-kss1_[0-9A-Za-z]{43}")
_CHECKSUM_LENGTH = 6
_SESSION_BYTES = 32
_SESSION_LENGTH = 43  # 62^43 is just over 2^256

TokenBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just drawn. ``key`` goes into one answer; the rest may be stored and shown.

    ``key_id`` is 12 base62 characters, ``token`` the SHA-256 of the key in 64 hex digits, ``key_name`` ``sk-...`` and
    ``last_four``.
    """

    key: str = field(repr=False)
    key_id: str
    token: str
    last_four: str

    @property
    def key_name(self) -> str:
        return key_name_of(self.last_four)


def draw_key(token_bytes: TokenBytes = secrets.token_bytes, *, key_id: str | None = None) -> NewKey:
    """A new key: ``sk-ks1_`` + key_id (12) + ``_`` + secret (32, 190 bits) + CRC-32 (6), all base62.

    ``key_id`` is given when a key is rotated and keeps its name. ``token_bytes(n)`` gives n random bytes.
    """
    key_id = key_id or draw_key_id(token_bytes)
    body = f"{KEY_PREFIX}{key_id}_{_draw(32, token_bytes)}"
    key = body + _checksum(body)
    return NewKey(key=key, key_id=key_id, token=token_of(key), last_four=key[-4:])


def draw_key_id(token_bytes: TokenBytes = secrets.token_bytes) -> str:
    """A new ``key_id``, 12 base62 characters; imported and chosen keys get one, too."""
    return _draw(12, token_bytes)


def draw_session(token_bytes: TokenBytes = secrets.token_bytes) -> str:
    """A new session: ``sk-kss1_`` + 43 base62 characters, 256 random bits."""
    return SESSION_PREFIX + _base62(int.from_bytes(token_bytes(_SESSION_BYTES), "big"), _SESSION_LENGTH)


def draw_uuid(token_bytes: TokenBytes = secrets.token_bytes) -> str:
    """A new id."""
    return str(uuid.UUID(bytes=token_bytes(16), version=4))


def parse_key(text: str) -> str | None:
    """The ``key_id`` of a key of ours; None if it is none, or its checksum is wrong: no look-up is needed then."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return match[1]


def looks_like_ours(text: str) -> bool:
    """Whether ``text`` claims to be a key of ours, so must pass ``parse_key``; other ``sk-…`` are looked up by hash."""
    return text.startswith(KEY_PREFIX)


def is_session(text: str) -> bool:
    """Whether ``text`` has a session's shape; whether it is one, its hash tells."""
    return _SESSION.fullmatch(text) is not None


def token_of(text: str) -> str:
    """What a key or session is stored as: SHA-256 of the whole of it, 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def key_name_of(last_four: str) -> str:
    """How a key is shown: ``sk-...`` and its last four characters."""
    return f"sk-...{last_four}"


def _draw(length: int, token_bytes: TokenBytes) -> str:
    # 128 bits more than the digits hold: what the remainder favours is less than one in 2^128.
    return _base62(int.from_bytes(token_bytes(length + 16), "big") % 62**length, length)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode("ascii")), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    """``length`` digits, most significant first."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
