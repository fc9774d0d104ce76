"""kill -9 at any moment: what was acknowledged is there, and the file is sound."""

import multiprocessing
import random
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pureboot.core.lifecycle import NodeState
from tests.support.crashing import write_until_killed
from tests.support.parts import opened

ROUNDS = 20


@pytest.mark.timeout(120)
def test_every_acknowledged_write_survives_a_kill(tmp_path: Path) -> None:
    """One file through twenty lives, so that each also recovers what the last one left behind."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.crashing"])
    chance = random.Random(76)
    path = tmp_path / "state" / "agent.db"
    acknowledged: list[str] = []
    for life in range(ROUNDS):
        heard, said = context.Pipe(duplex=False)
        child = context.Process(target=write_until_killed, args=(path, life, said))
        child.start()
        said.close()
        try:
            acknowledged += [heard.recv() for _ in range(chance.randrange(1, 60))]
        finally:
            child.kill()
            child.join()
        acknowledged += rest(heard)
        heard.close()
        child.close()
        check(path, acknowledged)
    assert len(acknowledged) > 5 * ROUNDS


def rest(heard: Connection) -> list[str]:
    """What it managed to say before its end."""
    found: list[str] = []
    while True:
        try:
            found.append(heard.recv())
        except (EOFError, OSError):
            return found


def check(path: Path, acknowledged: list[str]) -> None:
    with opened(path) as parts:
        assert parts.rows("PRAGMA quick_check") == [("ok",)]
        queued = parts.rows("SELECT id, item_type, lane FROM sync_queue")
        assert set(acknowledged) <= {id for id, _, _ in queued}
        # A node and the item that made it are there together, or neither is.
        made = sorted(lane for _, item_type, lane in queued if item_type == "registration")
        assert sorted(node.node_id for node in parts.cache.nodes()) == made
        assert {node.state for node in parts.cache.nodes()} == {NodeState.DISCOVERED}
        assert not list(path.parent.glob("*.damaged-*"))
