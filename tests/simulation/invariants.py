"""PROTOCOL 8 as queries. What can be seen at every step is looked at after each; the rest when everything has settled.

The checker reads central's file past central's code, and judges by what is stored there: receipts, history, events,
conflicts.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pureboot.central.generation import SPAN
from pureboot.core.lifecycle import By, Edge, NodeState, Stage, is_legal
from tests.simulation.agent import Process
from tests.simulation.central import PERSON

Row = sqlite3.Row

# PROTOCOL 5: what neither a policy nor a site's own people may overwrite, or lead to.
PROTECTED = ("deprovisioning", "retired", "migrating")
PERSONS_ONLY = ("pending", "reprovision", "deprovisioning", "retired")


def decided(step: Row) -> bool:
    """Whether it is part of a conflict's resolution, or an administrator's own."""
    return step["actor"] == PERSON or decided_apart(step)


def decided_apart(step: Row) -> bool:
    """By a policy, or by people at the site."""
    return str(step["actor"]).startswith(("strategy ", "Ada at "))


class Violation(AssertionError):
    """`name` is the invariant's in PROTOCOL 8."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


@dataclass
class Seen:
    """What the checker knows of central's file so far. A restore from backup begins it anew."""

    receipt: int = 0
    history: int = 0
    receipts: dict[str, Row] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)
    moved_by: set[str] = field(default_factory=set)


