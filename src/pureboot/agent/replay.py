"""What was settled, put back into the outbox: a central restored from a backup may have forgotten it (PROTOCOL 7)."""

from pureboot.agent import accounts
from pureboot.storage.sqlite import Transaction

DISCARDED = "discarded"
COLUMNS = (
    "seq, id, lane, item_type, payload, payload_hash, base_generation, base_state_rev, after, conflict_id,"
    " epoch, autonomy, created_at, accepted, report_key"
)
# What was made on an item that is given up was made on what that one was made on.
_RELINK = """
SET base_generation = iif(:after IS NULL, :base_generation, base_generation),
    base_state_rev = iif(:after IS NULL, :base_state_rev, base_state_rev), after = :after
WHERE after = :id
"""
RELINK_WAITING = f"UPDATE sync_queue {_RELINK} AND lane = :lane"
_RELINK_SENT = f"UPDATE sync_sent {_RELINK}"
_PUT_AWAY = f"outcome IN ('{DISCARDED}', 'rejected')"


def bring_back(tx: Transaction) -> int:
    """Everything central settled, at the place in line it had, beside the outbox's bound (see schema). What a person
    put away stays away, and what was made on it names what came before."""
    away = tx.execute(f"SELECT id FROM sync_sent WHERE {_PUT_AWAY} ORDER BY seq").fetchall()
    for item in away:
        row = tx.execute("SELECT * FROM sync_sent WHERE id = ?", [item["id"]]).fetchone()
        tx.execute(_RELINK_SENT, dict(row))
    counts = tx.execute(_COUNTS).fetchall()
    tx.execute(f"INSERT OR IGNORE INTO sync_queue ({COLUMNS}, replayed) {_BACK}")
    tx.execute(f"DELETE FROM sync_sent WHERE NOT {_PUT_AWAY}")
    # A refusal is judged anew, too: it was made beside what central no longer knows.
    tx.execute("UPDATE sync_queue SET refused = 0, status = 'pending', attempts = 0 WHERE refused = 1")
    tx.execute("UPDATE sync_queue SET next_at = 0 WHERE next_at > 0")
    for row in counts:
        accounts.settled(tx, row["epoch"], by=-row["items"])
    return sum(row["items"] for row in counts)


def trim(tx: Transaction, most: int) -> int:
    """Forgets the oldest of what is kept of settled items, until it is at most so many bytes."""
    kept = tx.execute("SELECT bytes FROM queue_usage WHERE what = 'sent'").fetchone()["bytes"]
    return tx.execute(_TRIM, [most]).rowcount if kept > most else 0


_TRIM = """
DELETE FROM sync_sent WHERE seq <= (
    SELECT seq FROM (SELECT seq, sum(length(CAST(payload AS BLOB))) OVER (ORDER BY seq DESC) AS newer FROM sync_sent)
    WHERE newer > ? ORDER BY seq DESC LIMIT 1
)
"""
_COUNTS = f"""
SELECT epoch, count(*) AS items FROM (
    SELECT epoch FROM sync_sent WHERE NOT {_PUT_AWAY}
    UNION ALL SELECT epoch FROM sync_queue WHERE refused = 1
) GROUP BY epoch
"""
_BACK = f"""
SELECT {COLUMNS.replace(" lane,", " coalesce((SELECT node_id FROM node_alias WHERE alias = lane), lane),")}, 1
FROM sync_sent WHERE NOT {_PUT_AWAY} ORDER BY seq
"""
