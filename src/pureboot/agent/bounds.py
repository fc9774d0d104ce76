"""How much the outbox takes in, and what it gives up first when room gets short.

Below 80 % of its bound everything is kept as it came. From there on progress is only counted, from 95 % on nothing is
taken but what moves or makes a node, or says that something failed; the last 2 % are for what moves a node, so that no
machine that says ever new things keeps the installs of others from starting; a full outbox, or a disk below its floor,
takes nothing. Boots go on throughout, and no new install starts whose edge cannot be stored. What was settled and comes
back for a central that was restored is beside all that: nobody has to wait until it has drained.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pureboot.core.changes import implied_edge
from pureboot.core.errors import StorageFull
from pureboot.core.lifecycle import NodeState, Stage

MIB = 1024**2

# What a machine says again and again, and what a count of tells as well.
PROGRESS = frozenset({"install_progress", "heartbeat", "boot_started"})
CROWDED, NARROW, RESERVED = 0.80, 0.95, 0.98
# Of a small disk the floor is this part, or a small disk would never take anything.
FLOOR_SHARE = 0.05
# Seconds after which a refused machine may try again: a drain or a person makes room, and neither is quick.
RETRY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the disk that holds the file."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Usage:
    items: int
    bytes: int

    def plus(self, size: int) -> "Usage":
        return Usage(self.items + 1, self.bytes + size)


def space_at(path: Path) -> Space:
    found = shutil.disk_usage(path.parent)
    return Space(found.total, found.free)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes are those of payloads; a row costs some 400 more. `sent_bytes` bounds what is kept of settled items."""

    max_items: int = 100_000
    max_bytes: int = 256 * MIB
    disk_floor: int = 512 * MIB
    sent_bytes: int = 64 * MIB
    space: Callable[[Path], Space] = field(default=space_at)

    def fill(self, usage: Usage) -> float:
        return max(usage.items / self.max_items, usage.bytes / self.max_bytes)

    def counts_only(self, item_type: str, payload: dict[str, Any], usage: Usage) -> bool:
        return self.fill(usage) >= CROWDED and item_type == "event" and payload.get("event") in PROGRESS

    def check(
        self, item_type: str, payload: dict[str, Any], usage: Usage, size: int, *, with_edge: bool = False
    ) -> None:
        """Raises StorageFull for an item of `size` bytes that has no place. `with_edge`: an event beside its edge."""
        moves = with_edge or item_type not in ("event", "registration")
        if usage.items + 1 > self.max_items or usage.bytes + size > self.max_bytes:
            raise StorageFull(
                f"The outbox is full: {usage.items} items wait for central.",
                hint="It drains when central is back; `pureboot agent queue` shows it, queue_max_items bounds it.",
                retry_after=RETRY_AFTER,
            )
        if self.fill(usage.plus(size)) > RESERVED and not moves:
            raise StorageFull(
                f"The outbox is nearly full ({usage.items} items); only changes of state are taken.",
                hint="It drains when central is back.",
                retry_after=RETRY_AFTER,
            )
        if self.fill(usage) >= NARROW and not moves and not _matters(item_type, payload):
            raise StorageFull(
                f"The outbox is nearly full ({usage.items} items); only changes of state and failures are taken.",
                hint="It drains when central is back.",
                retry_after=RETRY_AFTER,
            )

    def check_disk(self, path: Path) -> None:
        """Raises StorageFull below the floor: what is left is for settling, which makes room."""
        if self.below_floor(path):
            raise StorageFull("The disk is nearly full; nothing was stored.", retry_after=RETRY_AFTER)

    def problem(self, path: Path, usage: Usage) -> str:
        if self.below_floor(path):
            return "The disk is nearly full: reports are refused and no install starts; boots go on."
        if (fill := self.fill(usage)) >= CROWDED:
            return f"The outbox is {fill:.0%} full: progress is only counted; a full one refuses reports."
        return ""

    def below_floor(self, path: Path) -> bool:
        return self.spare(path) < 0

    def spare(self, path: Path, floors: float = 1) -> float:
        """Free bytes of the disk that holds the file, beyond its floor or so many times that."""
        space = self.space(path)
        return space.free - floors * min(self.disk_floor, FLOOR_SHARE * space.total)


def _matters(item_type: str, payload: dict[str, Any]) -> bool:
    """A registration, or an event that stands for an edge or for a failure."""
    if item_type != "event":
        return True
    name = str(payload.get("event", ""))
    return name.endswith("failed") or implied_edge(name, Stage(NodeState.DISCOVERED)) is not None
