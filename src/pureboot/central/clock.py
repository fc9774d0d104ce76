"""Time and identity, which everything here takes as parameters."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import uuid_utils


class Clock(Protocol):
    """`now` may be set, forward or back; `running` counts the seconds of this run, whatever is done to the other."""

    def now(self) -> datetime: ...

    def running(self) -> float: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def running(self) -> float:
        return time.monotonic()


# A request that waited for a lock has an older `now` than the one before it; two hosts' clocks agree no better.
SLACK = timedelta(minutes=1)


def lies_ahead(moment: datetime, now: datetime) -> bool:
    """Nothing has happened then yet: it was stored by a clock that was ahead, or this one is behind."""
    return moment - now > SLACK


def new_id() -> str:
    """UUIDv7: unique without a counter, and in order of making, which keeps the indexes small."""
    return str(uuid_utils.uuid7())
