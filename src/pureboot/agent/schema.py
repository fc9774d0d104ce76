"""The tables of agent.db, one script a version; `Store` runs those that a file has not seen."""

# `seq` is AUTOINCREMENT: a plain rowid of a deleted last row would be given out again, and order would be a lie.
FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE node (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL, attempt INTEGER NOT NULL,
    base_version INTEGER, base_state_rev INTEGER, base_state TEXT, base_attempt INTEGER,
    workflow_id TEXT, hostname TEXT NOT NULL DEFAULT '', facts TEXT NOT NULL DEFAULT '{}',
    document TEXT,
    boot_token TEXT, begun INTEGER NOT NULL DEFAULT 0, conflict_id TEXT,
    updated_at TEXT NOT NULL, cached_at TEXT NOT NULL
);
CREATE TABLE node_mac (mac TEXT PRIMARY KEY, node_id TEXT NOT NULL REFERENCES node (id) ON DELETE CASCADE);
CREATE INDEX node_mac_node ON node_mac (node_id);
CREATE TABLE node_alias (alias TEXT PRIMARY KEY, node_id TEXT NOT NULL);
CREATE TABLE departed (mac TEXT PRIMARY KEY, last_state TEXT NOT NULL);
CREATE TABLE workflow (id TEXT PRIMARY KEY, version INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE content (name TEXT PRIMARY KEY, version INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE conflict (
    id TEXT PRIMARY KEY, node_id TEXT, node_mac TEXT NOT NULL, conflict_type TEXT NOT NULL,
    local_state TEXT NOT NULL, central_state TEXT NOT NULL,
    local_updated_at TEXT NOT NULL, central_updated_at TEXT NOT NULL,
    resolved INTEGER NOT NULL DEFAULT 0, resolution TEXT, preview INTEGER NOT NULL
);
CREATE TABLE sync_queue (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL, item_type TEXT NOT NULL, payload TEXT NOT NULL,
    base_generation INTEGER, base_state_rev INTEGER, after TEXT, conflict_id TEXT,
    epoch TEXT NOT NULL, autonomy TEXT NOT NULL,
    created_at TEXT NOT NULL, accepted TEXT NOT NULL, report_key TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0, last_error TEXT,
    status TEXT NOT NULL DEFAULT 'pending', refused INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sync_queue_lane ON sync_queue (lane, seq);
CREATE INDEX sync_queue_held ON sync_queue (lane) WHERE status = 'failed' OR next_at > 0;
CREATE UNIQUE INDEX sync_queue_report ON sync_queue (report_key) WHERE report_key IS NOT NULL;
CREATE TABLE sync_sent (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL, item_type TEXT NOT NULL,
    payload TEXT NOT NULL, epoch TEXT NOT NULL, report_key TEXT, outcome TEXT NOT NULL, settled_at TEXT NOT NULL
);
CREATE INDEX sync_sent_report ON sync_sent (report_key) WHERE report_key IS NOT NULL;
"""

# Counted by the file itself, in the transaction that changes it: no write pays for a count(*), and no crash parts the
# two. `epoch_account` is what became of the items of each life; `feed_seen` what a pass from the start has met.
SECOND = """
ALTER TABLE node ADD COLUMN base_generation INTEGER;
UPDATE node SET base_generation = (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'generation')
WHERE base_state_rev IS NOT NULL;

ALTER TABLE sync_queue ADD COLUMN payload_hash BLOB;
ALTER TABLE sync_queue ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sync_queue_counted ON sync_queue (lane) WHERE counted > 0;

ALTER TABLE sync_sent ADD COLUMN base_generation INTEGER;
ALTER TABLE sync_sent ADD COLUMN base_state_rev INTEGER;
ALTER TABLE sync_sent ADD COLUMN after TEXT;
ALTER TABLE sync_sent ADD COLUMN conflict_id TEXT;
ALTER TABLE sync_sent ADD COLUMN autonomy TEXT NOT NULL DEFAULT 'limited';
ALTER TABLE sync_sent ADD COLUMN created_at TEXT NOT NULL DEFAULT '';
ALTER TABLE sync_sent ADD COLUMN accepted TEXT NOT NULL DEFAULT '';
ALTER TABLE sync_sent ADD COLUMN payload_hash BLOB;
UPDATE sync_sent SET created_at = settled_at;

CREATE TABLE queue_usage (what TEXT PRIMARY KEY, items INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO queue_usage
SELECT 'queue', count(*), coalesce(sum(length(CAST(payload AS BLOB))), 0) FROM sync_queue;
INSERT INTO queue_usage
SELECT 'sent', count(*), coalesce(sum(length(CAST(payload AS BLOB))), 0) FROM sync_sent;
CREATE TRIGGER sync_queue_grows AFTER INSERT ON sync_queue BEGIN
    UPDATE queue_usage SET items = items + 1, bytes = bytes + length(CAST(NEW.payload AS BLOB)) WHERE what = 'queue';
END;
CREATE TRIGGER sync_queue_shrinks AFTER DELETE ON sync_queue BEGIN
    UPDATE queue_usage SET items = items - 1, bytes = bytes - length(CAST(OLD.payload AS BLOB)) WHERE what = 'queue';
END;
CREATE TRIGGER sync_queue_changes AFTER UPDATE OF payload ON sync_queue BEGIN
    UPDATE queue_usage
    SET bytes = bytes + length(CAST(NEW.payload AS BLOB)) - length(CAST(OLD.payload AS BLOB)) WHERE what = 'queue';
END;
CREATE TRIGGER sync_sent_grows AFTER INSERT ON sync_sent BEGIN
    UPDATE queue_usage SET items = items + 1, bytes = bytes + length(CAST(NEW.payload AS BLOB)) WHERE what = 'sent';
END;
CREATE TRIGGER sync_sent_shrinks AFTER DELETE ON sync_sent BEGIN
    UPDATE queue_usage SET items = items - 1, bytes = bytes - length(CAST(OLD.payload AS BLOB)) WHERE what = 'sent';
END;

CREATE TABLE epoch_account (
    epoch TEXT PRIMARY KEY,
    made INTEGER NOT NULL DEFAULT 0, settled INTEGER NOT NULL DEFAULT 0, discarded INTEGER NOT NULL DEFAULT 0
);
INSERT INTO epoch_account
SELECT epoch, count(*), sum(settled), sum(discarded) FROM (
    SELECT epoch, refused AS settled, 0 AS discarded FROM sync_queue
    UNION ALL SELECT epoch, outcome != 'discarded', outcome = 'discarded' FROM sync_sent
) GROUP BY epoch;

CREATE TABLE feed_seen (kind TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
"""

# The changes of a node among the thousands of events that may stand in its lane: asked for at each report and at each
# answer to a push.
THIRD = """
CREATE INDEX sync_queue_changes ON sync_queue (lane, seq) WHERE item_type NOT IN ('event', 'discard');
"""

# `gone`: central has deleted the node or moved it away; the row stays for what it still has to deliver.
FOURTH = "ALTER TABLE node ADD COLUMN gone INTEGER NOT NULL DEFAULT 0"

# How the machine gets to its own disk; none: as its site has it.
FIFTH = "ALTER TABLE node ADD COLUMN local_boot TEXT"

# A decision of a conflict is none of the node's changes: the next one is made on what was before it.
SIXTH = """
DROP INDEX sync_queue_changes;
CREATE INDEX sync_queue_changes ON sync_queue (lane, seq) WHERE item_type NOT IN ('event', 'discard', 'settlement');
CREATE INDEX sync_queue_settlements ON sync_queue (lane) WHERE item_type = 'settlement';
"""

# What central asked for and became of it, by central's id of it: done once, however often it is asked for again.
SEVENTH = """
CREATE TABLE command (
    id TEXT PRIMARY KEY, outcome TEXT NOT NULL, message TEXT NOT NULL, done_at TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX command_untold ON command (id) WHERE told = 0;
"""

# What was settled and comes back was made before.
EIGHTH = """
CREATE TRIGGER sync_queue_made AFTER INSERT ON sync_queue
WHEN NOT EXISTS (SELECT 1 FROM sync_sent WHERE id = NEW.id) BEGIN
    INSERT INTO epoch_account (epoch, made) VALUES (NEW.epoch, 1) ON CONFLICT (epoch) DO UPDATE SET made = made + 1;
END;
"""

# Central's, by which an answer that was long on its way is told from a newer page of the feed.
NINTH = "ALTER TABLE conflict ADD COLUMN version INTEGER NOT NULL DEFAULT 0"

# `replayed`: it was settled, and central may have forgotten it; or it gives such an item up. It takes no room of the
# outbox's bound, for on the disk it only moved from one table to the other.
TENTH = """
ALTER TABLE sync_queue ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;
DROP TRIGGER sync_queue_grows;
DROP TRIGGER sync_queue_shrinks;
DROP TRIGGER sync_queue_changes;
CREATE TRIGGER sync_queue_grows AFTER INSERT ON sync_queue WHEN NEW.replayed = 0 BEGIN
    UPDATE queue_usage SET items = items + 1, bytes = bytes + length(CAST(NEW.payload AS BLOB)) WHERE what = 'queue';
END;
CREATE TRIGGER sync_queue_shrinks AFTER DELETE ON sync_queue WHEN OLD.replayed = 0 BEGIN
    UPDATE queue_usage SET items = items - 1, bytes = bytes - length(CAST(OLD.payload AS BLOB)) WHERE what = 'queue';
END;
CREATE TRIGGER sync_queue_changes AFTER UPDATE OF payload ON sync_queue WHEN NEW.replayed = 0 BEGIN
    UPDATE queue_usage
    SET bytes = bytes + length(CAST(NEW.payload AS BLOB)) - length(CAST(OLD.payload AS BLOB)) WHERE what = 'queue';
END;
"""

# As central told of it: its node may come to the site later.
ELEVENTH = """
ALTER TABLE conflict ADD COLUMN document TEXT;
CREATE INDEX conflict_node ON conflict (node_id);
"""

MIGRATIONS = [FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH, EIGHTH, NINTH, TENTH, ELEVENTH]
