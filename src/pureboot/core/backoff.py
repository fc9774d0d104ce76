"""When to try again: a pure policy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: `uniform(0, min(cap, base * 2^(failures - 1)))` (PROTOCOL 3: with a fixed delay 1,000 agents that
    come back together are refused 6.2 times for each accepted request, with full jitter once).

    `cap` is 60 s: an agent must notice within a minute that central is back.
    """

    base: float
    cap: float = 60.0

    def delay(self, failures: int, chance: float, retry_after: float | None = None) -> float:
        """Seconds to wait after `failures` (>= 1) in a row; `chance` is uniform in [0, 1).

        What the server asked for is kept, with a second of spread on top.
        """
        if retry_after is not None:
            return retry_after + chance
        return chance * min(self.cap, self.base * 2.0 ** min(failures - 1, 32))
