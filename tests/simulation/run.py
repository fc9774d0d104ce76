"""Tells histories: one by its seed, or many on all cores."""

import asyncio
import logging
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.schema import MIGRATIONS
from pureboot.central import engines
from pureboot.central.bell import Bell
from pureboot.central.db import Database
from pureboot.storage.sqlite import Store
from tests.simulation.central import DIGEST, KERNEL, KERNEL_NAME, copy_database, furnish
from tests.simulation.history import History, Stock
from tests.simulation.invariants import Violation

# Steps of a history before it heals.
STEPS = 45
# In memory where there is such a place: what a power cut does to a disk is not simulated, so nothing need reach one.
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True)
class Told:
    """`failure` is empty where everything held."""

    seed: int
    failure: str
    trace: list[str]
    counts: Counter[str] = field(default_factory=Counter)


def tell(seed: int, steps: int = STEPS) -> Told:
    logging.disable(logging.CRITICAL)  # a kill makes every log cry
    folder = Path(tempfile.mkdtemp(prefix="pureboot-history-", dir=FOLDER))
    history = History(Random(seed), stock(), folder)
    failure = ""
    try:
        asyncio.run(history.run(steps))
    except Violation as violation:
        failure = str(violation)
    except Exception as error:  # noqa: BLE001  whatever breaks under faults fails this seed, and the others go on
        failure = f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)
        logging.disable(logging.NOTSET)
    return Told(seed, failure, history.trace, history.checker.counts)


@dataclass
class Sum:
    """Of many histories: how many, those that failed, and what happened in all of them together."""

    histories: int = 0
    failures: list[Told] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def many(seeds: range, steps: int = STEPS, jobs: int = 2, *, stop: bool = False) -> Sum:
    """`stop`: the first failure is enough."""
    found = Sum()
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(tell, seed, steps) for seed in seeds]
        for future in futures:
            told = future.result()
            found.histories += 1
            found.counts += told.counts
            if told.failure:
                found.failures.append(told)
            if told.failure and stop:
                pool.shutdown(cancel_futures=True)
                break
    return found


@cache
def stock() -> Stock:
    """Once a process."""
    folder = Path(tempfile.mkdtemp(prefix="pureboot-stock-", dir=FOLDER))
    agents = furnish(folder)
    Store(folder / "agent.db", MIGRATIONS, threaded=False).close()
    content = ContentCache(folder / "cache", 2**20)
    kernel = folder / "cache" / "landed"
    kernel.write_bytes(KERNEL)
    asyncio.run(content.put(f"images/{KERNEL_NAME}", kernel, DIGEST))
    copy_database(folder / "central.db", folder / "furnished.db")
    db = Database(engines.sqlite_file(folder / "central.db"), Bell(), threaded=False)
    return Stock(folder, db, agents, content)
