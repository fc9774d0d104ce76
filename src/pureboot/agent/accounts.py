"""What became of the items of each life of this agent: made = settled + discarded + queued, or the gap is shown.

`made` is counted by the file itself, as rows come into the outbox (`schema.EIGHTH`).
"""

import sqlite3

from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import EpochAccount

# As many as one push carries.
MOST = 100
# Of those a session names: more starts in a row than any crash loop makes within one lease.
LIVES = 50


def begin(tx: Transaction, epoch: str) -> list[str]:
    """Keeps that this life may come to hold the session, before it asks. Returns the lives of this file before it, the
    newest first: any of them may hold it still, for an answer that never came may have granted it."""
    tx.execute("INSERT OR IGNORE INTO epoch_account (epoch) VALUES (?)", [epoch])
    rows = tx.execute("SELECT epoch FROM epoch_account WHERE epoch != ? ORDER BY rowid DESC LIMIT ?", [epoch, LIVES])
    return [row["epoch"] for row in rows]


def settled(tx: Transaction, epoch: str, by: int = 1) -> None:
    """Never fewer than none: after a damaged file more may come back than is known to have been settled."""
    tx.execute("UPDATE epoch_account SET settled = max(0, max(0, settled) + ?) WHERE epoch = ?", [by, epoch])


def count_refused(tx: Transaction) -> None:
    """An outbox was carried over into this file: what central refused is among it, and settled."""
    tx.execute(
        "UPDATE epoch_account SET settled = (SELECT count(*) FROM sync_queue AS q"
        " WHERE q.epoch = epoch_account.epoch AND q.refused = 1)"
    )


def discarded(tx: Transaction, epoch: str) -> None:
    tx.execute("UPDATE epoch_account SET discarded = discarded + 1 WHERE epoch = ?", [epoch])


def read(connection: sqlite3.Connection) -> list[EpochAccount]:
    """The newest, and before them those that do not agree. What is queued is counted anew from the rows themselves, so
    that an item which vanished from the file leaves a gap."""
    rows = connection.execute(_ACCOUNTS, [MOST]).fetchall()
    return [EpochAccount.model_validate(dict(row)) for row in rows]


def gap(account: EpochAccount) -> int:
    return account.made - account.settled - account.discarded - account.queued


def forget(tx: Transaction) -> None:
    """Of the lives in which nothing is open any more, only the newest are kept."""
    tx.execute(
        "DELETE FROM epoch_account WHERE made = settled + discarded AND rowid NOT IN"
        " (SELECT rowid FROM epoch_account ORDER BY rowid DESC LIMIT ?)",
        [MOST],
    )


_ACCOUNTS = """
WITH waiting AS (SELECT epoch, count(*) AS queued FROM sync_queue WHERE refused = 0 GROUP BY epoch)
SELECT a.epoch, made, max(0, settled) AS settled, discarded, coalesce(queued, 0) AS queued
FROM epoch_account AS a LEFT JOIN waiting AS w ON w.epoch = a.epoch
ORDER BY made != max(0, settled) + discarded + coalesce(queued, 0) DESC, a.rowid DESC LIMIT ?
"""
