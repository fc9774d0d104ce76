"""The sync protocol on the real code, under every fault it speaks of: histories from seeds, judged by PROTOCOL 8.

By hand, any number: `.venv/bin/python -m tests.simulation --seeds 20000`; one again: `--seed 17`.
"""

import os
import re
from collections.abc import Callable

import pytest

from tests.simulation.run import many, tell

SEEDS = 1000


@pytest.mark.timeout(1500)
def test_a_thousand_histories_keep_every_invariant(record_property: Callable[[str, object], None]) -> None:
    found = many(range(SEEDS), jobs=os.cpu_count() or 1)
    record_property("what happened", dict(found.counts))
    told = [f"seed {t.seed}: {t.failure}\n  " + "\n  ".join(t.trace[-40:]) for t in found.failures[:3]]
    assert not found.failures, "\n".join(told)
    # They are about something: each kind of end an item can come to, and each kind of dispute, has been met.
    seldom = {name: found.counts[name] for name in EVERY_KIND if found.counts[name] < 10}
    assert not seldom


EVERY_KIND = (
    *("applied", "conflict", "rejected", "stopped by poison"),
    *(f"conflict {kind}" for kind in ("state_mismatch", "missing_central", "site_claim")),
)


def test_a_seed_tells_the_same_history_again() -> None:
    assert _story(7) == _story(7)


def _story(seed: int) -> list[str]:
    """Its trace, with the ids by the order of their appearance."""
    names: dict[str, str] = {}
    ids = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
    lines = tell(seed).trace
    return [ids.sub(lambda found: names.setdefault(found[0], f"id{len(names)}"), line) for line in lines]
