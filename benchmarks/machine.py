"""What the figures were measured on, printed beside them."""

import os
import platform
import sqlite3
import statistics
import time
from pathlib import Path


def describe(folder: Path) -> str:
    load = os.getloadavg()[0]
    return (
        f"machine  {os.cpu_count()} cores, load {load:.1f}; {_loop() * 1000:.0f} ms for a loop of a million;"
        f" fsync {_fsync(folder) * 1000:.2f} ms;"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def _loop() -> float:
    """How fast a core is just now: shared ones differ by a factor of two from minute to minute."""
    began, total = time.perf_counter(), 0
    for number in range(1_000_000):
        total += number * number
    return time.perf_counter() - began


def _fsync(folder: Path) -> float:
    """The median for one page appended to a file."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)
