"""What boots say without writing: which nodes were seen, held in memory, queued once per node and minute.

A crash loses at most the last minute of it, and nothing else: a boot is no report (docs/guarantees.md).
"""

from collections import Counter
from time import monotonic

from pureboot.agent.journal import Journal
from pureboot.core.changes import NodeEvent

HOUR = 3600.0


class Observations:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._boots: Counter[str] = Counter()
        self._recent: dict[str, float] = {}

    def saw(self, node_id: str) -> None:
        self._boots[node_id] += 1
        self._recent[node_id] = monotonic()

    @property
    def seen_last_hour(self) -> int:
        limit = monotonic() - HOUR
        self._recent = {node_id: at for node_id, at in self._recent.items() if at > limit}
        return len(self._recent)

    async def flush(self) -> None:
        """Queues what was seen since the last time. What cannot be stored is kept for the next time."""
        boots, self._boots = self._boots, Counter()
        events = [NodeEvent(node_id, "boot_started", metadata={"boots": count}) for node_id, count in boots.items()]
        try:
            if events:
                await self._journal.observe(events)
        except BaseException:
            self._boots.update(boots)
            raise
