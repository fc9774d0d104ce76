"""The mutation gate: what PROTOCOL 9 says must break when it is taken out, taken out of a copy of the source; and what
we found ourselves.

A simulator that finds nothing proves nothing. Each row removes one piece of the protocol from the real code, by an edit
of its text that must fit exactly once, and names the run that has to find a violation then.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Among the thousand that `test_histories.py` tells of the code as it is, which is thereby known to break none of them.
HISTORIES = ("tests.simulation", "--stop", "--seeds", "400", "--first", "300")
RACE = ("tests.simulation.race",)


@dataclass(frozen=True)
class Edit:
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """`finds`: the module, with its arguments, whose run must end in a violation."""

    name: str
    edits: tuple[Edit, ...]
    finds: tuple[str, ...] = HISTORIES


MUTATIONS = (
    Mutation(
        "receipts",
        (
            Edit(
                "central/push.py",
                "    if receipt := batch.receipts.get(offer.item.id):\n        return _again(batch, offer, receipt)\n",
                "",
            ),
            Edit(
                "central/batch.py",
                "        insert_all(conn, insert(t.sync_receipt), self.receipt_rows)\n",
                "        from pureboot.central.sql import upsert\n"
                "        upsert(conn, t.sync_receipt, self.receipt_rows)\n",
            ),
        ),
    ),
    Mutation(
        "ids replaced by one high-water mark per agent",
        (
            Edit(
                "central/push.py",
                "    results = [_settle(batch, offer) for offer in offers]\n",
                "    from sqlalchemy import func, select\n"
                "    from pureboot.central import tables as t\n"
                "    query = select(func.max(t.sync_receipt.c.seq)).where(t.sync_receipt.c.agent_id == agent.id)\n"
                "    mark = conn.execute(query).scalar() or 0\n"
                "    results = [\n"
                "        PushResult(id=offer.item.id, outcome=Outcome.DUPLICATE, first=Outcome.APPLIED)\n"
                "        if offer.item.seq <= mark else _settle(batch, offer) for offer in offers\n"
                "    ]\n",
            ),
            Edit(
                "central/push.py",
                "    receipts = [batch.receipts[o.item.id] for o in offers]\n",
                "    receipts = [batch.receipts[o.item.id] for o in offers if o.item.id in batch.receipts]\n",
            ),
        ),
    ),
    Mutation(
        "node documents in the push answer",
        (Edit("central/push.py", "nodes=[_pushed(batch, batch.nodes[id]) for id in touched],", "nodes=[],"),),
    ),
    Mutation(
        "sync_sent replay after central's restore",
        (Edit("agent/mirror.py", "        back = self._queue.bring_back(tx)\n", "        back = 0\n"),),
    ),
    Mutation(
        "generation: version bump, number space and base reset together",
        (
            Edit("central/generation.py", "    return (generation - 1) * SPAN\n", "    return 0\n"),
            Edit(
                "agent/mirror.py",
                "known.generation == self.generation and self.version < known.version",
                "self.version < known.version",
            ),
        ),
    ),
    Mutation(
        "only what was taken beyond a plain answer goes before it is kept",
        (Edit("agent/queue_processor.py", " and is_plain(answer, batch.generation)\n", "\n"),),
    ),
    Mutation(
        "an answer that the feed has overtaken brings no node back",
        (Edit("agent/mirror.py", "        if left is not None and left.covers(told):\n", "        if False:\n"),),
    ),
    Mutation(
        "what a backup lost is applied again where central has the node",
        (
            Edit(
                "central/rules.py",
                "    foreign = base_generation(batch, item) not in (None, batch.generation)\n",
                "    foreign = False\n",
            ),
        ),
    ),
    Mutation(
        "a site keeps its side of a conflict that the feed has overtaken",
        (Edit("agent/mirror.py", "        return node.at(stage, datetime.now(UTC))\n", "        return node\n"),),
    ),
    Mutation(
        "what no policy overwrites, and where none leads",
        (
            Edit(
                "core/reconcile.py",
                "    if central.state in _PROTECTED or edge.target.state in _PERSONS_ONLY:\n        return False\n",
                "",
            ),
        ),
    ),
    Mutation(
        "what central calls applied takes effect",
        (
            Edit(
                "central/rules.py",
                "            return _applied(batch, offer, _heard(batch, offer, node, change), change)\n",
                "            return Ruling(Outcome.APPLIED, node, node.state_rev)\n",
            ),
        ),
    ),
    Mutation(
        "a site takes its hands off a machine that is in dispute",
        (
            Edit(
                "agent/mirror.py",
                "            self._cache.save(tx, replace(node, conflict_id=conflict_id))\n",
                "            pass\n",
            ),
            Edit("agent/mirror.py", "        node = replace(node, conflict_id=document.id)\n", ""),
        ),
    ),
    Mutation(
        "what was settled is kept for a central that comes back from its backup",
        (
            Edit(
                "agent/queue.py",
                "        tx.execute(MOVE, [outcome, self.clock.stamp().when.isoformat(), ids])\n",
                "",
            ),
        ),
    ),
    Mutation(
        "feed position from a bigserial",
        (
            Edit(
                "central/positions.py",
                '    last = conn.execute(_BUMP, {"scope": scope, "by": by}).scalar()\n',
                "    from sqlalchemy import text\n"
                "    conn.execute(text('CREATE SEQUENCE IF NOT EXISTS serial'))\n"
                "    last = max(conn.execute(text(\"SELECT nextval('serial')\")).scalar_one() for _ in range(by))\n",
            ),
            Edit(
                "central/feed.py",
                "    return Place(own.pos, shared.pos), Place(own.floor, shared.floor)\n",
                "    from sqlalchemy import func\n"
                "    newest = select(func.coalesce(func.max(t.feed.c.pos), 0))\n"
                "    scopes = (site_id, EVERYWHERE)\n"
                "    ends = [conn.execute(newest.where(t.feed.c.site == scope)).scalar_one() for scope in scopes]\n"
                "    return Place(*ends), Place(own.floor, shared.floor)\n",
            ),
        ),
        RACE,
    ),
)


def found(mutation: Mutation, folder: Path, within: float) -> str:
    """What the run on the changed copy in `folder` printed of the violation it found; empty if it found none.

    Raises AssertionError where an edit does not fit: the code has moved on, and the row must follow.
    """
    source = folder / "src"
    shutil.copytree(ROOT / "src", source)
    for edit in mutation.edits:
        apply(edit, source / "pureboot")
    run = subprocess.run(
        [sys.executable, "-m", *mutation.finds],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    lines = [line for line in run.stdout.splitlines() if is_violation(line)]
    assert lines or run.returncode == 0, f"it broke instead of finding a violation:\n{run.stdout}\n{run.stderr}"
    return lines[0] if lines else ""


def apply(edit: Edit, package: Path) -> None:
    path = package / edit.file
    text = path.read_text()
    assert text.count(edit.old) == 1, f"an edit no longer fits {edit.file}:\n{edit.old}"
    path.write_text(text.replace(edit.old, edit.new))


def is_violation(line: str) -> bool:
    """`I4: …`, or `seed 17: I4: …`: an invariant that broke, and not a program that did."""
    name = line.rpartition("seed ")[2].partition(": I")[2] if line.startswith("seed ") else line.removeprefix("I")
    return name[:1].isdigit() and (line.startswith("I") or ": I" in line)
