"""Sealing: what identifies a person is in events only under a key of that person's own."""

import base64
import os
from collections.abc import Collection

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.event_store import Transaction
from shared.keyring import Keyring

NONCE_BYTES = 12
USER_KEY = "user-key"


def email_claim(keyring: Keyring, email: str) -> str:
    """The name under which an address is claimed: nobody reads it off, and equal addresses are equal."""
    return "email:" + keyring.hmac("email-claim", email.encode()).hex()


async def make_key(tx: Transaction, keyring: Keyring, user_id: str) -> bytes | None:
    """The user's key, made now; None if they have one, so are there already.

    In the caller's transaction: no user without a key, no key without a user.
    """
    key = AESGCM.generate_key(256)
    made = await tx.connection.exec_driver_sql(
        "insert into sealing_keys (user_id, sealed_key) values ($1, $2) on conflict do nothing",
        (user_id, keyring.seal(USER_KEY, key, user_id.encode())),
    )
    return key if made.rowcount == 1 else None


async def find_key(tx: Transaction, keyring: Keyring, user_id: str) -> bytes | None:
    """The user's key; None once it is destroyed."""
    row = await tx.connection.exec_driver_sql("select sealed_key from sealing_keys where user_id = $1", (user_id,))
    sealed = row.scalar()
    return None if sealed is None else keyring.open(USER_KEY, sealed, user_id.encode())


async def find_keys(tx: Transaction, keyring: Keyring, user_ids: Collection[str]) -> dict[str, bytes]:
    """The keys of these users; of whom it is destroyed, none."""
    rows = await tx.connection.exec_driver_sql(
        "select user_id, sealed_key from sealing_keys where user_id = any($1::text[])", (list(user_ids),)
    )
    found: list[tuple[str, str]] = [tuple(row) for row in rows]
    return {user_id: keyring.open(USER_KEY, sealed, user_id.encode()) for user_id, sealed in found}


def seal(key: bytes, text: str | None, field: str) -> str | None:
    """``text`` under ``key``; ``field`` is bound in, so that a sealed name can't be passed off as an address."""
    if text is None:
        return None
    nonce = os.urandom(NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, text.encode(), field.encode())).decode()


def unseal(key: bytes | None, sealed: str | None, field: str) -> str | None:
    """What was sealed; None if nothing was, or if the key is destroyed."""
    if sealed is None or key is None:
        return None
    raw = base64.b64decode(sealed)
    return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], field.encode()).decode()
