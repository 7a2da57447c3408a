"""Passwords: the policy, the hash, and the tables that hold them (§5.6). None of it is ever in an event."""

import asyncio
import functools
import unicodedata
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from shared.errors import Refused
from shared.event_store import Transaction

BYTES_MAX = 1024
# No text of more characters is normalised to so few bytes (a character of two bytes is composed of three at most), and
# normalising takes the square of a long row of combining marks: what is longer is not even looked at.
LENGTH_MAX = 2 * BYTES_MAX
# OWASP's minimum for Argon2id (19 MiB, two passes, one lane): some 25 ms on the machines we build on. A log-in must not
# be a way to use a server up, and one hash is computed at a time; 15 characters make up for what a dearer one adds.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
PENDING_FOR = timedelta(minutes=15)


class PasswordPolicy(Refused):
    reason = "password_policy"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="password")


@functools.cache
def _common() -> frozenset[str]:
    return frozenset(FREQUENCY_LISTS["passwords"][:10_000])


def normalised(password: str) -> str:
    """NFKC, so that the same password typed on another keyboard is the same."""
    return unicodedata.normalize("NFKC", password)


def check_policy(password: str, *, email: str | None, length_min: int) -> None:
    """Raises ``PasswordPolicy``, naming the rule."""
    too_long = PasswordPolicy(f"password: must have at most {BYTES_MAX} bytes")
    if len(password) > LENGTH_MAX:
        raise too_long
    password = normalised(password)
    if len(password) < length_min:
        raise PasswordPolicy(f"password: must have at least {length_min} characters")
    if len(password.encode()) > BYTES_MAX:
        raise too_long
    if password.lower() in _common():
        raise PasswordPolicy("password: is among the 10,000 most common ones")
    if email and password.lower() in (email, email.partition("@")[0]):
        raise PasswordPolicy("password: must not be the e-mail address or its first part")


class Hashing:
    """Argon2id off the event loop, one hash at a time: a burst of log-ins waits for itself, and nobody else for it."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._nobodys_hash = HASHER.hash("nobody's password")
        self.turn = asyncio.Lock()  # whose log-in is looked at, of those that count if they fail

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._executor, HASHER.hash, normalised(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether the password is the hash's; without a hash no, after just as much work."""
        matches = await asyncio.get_running_loop().run_in_executor(
            self._executor, _matches, password_hash or self._nobodys_hash, normalised(password)
        )
        return matches and password_hash is not None


def _matches(password_hash: str, password: str) -> bool:
    try:
        return HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


@asynccontextmanager
async def hashing() -> AsyncIterator[Hashing]:
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
    try:
        yield Hashing(executor)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


async def find_hash(tx: Transaction, user_id: str, *, lock: bool = False) -> str | None:
    """``lock`` keeps it as it is until the commit: who sets another then finds the session that was started by this."""
    query = "select password_hash from credentials where user_id = $1" + (" for share" if lock else "")
    row = await tx.connection.exec_driver_sql(query, (user_id,))
    found: str | None = row.scalar()
    return found


async def find_accepted_position(tx: Transaction, user_id: str) -> int | None:
    """Where the accept stands whose password is in force; it stays so until the commit."""
    row = await tx.connection.exec_driver_sql(
        "select accepted_position from credentials where user_id = $1 for share", (user_id,)
    )
    found: int | None = row.scalar()
    return found


async def keep_pending(tx: Transaction, claim_id: str, user_id: str, password_hash: str) -> None:
    """Keep a password until the invitation it came with is accepted."""
    await tx.connection.exec_driver_sql(
        "insert into pending_credentials (claim_id, user_id, password_hash, created_at) values ($1, $2, $3, $4)",
        (claim_id, user_id, password_hash, tx.now),
    )


async def activate(tx: Transaction, claim_id: str, accepted_position: int) -> bool:
    """Put a pending password in force, unless a later accept's is. False if it was done, or undone, before."""
    row = await tx.connection.exec_driver_sql(
        "delete from pending_credentials where claim_id = $1 returning user_id, password_hash", (claim_id,)
    )
    pending: Any = row.first()
    if pending is None:
        return False
    changed = await tx.connection.exec_driver_sql(
        "insert into credentials (user_id, password_hash, accepted_position) values ($1, $2, $3)"
        " on conflict (user_id) do update set password_hash = excluded.password_hash,"
        " accepted_position = excluded.accepted_position"
        " where credentials.accepted_position < excluded.accepted_position",
        (pending[0], pending[1], accepted_position),
    )
    return changed.rowcount == 1


async def drop(tx: Transaction, user_id: str) -> None:
    await tx.connection.exec_driver_sql("delete from credentials where user_id = $1", (user_id,))
    await tx.connection.exec_driver_sql("delete from pending_credentials where user_id = $1", (user_id,))


async def drop_stale(tx: Transaction, now: datetime) -> None:
    """Forget pending passwords whose claim came to nothing."""
    await tx.connection.exec_driver_sql("delete from pending_credentials where created_at < $1", (now - PENDING_FOR,))
