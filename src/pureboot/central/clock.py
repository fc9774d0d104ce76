"""Time and identity, which everything here takes as parameters."""

from datetime import UTC, datetime
from typing import Protocol

import uuid_utils


class Clock(Protocol):
    def now(self) -> datetime: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def new_id() -> str:
    """UUIDv7: unique without a counter, and in order of making, which keeps the indexes small."""
    return str(uuid_utils.uuid7())
