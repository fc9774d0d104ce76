"""Time as the agent uses it.

Clocks at sites are wrong. What orders and ages things is CLOCK_BOOTTIME, which no NTP step moves and which counts
suspended time; the wall clock is for people to read, and stands in only across the agent's own reboot.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

# Across a reboot an age comes from the wall clock, which is good to a minute at best.
REBOOT_UNCERTAINTY = 60.0
DRIFT = 100e-6
# Seconds a push may be on its way before central reads the ages in it: whoever sends it gives it up then.
ON_ITS_WAY = 30.0
# The boot of a moment whose age no clock can tell.
UNTRUSTED = ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One moment on all three: which boot of the host, seconds of its boot-time clock, seconds of the wall clock."""

    boot_id: str
    boottime: float
    wall: float

    def dump(self) -> str:
        """Short, for each item carries one."""
        return json.dumps([self.boot_id, self.boottime, self.wall])

    @classmethod
    def load(cls, text: str | None) -> "Stamp | None":
        """None also for what cannot be read: a moment nobody knows."""
        try:
            read = json.loads(text) if text else None
            if read is None:
                return None
            return cls(**read) if isinstance(read, dict) else cls(*read)  # by their names in files of before
        except (ValueError, TypeError):
            return None

    @property
    def when(self) -> datetime:
        return datetime.fromtimestamp(self.wall, UTC)


class Clock(Protocol):
    def stamp(self) -> Stamp: ...


class SystemClock:
    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def stamp(self) -> Stamp:
        # In milliseconds: an age is told in no more, and each item of the outbox carries its stamp.
        return Stamp(self._boot_id, round(time.clock_gettime(time.CLOCK_BOOTTIME), 3), round(time.time(), 3))


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds, and how far off they may be."""

    seconds: float
    uncertainty: float


def age_of(moment: Stamp, now: Stamp, on_its_way: float = ON_ITS_WAY) -> Age:
    """How long ago `moment` was, for whoever hears of it up to `on_its_way` seconds from now. After a reboot the wall
    clock answers; if it ran backwards, nothing is known but that it was before."""
    if moment.boot_id == now.boot_id:
        seconds = max(0.0, now.boottime - moment.boottime)
        return Age(seconds, on_its_way + DRIFT * seconds)
    seconds = now.wall - moment.wall
    if seconds < 0:
        return Age(0.0, float("inf"))
    return Age(seconds, on_its_way + REBOOT_UNCERTAINTY + DRIFT * seconds)


def trusted_age(moment: Stamp | None, last_kept: Stamp | None, now: Stamp) -> float | None:
    """Seconds since `moment`, or None where the clock cannot tell: the age of an approval is a safety limit.

    `last_kept` is the newest stamp on disk (one a minute). After a reboot of the host the wall clock serves only if it
    has not run backwards since then.
    """
    if moment is None or moment.boot_id == UNTRUSTED:
        return None
    if moment.boot_id == now.boot_id:
        return max(0.0, now.boottime - moment.boottime)
    if last_kept is None or now.wall < last_kept.wall or now.wall < moment.wall:
        return None
    by_wall = now.wall - moment.wall
    if last_kept.boot_id != moment.boot_id:
        return by_wall
    # The wall clock may have been set between the two; the limit is kept by whichever says older.
    return max(by_wall, (last_kept.boottime - moment.boottime) + (now.wall - last_kept.wall))


def unexplained(moment: Stamp, now: Stamp) -> float:
    """Seconds by which the wall clock has moved since then, beyond what is known to have passed."""
    passed = now.boottime - (moment.boottime if moment.boot_id == now.boot_id else 0.0)
    return now.wall - moment.wall - passed


def carried_over(moment: Stamp | None, last_kept: Stamp | None, now: Stamp) -> Stamp | None:
    """The same moment on the clock of this boot of the host, as well as can be told now; UNTRUSTED where it cannot."""
    if moment is None or moment.boot_id == now.boot_id:
        return moment
    age = trusted_age(moment, last_kept, now)
    if age is None:
        return Stamp(UNTRUSTED, 0.0, moment.wall)
    return Stamp(now.boot_id, now.boottime - age, moment.wall)
