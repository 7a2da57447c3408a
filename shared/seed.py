"""A seed: what a request that may be repeated draws from, so that the same request draws the same again."""

import itertools
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from shared.secret import TokenBytes

_BYTES = 32


@dataclass(frozen=True, slots=True)
class Seed:
    """``content`` is as secret as all that is drawn from it."""

    content: bytes = field(repr=False)

    @property
    def command_id(self) -> str:
        """Names the request as the cause of its events; tells nothing of what is drawn."""
        return str(uuid.UUID(bytes=self._bytes("command", 16), version=4))

    def token_bytes(self, purpose: str) -> TokenBytes:
        """Bytes for ``purpose``, as good as random; asked for again in the same order, they are the same."""
        number = itertools.count()
        return lambda length: self._bytes(f"draw/{next(number)}/{purpose}", length)

    def _bytes(self, info: str, length: int) -> bytes:
        return HKDFExpand(SHA256(), length, info.encode()).derive(self.content)


def draw_seed() -> Seed:
    return Seed(secrets.token_bytes(_BYTES))


_current: ContextVar[Seed | None] = ContextVar("keystead_seed", default=None)


def current() -> Seed | None:
    """The seed of the request under way; None for one that need not be the same again."""
    return _current.get()


@contextmanager
def sown(seed: Seed) -> Iterator[None]:
    """Do the block's work from ``seed``."""
    token = _current.set(seed)
    try:
        yield
    finally:
        _current.reset(token)
