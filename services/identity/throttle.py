"""Failed log-ins, counted where every replica finds them (§5.6). Whose they are is an HMAC: no name, no address."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.identity.domain import throttle as rule
from services.identity.domain.throttle import PAIR_FAILURES_MAX, Failures, Limits
from services.identity.settings import IdentitySettings
from shared.errors import Refused
from shared.event_store import Transaction
from shared.keyring import Keyring
from shared.service import Running


class LoginThrottled(Refused):
    reason = "login_throttled"

    def __init__(self, until: datetime, now: datetime) -> None:
        seconds = max(1, math.ceil((until - now).total_seconds()))
        message = f"too many log-ins have failed: try again in {seconds} seconds"
        super().__init__(message, headers={"Retry-After": str(seconds)})


@dataclass(frozen=True, slots=True)
class Attempt:
    """A log-in that counts if it fails: the rows it counts on, and the limits."""

    source: str
    pair: str
    limits: Limits


def attempt_of(settings: IdentitySettings, source: str | None, name: str) -> Attempt | None:
    """``source`` logging in as ``name``; None if it doesn't count: an exempt source, or the throttle is off."""
    limits = limits_of(settings)
    if source is None or limits is None:
        return None
    return Attempt(_who(settings.keyring, source), _who(settings.keyring, f"{source} {name}"), limits)


def limits_of(settings: IdentitySettings) -> Limits | None:
    """None if it is off: where one of the three is 0."""
    attempts, window, block = (
        settings.failed_logins_max_per_source,
        timedelta(seconds=settings.failed_login_window_seconds),
        timedelta(seconds=settings.failed_login_block_seconds),
    )
    return Limits(attempts, window, block) if attempts and window and block else None


def _who(keyring: Keyring, text: str) -> str:
    return keyring.hmac("failed-log-ins", text.encode()).hex()


async def check_heard(tx: Transaction, attempt: Attempt | None) -> None:
    """Raises ``LoginThrottled`` for who is blocked. Who is not may be yet, by those that are before them."""
    if attempt is None:
        return
    query = "select failed_at, blocked_until from failed_log_ins where who in ($1, $2)"
    rows = await tx.connection.exec_driver_sql(query, (attempt.source, attempt.pair))
    until = rule.blocked_until([_failures(row) for row in rows], tx.now)
    if until is not None:
        raise LoginThrottled(until, tx.now)


async def check(running: Running[Any], attempt: Attempt | None, is_right: Callable[[], Awaitable[bool]]) -> bool:
    """Whether the attempt is right, if it is heard; it counts as failed until it turned out to be right.

    Raises ``LoginThrottled``. One at a time in a process: so those who wait, and may be right, don't count meanwhile.
    """
    if attempt is None:
        return await is_right()
    async with running.own.turn:
        counted_at, refused_until = await running.run(_count, attempt)
        if refused_until is not None:
            raise LoginThrottled(refused_until, running.clock())
        right = await is_right()
        if right:
            await running.run(_forgive, attempt, counted_at)
        return right


async def forget(tx: Transaction) -> None:
    """Drop what no longer counts."""
    await tx.connection.exec_driver_sql(
        "delete from failed_log_ins where who in"
        " (select who from failed_log_ins where over_at <= $1 for update skip locked)",
        (tx.now,),
    )


async def _count(tx: Transaction, attempt: Attempt) -> tuple[datetime, datetime | None]:
    source = await _locked(tx, attempt.source)
    if (until := source.block_at(tx.now)) is not None:
        return tx.now, until  # without a row for each name that a blocked source thinks of
    counted = rule.count(source, await _locked(tx, attempt.pair), attempt.limits, tx.now)
    await _keep(tx, attempt.source, counted.source, attempt.limits)
    await _keep(tx, attempt.pair, counted.pair, attempt.limits)
    return tx.now, counted.refused_until


async def _forgive(tx: Transaction, attempt: Attempt, counted_at: datetime) -> None:
    limits = attempt.limits
    for who, failures_max in ((attempt.source, limits.source_failures_max), (attempt.pair, PAIR_FAILURES_MAX)):
        await _keep(tx, who, rule.forgive(await _locked(tx, who), failures_max, counted_at), limits)


async def _locked(tx: Transaction, who: str) -> Failures:
    """Ours until the commit, also if it is new. The source's before the pair's, always."""
    row = await tx.connection.exec_driver_sql(
        "insert into failed_log_ins (who, over_at) values ($1, $2)"
        " on conflict (who) do update set who = excluded.who returning failed_at, blocked_until",
        (who, tx.now),
    )
    return _failures(row.one())


def _failures(row: Any) -> Failures:
    failed_at, blocked_until = row
    return Failures(tuple(failed_at), blocked_until)


async def _keep(tx: Transaction, who: str, failures: Failures, limits: Limits) -> None:
    await tx.connection.exec_driver_sql(
        "update failed_log_ins set failed_at = $2::timestamptz[], blocked_until = $3, over_at = $4 where who = $1",
        (who, list(failures.at), failures.blocked_until, rule.over_at(failures, limits) or tx.now),
    )
