"""Whether central has what the machines were promised: asked of itself, and held against the sites' own files."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from pureboot.agent import accounts
from pureboot.core.lifecycle import By, Edge, NodeState, Stage, is_legal
from pureboot.simulator.ledger import Account, Kind, compare
from pureboot.wire.messages import NodeDocument
from tests.support.fleet import Fleet, Site, until

SENT = "SELECT id, item_type, outcome, mac FROM sync_sent JOIN node_mac ON node_id = lane ORDER BY seq"
REFUSED = "another copy of it is writing"
TYPES = {Kind.EVENT: "event", Kind.EDGE: "state_update"}


async def what_was_promised_is_there(fleet: Fleet) -> None:
    """Once, in order, and by legal steps; of a fleet that is at rest."""
    told = [account for site in fleet.sites for account in await _told(fleet, site)]
    comparison = compare(fleet.ledger, told)
    assert comparison.holds, comparison
    assert [line for account in told for line in illegal(account)] == []


async def nothing_else_is_there(fleet: Fleet) -> None:
    """Central has of each node what its site accepted, in that order; and the site has the node as central has it."""
    for site in fleet.sites:
        for node in (await fleet.admin.nodes(site.name)).values():
            await _knows(site, node)
        _holds_what_its_file_says(site, await _told(fleet, site))


async def nothing_is_wrong(fleet: Fleet) -> None:
    """No conflict, no item that failed or vanished; and nobody who lives was ever taken for a copy of an agent.

    Who died may have been: what it sent last can reach central after its next life has.
    """
    for site in fleet.sites:
        health = await fleet.ask("GET", f"/sites/{site.name}/health")
        assert health["epoch_gaps"] == [], site.name
        assert [notice for notice in health["notices"] if notice["kind"] != "fenced"] == [], site.name
        assert REFUSED not in site.agent.log.read_text(), site.name
        conflicts = await fleet.ask("GET", f"/sites/{site.name}/conflicts", params={"status": "all"})
        assert conflicts["items"] == [], site.name
        await site.until("well", lambda health: (health["status"], health["problems"]) == ("online", []))


def illegal(account: Account) -> Iterator[str]:
    """Steps that the lifecycle does not have from where the one before led. The first starts where it says."""
    here: Stage | None = None
    for row in account.history:
        here = here or Stage(row.from_state or NodeState.DISCOVERED)
        edge = Edge(here, Stage(row.to_state, row.attempt), By(row.triggered_by))
        if row.from_state is not here.state or not is_legal(edge):
            yield f"{account.mac}: from {here} to {edge.target}, by {edge.by}"
        here = edge.target


async def _told(fleet: Fleet, site: Site) -> list[Account]:
    nodes = await fleet.admin.nodes(site.name)
    return [await fleet.admin.account(mac, node.id) for mac, node in nodes.items()]


def _holds_what_its_file_says(site: Site, told: list[Account]) -> None:
    with closing(sqlite3.connect(f"file:{site.agent.folder}/state/agent.db?mode=ro", uri=True)) as file:
        file.row_factory = sqlite3.Row
        sent = file.execute(SENT).fetchall()
        lives = accounts.read(file)
    assert {row["outcome"] for row in sent} <= {"applied"}, site.name
    for account in told:
        for kind, item_type in TYPES.items():
            mine = [row["id"] for row in sent if (row["mac"], row["item_type"]) == (account.mac.value, item_type)]
            assert account.ids(kind) == mine, f"{site.name}: {kind}s of {account.mac}"
    assert [life for life in lives if accounts.gap(life) or life.queued] == [], site.name
    assert sum(life.made for life in lives) == len(sent), site.name


async def _knows(site: Site, node: NodeDocument) -> None:
    async def same() -> bool:
        here = await site.node(node.mac_address)
        return all(here.get(name) == getattr(node, name) for name in ("state", "attempt", "version", "state_rev"))

    await until(f"{site.name} has {node.mac_address} as central has it: {node}", same)
