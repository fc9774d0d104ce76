"""Two transactions of PostgreSQL that commit in another order than they wrote in, and an agent that reads in between.

One site's feed must skip neither (I9). By hand: `.venv/bin/python -m tests.simulation.race`.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, event

from pureboot.central import engines, feed, nodes, sites
from pureboot.central.bell import Bell
from pureboot.central.bodies import NodeCreate
from pureboot.central.db import Database
from pureboot.wire.messages import SiteFields
from tests.support.central import SetClock
from tests.support.postgres import running_postgres

# Seconds that the second may take while the first holds its lock; it takes some milliseconds where nothing holds it.
HELD = 1.0
NOW = SetClock().now()


@dataclass
class Pause:
    """Holds the transaction of one thread right before its commit."""

    thread: str
    reached: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def set_up(self) -> Iterator[None]:
        def commits(_: Connection) -> None:
            if threading.current_thread().name == self.thread:
                self.reached.set()
                self.goes_on.wait(60)

        event.listen(Engine, "commit", commits)
        try:
            yield
        finally:
            event.remove(Engine, "commit", commits)


def race(address: str) -> str:
    """What the agent was never told of; empty if nothing."""
    with Database(engines.address(address), Bell()) as db:
        site = db.write_now(lambda conn: sites.create(conn, SiteFields(name="attic"), NOW)).id
        pause = Pause("first")
        with pause.set_up():
            first = threading.Thread(target=_import, args=(db, site, "52:54:00:00:00:01"), name="first")
            second = threading.Thread(target=_import, args=(db, site, "52:54:00:00:00:02"), name="second")
            first.start()
            assert pause.reached.wait(60), "the first transaction never came to its commit"
            second.start()
            second.join(HELD)
            told, cursor = _read(db, site, "0")
            pause.goes_on.set()
            first.join(60)
            second.join(60)
        more, _ = _read(db, site, cursor)
        wanted = {"52:54:00:00:00:01", "52:54:00:00:00:02"}
        return ", ".join(sorted(wanted - told - more))


def _import(db: Database, site: str, mac: str) -> None:
    body = NodeCreate(mac_address=mac, home_site_id=site)
    db.write_now(lambda conn: nodes.create(conn, body, NOW))


def _read(db: Database, site: str, cursor: str) -> tuple[set[str], str]:
    """The MACs on the pages from `cursor` on, and where they end."""
    macs: set[str] = set()
    more = True
    while more:
        since = feed.Cursor.parse(cursor)
        page = db.write_now(lambda conn: feed.page(conn, site, since, 100))  # noqa: B023  done before the next round
        macs |= {item.doc["mac_address"] for item in page.items if item.type == "node"}
        cursor, more = page.next, page.more
    return macs, cursor


def main() -> int:
    logging.disable(logging.CRITICAL)
    with running_postgres() as server, server.database() as address:
        skipped = race(address)
    print(f"I9: the feed skipped {skipped}" if skipped else "it holds")
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
