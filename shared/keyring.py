"""The installation's secret, and every key that is derived from it (HKDF-SHA-256 of ``KEYSTEAD_SECRET_KEY``, §4.5)."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import OKPKey

SECRET_BYTES_MIN = 32

_NAMESPACE = "keystead/1/"
_NONCE_BYTES = 12
_SEALED = "1."  # the form of what is sealed, should there be another one day
_BASE64 = re.compile(r"[0-9A-Za-z+/_-]*={0,2}")


class Keyring:
    """Gives keys by purpose. The same secret and purpose give the same key, in every process and for ever.

    ``secret`` is base64, in either alphabet, of 32 bytes or more. Raises ``ValueError`` if it is not.
    """

    __slots__ = ("_secret", "_signing_keys")

    def __init__(self, secret: str) -> None:
        self._secret = _decoded(secret)
        self._signing_keys: dict[str, OKPKey] = {}

    def __repr__(self) -> str:
        return "Keyring(…)"

    def derive(self, purpose: str, length: int = 32) -> bytes:
        """``length`` bytes that only this purpose has."""
        info = (_NAMESPACE + purpose).encode()
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self._secret)

    def password(self, purpose: str) -> str:
        """256 bits as text without characters that a URL or a shell would touch."""
        return _text(self.derive(purpose))

    def signing_key(self, purpose: str) -> OKPKey:
        """An Ed25519 key pair; its ``kid`` is its thumbprint. Made once: a request must not wait for it."""
        if purpose not in self._signing_keys:
            self._signing_keys[purpose] = self._make_signing_key(purpose)
        return self._signing_keys[purpose]

    def _make_signing_key(self, purpose: str) -> OKPKey:
        private_key = Ed25519PrivateKey.from_private_bytes(self.derive(purpose))
        key = OKPKey.import_key(private_key)
        return OKPKey.import_key(private_key, {"kid": key.thumbprint(), "use": "sig"})

    def hmac(self, purpose: str, message: bytes) -> bytes:
        """HMAC-SHA-256: 32 bytes that tell nothing about ``message`` without the secret."""
        return hmac.digest(self.derive(purpose), message, hashlib.sha256)

    def seal(self, purpose: str, plaintext: bytes, context: bytes) -> str:
        """``plaintext`` so that only ``open`` with the same purpose and context can read it."""
        return seal(self.derive(purpose), plaintext, context)

    def open(self, purpose: str, sealed: str, context: bytes) -> bytes:
        """What was sealed. Raises ``NotSealed`` for anything else."""
        return open_sealed(self.derive(purpose), sealed, context)


class NotSealed(ValueError):
    """Not sealed with this key and context, or changed since."""


def seal(key: bytes, plaintext: bytes, context: bytes) -> str:
    """AES-256-GCM under ``key`` (32 bytes) with a random nonce; ``context`` is bound to it, and not in it."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _SEALED + _text(nonce + AESGCM(key).encrypt(nonce, plaintext, context))


def open_sealed(key: bytes, sealed: str, context: bytes) -> bytes:
    """What ``seal`` sealed. Raises ``NotSealed``."""
    try:
        if not sealed.startswith(_SEALED):
            raise NotSealed("not a sealed value")
        text = sealed.removeprefix(_SEALED)
        content = _bytes(text)
        if _text(content) != text:  # base64 has several texts for the same bytes, and we wrote one
            raise NotSealed("not as it was written")
        return AESGCM(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], context)
    except (InvalidTag, binascii.Error, ValueError) as fault:
        raise NotSealed("not sealed with this key and context") from fault


def equal(a: str | bytes, b: str | bytes) -> bool:
    """Whether two secrets are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(_utf8(a), _utf8(b))


def _utf8(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def _decoded(secret: str) -> bytes:
    text = secret.strip()
    try:
        if not _BASE64.fullmatch(text):
            raise ValueError
        content = _bytes(text.rstrip("="))
    except ValueError:
        raise ValueError("is not base64") from None  # the text itself must not be in any message
    if len(content) < SECRET_BYTES_MIN:
        raise ValueError(f"is too short: {len(content)} bytes, and at least {SECRET_BYTES_MIN} are needed")
    return content


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Base64 in either alphabet, without padding."""
    padded = text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)
