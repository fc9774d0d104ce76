"""When content that nothing presses for is fetched: at the times of a cron expression, in UTC, or at any time."""

from datetime import datetime

from cronsim import CronSim


class Schedule:
    """Looks at the clock it is shown each time, so that one that was wrong for a while costs one time at most."""

    def __init__(self, expression: str, now: datetime) -> None:
        self._expression = expression
        self._looked_at = now

    def is_due(self, now: datetime) -> bool:
        """Whether a time came since this was last asked. Without an expression it always is."""
        due = not self._expression or self._next(self._looked_at) <= now
        self._looked_at = now
        return due

    def wait(self, now: datetime) -> float:
        """Seconds until the next time; without an expression there is none to wait for."""
        return (self._next(now) - now).total_seconds() if self._expression else float("inf")

    def _next(self, after: datetime) -> datetime:
        found: datetime = next(CronSim(self._expression, after))
        return found
