"""The visitor: the address that a request really came from, past proxies that are trusted and the portal (§5.6)."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import Request

from shared.keyring import Keyring
from shared.session_token import read, sign

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

VISITOR_HEADER = "x-keystead-visitor"
_PURPOSE, _TYPE = "visitor-signing", "visitor+jwt"
_LIFE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Visitor:
    """``address`` is None where there is none (a socket file). ``exempt``: nobody but this machine can be it."""

    address: str | None
    exempt: bool


def visitor_of(request: Request, trusted: Sequence[Network] = ()) -> Visitor:
    """Who sent the request: its peer, or, if that is a trusted proxy, whom the last trusted one heard it from."""
    peer = _address(request.client.host if request.client else "")
    forwarded = [part.strip() for value in request.headers.getlist("x-forwarded-for") for part in value.split(",")]
    if peer is None:
        return Visitor(None, exempt=not forwarded)
    return Visitor(str(_origin(peer, forwarded, trusted)), exempt=peer.is_loopback and not forwarded)


def _origin(peer: Address, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address:
    """Proxies append: read from the end, what a trusted one says is believed, and nothing before what it is not."""
    origin = peer
    for text in reversed(forwarded):
        if not any(origin in network for network in trusted):
            break
        before = _address(text)
        if before is None:
            break
        origin = before
    return origin


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def sign_visitor(keyring: Keyring, visitor: Visitor, now: datetime) -> str:
    """For the portal, which calls the API for its visitors: whom it calls for, in ``VISITOR_HEADER``."""
    claims = {
        "address": visitor.address,
        "exempt": visitor.exempt,
        "exp": int(now.timestamp()) + _LIFE_SECONDS,
    }
    return sign(keyring.signing_key(_PURPOSE), _TYPE, claims)


def read_visitor(keyring: Keyring, token: str, now: datetime) -> Visitor | None:
    """Whom the portal calls for; None for what it did not sign."""
    claims = read(keyring.signing_key(_PURPOSE), _TYPE, token)
    if claims is None or now.timestamp() >= claims["exp"]:
        return None
    return Visitor(claims["address"], bool(claims["exempt"]))
