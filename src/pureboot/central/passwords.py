"""Passwords: argon2id, off the event loop, and the same work for a name that nobody has."""

import asyncio
import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pureboot.core.errors import Invalid

# Characters. A passphrase is welcome; beyond the longest, somebody only wants work done.
SHORTEST, LONGEST = 10, 1000
# Each costs 64 MiB while it lasts; more at once would only take turns for the cores.
AT_ONCE = 2


def check(password: str) -> str:
    """Raises Invalid."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise Invalid(
            f"password: it has {len(password)} characters; {SHORTEST} to {LONGEST} are asked for.",
            code="password_length",
            hint="Some words that you remember are a good one.",
        )
    return password


_HASHER = PasswordHasher()


@cache
def _nobodys() -> str:
    """The hash of a password that nobody has, made once."""
    return _HASHER.hash(secrets.token_urlsafe())


class Passwords:
    def __init__(self) -> None:
        self._hasher = _HASHER
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._nobodys = _nobodys()

    async def hash(self, password: str) -> str:
        """Raises Invalid for one that is too short or too long."""
        check(password)
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, hashed: str | None, password: str) -> bool:
        """None, for a name that nobody has, takes as long and is never right."""
        async with self._turn:
            right = await asyncio.to_thread(self._verify, hashed or self._nobodys, password[:LONGEST])
        return right and hashed is not None

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False