class Checker:
    """Two things have no order: `forked`, the epochs that two processes shared; and `given_up`, the items that a person
    gave up, which an agent's backup may bring back behind those that went on. `targets`: where the state updates lead
    that ever were on an agent's disk."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self.forked: set[str] = set()
        self.given_up: set[str] = set()
        self.targets: dict[str, Stage] = {}
        self._seen = Seen()
        self.counts: Counter[str] = Counter()

    def close(self) -> None:
        self._db.close()

    def rows(self, sql: str, *values: object) -> list[Row]:
        return self._db.execute(sql, values).fetchall()

    def restored(self) -> None:
        """Central's file is another now."""
        self._seen = Seen()

    def look(self) -> None:
        """After each step."""
        seen = self._seen
        receipts = self.rows("SELECT rowid, * FROM sync_receipt WHERE rowid > ? ORDER BY rowid", seen.receipt)
        history = self.rows("SELECT * FROM node_history WHERE seq > ? ORDER BY seq", seen.history)
        before = Counter(seen.steps)
        for receipt in receipts:
            seen.receipts[receipt["item_id"]] = receipt
        self._order(receipts)
        for step in history:
            self._step(step)
        self._applied(receipts)
        if receipts:
            self._conflicts(before, history)
            self._losers(receipts)
        self._revisions({step["node_id"] for step in history})
        seen.receipt = receipts[-1]["rowid"] if receipts else seen.receipt
        seen.history = history[-1]["seq"] if history else seen.history

    def _applied(self, receipts: Iterable[Row]) -> None:
        """I1: what central calls applied moved its node or found it where it leads; or it made a node, or found one."""
        for receipt in receipts:
            id, node = receipt["item_id"], receipt["node_id"]
            if receipt["outcome"] != "applied" or id in self._seen.moved_by:
                continue
            if receipt["item_type"] == "registration" and not self.rows("SELECT 1 FROM node WHERE id = ?", node):
                raise Violation("I1", f"{id} was applied, and there is no node {node}")
            if receipt["item_type"] == "state_update" and id in self.targets:
                self.counts["converged"] += 1
                if (stood := self._stage(node, receipt["expected_rev"] % SPAN)) != self.targets[id]:
                    raise Violation("I1", f"{id} leads to {self.targets[id]} and was applied; {node} stood at {stood}")

    def _stage(self, node: str, revision: int) -> Stage:
        """Where central had the node at that revision of its life."""
        made = "SELECT to_state, attempt FROM node_history WHERE node_id = ? ORDER BY seq LIMIT ?"
        if steps := self.rows(made, node, revision - 1):
            return Stage(NodeState(steps[-1]["to_state"]), steps[-1]["attempt"])
        first = "SELECT from_state FROM node_history WHERE node_id = ? ORDER BY seq LIMIT 1"
        begun = self.rows(first, node) or self.rows("SELECT state FROM node WHERE id = ?", node)
        return Stage(NodeState(begun[0][0]), 1 if begun[0][0] == "installing" else 0)

    def _order(self, receipts: Iterable[Row]) -> None:
        """I3. What central settles of one life's lane it settles in the order of its acceptance."""
        for receipt in receipts:
            self.counts[receipt["outcome"]] += 1
            if receipt["epoch"] in self.forked or receipt["item_id"] in self.given_up:
                continue
            for lane in {receipt["lane"], receipt["node_id"] or receipt["lane"]}:
                key = (receipt["epoch"], lane)
                if receipt["seq"] <= self._seen.newest.get(key, -1):
                    raise Violation("I3", f"{receipt['item_id']} comes after a later one of {key}")
                self._seen.newest[key] = receipt["seq"]

    def _step(self, step: Row) -> None:
        """I7, I8, and of a site's own steps I1 and I6."""
        seen, node = self._seen, step["node_id"]
        first = Stage(NodeState(step["from_state"]), 1 if step["from_state"] == "installing" else 0)
        here = seen.stages.get(node, first)
        target = Stage(NodeState(step["to_state"]), step["attempt"])
        edge = Edge(here, target, By(step["triggered_by"]))
        if here.state != step["from_state"]:
            raise Violation("I7", f"{node} was {here}, and steps from {step['from_state']}")
        if not is_legal(edge) and not (step["forced"] and decided(step)):
            raise Violation("I7", f"{node}: {edge} is not legal, and nobody forced it")
        seen.stages[node] = target
        seen.steps[node] += 1
        if decided_apart(step) and (here.state in PROTECTED or target.state in PERSONS_ONLY):
            raise Violation("I8", f"{node}: {step['actor']} made {edge}")
        if step["item_id"] and not decided(step):
            self._site_step(step, edge)

    def _site_step(self, step: Row, edge: Edge) -> None:
        seen, item = self._seen, step["item_id"]
        if item in seen.moved_by:
            raise Violation("I1", f"{item} moved its node twice")
        seen.moved_by.add(item)
        if item not in seen.receipts:
            raise Violation("I1", f"{item} moved its node, and has no receipt")
        receipt = seen.receipts[item]
        by_admin = edge.by is By.ADMIN
        if by_admin and (
            receipt["autonomy"] != "full" or edge.target.state in (NodeState.RETIRED, NodeState.DEPROVISIONING)
        ):
            raise Violation("I8", f"a site made {edge}, at level {receipt['autonomy']}")
        expected = self._expected(receipt)
        if expected is not None and self._overwritten(step, expected % SPAN):
            raise Violation("I6", f"{item} was made on {expected}, and took effect over what came after that")

    def _overwritten(self, step: Row, expected: int) -> bool:
        """Whether somebody moved the node between that revision and this step. What a resolution replayed of the same
        site's chain is what the step was made on, whatever that resolution overruled."""
        made = "SELECT actor, item_id FROM node_history WHERE node_id = ? AND seq < ? ORDER BY seq LIMIT -1 OFFSET ?"
        between = self.rows(made, step["node_id"], step["seq"], expected - 1)
        return any(not decided(row) or row["item_id"] is None for row in between[-1:])

    def _expected(self, receipt: Row) -> int | None:
        """The revision it was made on, by what is stored; None where it is of another generation, or of no revision."""
        if receipt["after"] in self._seen.receipts:
            revision: int | None = self._seen.receipts[receipt["after"]]["expected_rev"]
            return revision
        [meta] = self.rows("SELECT generation FROM meta")
        revision = receipt["base_state_rev"]
        return revision if receipt["base_generation"] == meta["generation"] else None

    def _conflicts(self, before: Counter[str], history: list[Row]) -> None:
        """I5, and I8 of what a policy settled."""
        for conflict in self.rows("SELECT * FROM sync_conflict"):
            automatic = str(conflict["resolved_by"] or "").startswith("strategy ")
            may_keep = conflict["strategy"] in ("last_write", "site_wins") and conflict["type"] == "state_mismatch"
            if automatic and not (conflict["resolution"] == "keep_central" or may_keep):
                raise Violation("I8", f"the policy settled {conflict['id']} by {conflict['resolution']}")
            if conflict["id"] in self._seen.conflicts:
                continue
            self._seen.conflicts.add(conflict["id"])
            self.counts[f"conflict {conflict['type']}"] += 1
            if conflict["type"] == "state_mismatch":
                self._moved_base(conflict, before, history)

    def _moved_base(self, conflict: Row, before: Counter[str], history: list[Row]) -> None:
        node, receipt = conflict["node_id"], self._seen.receipts.get(json.loads(conflict["chain"])[0]["item_id"])
        if receipt is None:
            raise Violation("I5", f"the conflict {conflict['id']} is about no item")
        [row] = self.rows("SELECT home_site_id, deleted_at FROM node WHERE id = ?", node)
        if row["home_site_id"] != conflict["site_id"] or row["deleted_at"]:
            return
        earlier = sum(
            step["node_id"] == node and self._came_before(step["item_id"], receipt["rowid"]) for step in history
        )
        expected = self._expected(receipt)
        if expected is not None and expected % SPAN == 1 + before[node] + earlier:
            raise Violation("I5", f"{receipt['item_id']} was made on what central had, and is a conflict")
        if expected is None and self._is_foreign(receipt) and self._stood_there(conflict):
            raise Violation("I5", f"{receipt['item_id']} says what a backup lost, and is not applied again")

    def _is_foreign(self, receipt: Row) -> bool:
        """Whether its chain began on what another life of central had."""
        while receipt["after"] in self._seen.receipts:
            receipt = self._seen.receipts[receipt["after"]]
        [meta] = self.rows("SELECT generation FROM meta")
        return receipt["base_generation"] not in (None, meta["generation"])

    def _stood_there(self, conflict: Row) -> bool:
        """Whether central had the node where the site's chain begins."""
        stood = self._stage(conflict["node_id"], conflict["central_rev"] % SPAN)
        return bool(json.loads(conflict["chain"])[0].get("from") == [stood.state, stood.attempt])

    def _came_before(self, item: str | None, rowid: int) -> bool:
        receipt = self._seen.receipts.get(item or "")
        return receipt is not None and receipt["rowid"] < rowid

    def _losers(self, receipts: Iterable[Row]) -> None:
        """I8: whoever loses stays readable."""
        for receipt in receipts:
            if receipt["outcome"] == "conflict":
                chains = self.rows("SELECT chain FROM sync_conflict WHERE id = ?", receipt["conflict_id"])
                if not chains or receipt["item_id"] not in {link["item_id"] for link in json.loads(chains[0]["chain"])}:
                    raise Violation("I8", f"{receipt['item_id']} ended in a conflict that does not know it")

    def _revisions(self, nodes: set[str]) -> None:
        """Each step is one revision, and none is lost."""
        for id in nodes:
            [node] = self.rows("SELECT state, attempt, state_rev FROM node WHERE id = ?", id)
            if node["state_rev"] % SPAN != 1 + self._seen.steps[id]:
                raise Violation("I1", f"{id} is at revision {node['state_rev']} after {self._seen.steps[id]} steps")
            if Stage(NodeState(node["state"]), node["attempt"]) != self._seen.stages[id]:
                raise Violation("I7", f"{id} is {node['state']}, its history ends elsewhere")

    # When everything has settled

    def effects(self) -> None:
        """I1: each item that central calls applied is there, once; of the others nothing is."""
        happened = Counter(
            row["item_id"] for row in self.rows("SELECT item_id FROM node_event WHERE item_id IS NOT NULL")
        )
        for id, times in happened.items():
            if times > 1 or id in self._seen.moved_by:
                raise Violation("I1", f"{id} happened more than once")
        for id, receipt in self._seen.receipts.items():
            applied = receipt["outcome"] == "applied"
            if receipt["item_type"] == "event" and applied and id not in happened:
                raise Violation("I1", f"{id} was applied, and did not happen")
            if not applied and (id in happened or id in self._seen.moved_by):
                raise Violation("I1", f"{id} is {receipt['outcome']}, and had an effect")

    def settled(self, ids: set[str]) -> None:
        """I2."""
        if lost := ids - self._seen.receipts.keys():
            raise Violation("I2", f"{len(lost)} accepted items never arrived, of them {sorted(lost)[:3]}")

    @property
    def received(self) -> set[str]:
        return set(self._seen.receipts)

    def nodes_of(self, site_id: str) -> dict[str, Row]:
        query = "SELECT * FROM node WHERE home_site_id = ? AND deleted_at IS NULL"
        return {row["id"]: row for row in self.rows(query, site_id)}

    def about_a_node(self, items: Collection[str]) -> set[str]:
        """Those of the items that central took for some node's."""
        query = "SELECT item_id FROM sync_receipt WHERE node_id IS NOT NULL"
        return {row["item_id"] for row in self.rows(query)} & set(items)

    def told(self, process: Process, ids: set[str], name: str) -> None:
        """Of these nodes the agent has heard central's last word."""
        mine = {str(row[0]): row[1] for row in process.rows(_NODES)}
        for id, node in self.nodes_of(process.identity.site_id).items():
            if id in ids and mine.get(id) != node["version"]:
                raise Violation(name, f"{process.name} has {id} at version {mine.get(id)}, central {node['version']}")

    def sides(self, process: Process) -> None:
        """I4 of what is disputed: while nobody has decided and all is delivered, the site shows its own side."""
        for id, version, *shown in process.rows(_DISPUTED):
            pending = "SELECT chain FROM sync_conflict WHERE id = ? AND version = ? AND decisions = '[]'"
            for row in self.rows(pending, id, version):
                told = [link["to"] for link in json.loads(row["chain"]) if "to" in link]
                if told and told[-1] != shown:
                    raise Violation("I4", f"{process.name} shows {shown} of {id}, where its side is {told[-1]}")

    def marks(self, process: Process) -> None:
        """I8: of a conflict that is central's to settle the site knows, and touches the machine no more; also where
        central has deleted the node and the machine is another one there by now."""
        query = "SELECT id, node_id FROM sync_conflict WHERE site_id = ? AND status = 'pending'"
        pending: defaultdict[str, set[str]] = defaultdict(set)
        for row in self.rows(query, process.identity.site_id):
            pending[process.cache.canonical(row["node_id"])].add(row["id"])
        for id, *_, mark in process.rows(_NODES):
            if (mark or "") not in (pending.get(str(id)) or {""}):
                raise Violation("I8", f"{process.name} has {id} in the conflict {mark}, central in {pending[str(id)]}")

    def agrees(self, process: Process, untold: set[str], *, disputed_too: bool) -> None:
        """I4: what the agent has of central's nodes is what central has; and what it shows is that. `untold`: nodes of
        which a person gave the registration up."""
        mine = {str(row[0]): row[1:] for row in process.rows(_NODES)}
        theirs = self.nodes_of(process.identity.site_id)
        for id, node in theirs.items():
            if id not in mine:
                raise Violation("I4", f"{process.name} does not know {id}")
            version, revision, base, attempt, shown, shown_attempt, conflict = mine[id]
            if (version, revision, base, attempt) != (
                node["version"],
                node["state_rev"],
                node["state"],
                node["attempt"],
            ):
                raise Violation("I4", f"{process.name} has {mine[id]} of {id}, central {tuple(node)}")
            if conflict is not None and not disputed_too:
                continue
            if conflict is not None or (shown, shown_attempt) != (base, attempt):
                raise Violation("I4", f"{process.name} shows {shown} (conflict: {conflict}) for {id}, which is {base}")
        # A row that another site's node was claimed by stays, and boots its disk: outside I4 (PROTOCOL 5).
        claims = "SELECT node_id FROM sync_conflict WHERE site_id = ? AND type = 'site_claim'"
        theirs_too = theirs.keys() | {row["node_id"] for row in self.rows(claims, process.identity.site_id)} | untold
        strangers = {id for id, row in mine.items() if id not in theirs_too and (row[6] is None or disputed_too)}
        if strangers:
            rows = [(id, *mine[id], process.cache.by_id(id)) for id in strangers]
            raise Violation("I4", f"{process.name} still has {rows}, which central does not have there")


_NODES = """
SELECT id, base_version, base_state_rev, base_state, base_attempt, state, attempt, conflict_id FROM node
"""

_DISPUTED = """
SELECT conflict.id, conflict.version, node.state, node.attempt
FROM conflict JOIN node ON node.conflict_id = conflict.id AND node.id = conflict.node_id
WHERE conflict.resolved = 0 AND NOT EXISTS (SELECT 1 FROM sync_queue WHERE lane = node.id)
"""
