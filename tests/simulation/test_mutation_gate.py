"""What must break when it is removed does break: PROTOCOL 9 and eight rules of ours, on the real code."""

from pathlib import Path

import pytest

from tests.simulation.gate import HISTORIES, MUTATIONS, RACE, Mutation, found
from tests.simulation.race import race
from tests.support.postgres import Postgres

# Seconds for one row; it takes some twenty where nothing else runs.
WITHIN = 600


def test_the_gate_has_every_row_of_the_protocols_table_and_ours() -> None:
    assert [mutation.name for mutation in MUTATIONS] == [
        "receipts",
        "ids replaced by one high-water mark per agent",
        "node documents in the push answer",
        "sync_sent replay after central's restore",
        "generation: version bump, number space and base reset together",
        "only what was taken beyond a plain answer goes before it is kept",
        "an answer that the feed has overtaken brings no node back",
        "what a backup lost is applied again where central has the node",
        "a site keeps its side of a conflict that the feed has overtaken",
        "what no policy overwrites, and where none leads",
        "what central calls applied takes effect",
        "a site takes its hands off a machine that is in dispute",
        "what was settled is kept for a central that comes back from its backup",
        "feed position from a bigserial",
    ]


@pytest.mark.timeout(WITHIN + 60)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_removal_is_found(mutation: Mutation, tmp_path: Path) -> None:
    assert found(mutation, tmp_path, WITHIN)


@pytest.mark.timeout(WITHIN + 60)
@pytest.mark.parametrize("finds", [RACE, (*HISTORIES[:2], "--seeds", "5")], ids=["race", "histories"])
def test_with_nothing_removed_the_same_run_finds_nothing(finds: tuple[str, ...], tmp_path: Path) -> None:
    assert not found(Mutation("nothing", (), finds), tmp_path, WITHIN)


def test_a_reader_between_two_commits_skips_neither(postgres: Postgres) -> None:
    with postgres.database() as address:
        assert race(address) == ""
