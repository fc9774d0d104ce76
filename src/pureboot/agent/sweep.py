"""A pass over the whole feed, from its start: what it meets is marked, and what it did not meet is gone at central.

Needed where news of a deletion may have been missed: the cursor was older than the feed remembers, or central was
restored from a backup. The marks lie in the file, so that a restart in the middle goes on. It is on from where it is
decided: what an answer to a push brings while the first page is on its way is met, too.
"""

from collections.abc import Iterable

from pureboot.agent.database import set_meta
from pureboot.storage.sqlite import Transaction

START = "0"


def begin(tx: Transaction) -> None:
    tx.execute("DELETE FROM feed_seen")
    set_meta(tx, "sweep", "1")


def is_on(tx: Transaction) -> bool:
    return tx.execute("SELECT 1 FROM meta WHERE key = 'sweep' AND value = '1'").fetchone() is not None


def saw(tx: Transaction, kind: str, id: str) -> None:
    tx.execute("INSERT OR IGNORE INTO feed_seen VALUES (?, ?)", [kind, id])


def saw_all(tx: Transaction, kind: str, ids: Iterable[str]) -> None:
    """Where a pass is on."""
    if is_on(tx):
        tx.executemany("INSERT OR IGNORE INTO feed_seen VALUES (?, ?)", [(kind, id) for id in ids])


def end(tx: Transaction) -> dict[str, list[str]]:
    """By kind, the ids that central told of once and that this pass did not meet."""
    unseen = {kind: [str(row[0]) for row in tx.execute(sql, [kind])] for kind, sql in _UNSEEN.items()}
    tx.execute("DELETE FROM feed_seen")
    set_meta(tx, "sweep", "")
    return unseen


_NOT_SEEN = "NOT IN (SELECT id FROM feed_seen WHERE kind = ?)"
_UNSEEN = {
    "node": f"SELECT id FROM node WHERE base_version IS NOT NULL AND id {_NOT_SEEN}",
    "workflow": f"SELECT id FROM workflow WHERE id {_NOT_SEEN}",
    "content": f"SELECT name FROM content WHERE name {_NOT_SEEN}",
    "conflict": f"SELECT id FROM conflict WHERE preview = 0 AND id {_NOT_SEEN}",
}
