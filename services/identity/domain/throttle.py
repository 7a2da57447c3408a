"""The throttle: how many log-ins may fail, and how long nobody is heard after that (§5.6)."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

PAIR_FAILURES_MAX = 10
IPV6_SOURCE_BITS = 64  # what one customer of a provider gets at least


@dataclass(frozen=True, slots=True)
class Limits:
    """How many failures in ``window`` are as many as a source may have, and how long it is blocked after that."""

    source_failures_max: int
    window: timedelta
    block: timedelta


@dataclass(frozen=True, slots=True)
class Failures:
    """When log-ins failed: of a source, or of a source at one name (a pair). Never more than its limit."""

    at: tuple[datetime, ...] = ()
    blocked_until: datetime | None = None

    def block_at(self, now: datetime) -> datetime | None:
        """Until when it is blocked; None if it is not."""
        return self.blocked_until if self.blocked_until is not None and now < self.blocked_until else None


@dataclass(frozen=True, slots=True)
class Counted:
    """What is to be kept after an attempt. ``refused_until``: the attempt is not heard, and was not counted."""

    source: Failures
    pair: Failures
    refused_until: datetime | None = None


def source_of(address: str) -> str:
    """Whom an address is counted as: an IPv4 address itself, also in IPv6's clothes; of an IPv6 address its /64."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_SOURCE_BITS), strict=False))


def blocked_until(failures: Iterable[Failures], now: datetime) -> datetime | None:
    """Until when an attempt is not heard, by those of its source and those of its pair; None if it is."""
    blocks = (each.block_at(now) for each in failures)
    return max((until for until in blocks if until is not None), default=None)


def count(source: Failures, pair: Failures, limits: Limits, now: datetime) -> Counted:
    """Count an attempt as failed, which is done before its password is looked at; or refuse it.

    So however many come at once, no more than the limit are looked at. Who was right is forgiven.
    """
    if (until := blocked_until((source, pair), now)) is not None:
        return Counted(source, pair, until)
    source, pair = _recent(source, limits, now), _recent(pair, limits, now)
    until = now + limits.block
    if len(pair.at) >= PAIR_FAILURES_MAX:
        return Counted(source, replace(pair, blocked_until=until), until)
    if len(source.at) >= limits.source_failures_max:
        return Counted(replace(source, blocked_until=until), pair, until)
    return Counted(Failures((*source.at, now)), Failures((*pair.at, now)))


def forgive(failures: Failures, failures_max: int, at: datetime) -> Failures:
    """The attempt that was counted ``at`` was right; a block that came only of counting it is lifted."""
    if at not in failures.at:
        return failures
    place = failures.at.index(at)
    rest = failures.at[:place] + failures.at[place + 1 :]
    return Failures(rest, failures.blocked_until if len(rest) >= failures_max else None)


def over_at(failures: Failures, limits: Limits) -> datetime | None:
    """From when on it is as if there had been none; None if there are none."""
    ends = [at + limits.window for at in failures.at]
    return max([*ends, failures.blocked_until] if failures.blocked_until else ends, default=None)


def _recent(failures: Failures, limits: Limits, now: datetime) -> Failures:
    """Those that still count; after a block, none: it is over, and begins anew."""
    if failures.blocked_until is not None:
        return Failures()
    return Failures(tuple(at for at in failures.at if at > now - limits.window))
