"""How often somebody may be wrong about a password: by name and by address, longer each time.

It is kept in memory only: a restart forgives, and what is remembered is bounded.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pureboot.core.errors import TooManyRequests

# Wrong tries that cost nothing: fingers slip, and many people may share an address.
FREE_BY_NAME, FREE_BY_ADDRESS = 5, 20
# Seconds; the first wait, which doubles, and the longest.
FIRST, LONGEST = 1.0, 60.0
# Seconds without a wrong try after which the ones before are forgotten: fewer tries than slowly going on would give.
FORGOTTEN_AFTER = 3600.0
# Names and addresses remembered; then the one that was wrong the longest ago is forgotten.
REMEMBERED = 10_000


@dataclass(slots=True)
class _Record:
    """`wrong_at`: of the last wrong try; `before`: of the one before it, should that turn out right."""

    wrong: int = 0
    until: float = 0.0
    wrong_at: float = 0.0
    before: float = 0.0


class Patience:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def take(self, name: str, address: str) -> None:
        """Before the password is looked at: as if it were wrong, so that many at once count, too.

        Raises TooManyRequests.
        """
        self._check(name, address)
        now = self._now()
        for key, free in _keys(name, address):
            record = self._records.pop(key, _Record())
            if now - record.wrong_at > FORGOTTEN_AFTER:
                record = _Record()
            record.wrong += 1
            record.before, record.wrong_at = record.wrong_at, now
            if record.wrong > free:
                record.until = now + min(FIRST * 2 ** min(record.wrong - free - 1, 20), LONGEST)
            self._records[key] = record
        while len(self._records) > REMEMBERED:
            self._records.popitem(last=False)

    def right(self, name: str, address: str) -> None:
        """The name is forgiven; the address only this one, for many may be tried from there."""
        self._records.pop(("name", name), None)
        if record := self._records.get(("address", address)):
            record.wrong -= 1
            record.until, record.wrong_at = 0.0, record.before

    def _check(self, name: str, address: str) -> None:
        known = (self._records.get(key) for key, _ in _keys(name, address))
        wait = max((record.until for record in known if record), default=0.0) - self._now()
        if wait > 0:
            raise TooManyRequests(
                "There were too many wrong passwords.",
                code="wrong_passwords",
                hint=f"Try again in {round(wait) or 1} s.",
                retry_after=wait,
            )


def _keys(name: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return (("name", name), FREE_BY_NAME), (("address", address), FREE_BY_ADDRESS)
