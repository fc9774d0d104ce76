"""`pureboot node`: the machines."""

from enum import StrEnum
from typing import Annotated

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, Node, given, group
from pureboot.cli.remote import Remote, Row, central
from pureboot.core.errors import Clash, IllegalEdge
from pureboot.core.lifecycle import By, Edge, NodeState, Stage, check, destination
from pureboot.core.node import LocalBoot

app = group("Nodes: list, approve, move, and read what happened to them.")

COLUMNS = {
    "MAC": "mac_address",
    "HOSTNAME": "hostname",
    "STATE": "state",
    "ATTEMPT": "attempt",
    "WORKFLOW": "workflow",
    "SITE": "site",
    "LAST SEEN": "last_seen",
    "ID": "id",
}
HISTORY = {
    "WHEN": "occurred_at",
    "FROM": "from_state",
    "TO": "to_state",
    "ATTEMPT": "attempt",
    "BY": "triggered_by",
    "WHO": "actor",
    "COMMENT": "comment",
    "ITEM": "item_id",
}
EVENTS = {"WHEN": "occurred_at", "EVENT": "event", "MESSAGE": "message", "METADATA": "metadata", "ITEM": "item_id"}

TIMELINE = {
    "HAPPENED": "occurred_at",
    "CENTRAL KNEW": "recorded_at",
    "WHAT": "what",
    "WHO": "actor",
    "SAID": "message",
}

Some = Annotated[
    list[str] | None, typer.Argument(metavar="NODE...", help="Ids or MAC addresses; none: see the options.")
]
OfSite = Annotated[str | None, typer.Option("--site", help="All of this site.")]
OfState = Annotated[NodeState | None, typer.Option("--state", help="All in this state.")]
OfWorkflow = Annotated[str | None, typer.Option("--workflow", help="Only those with this workflow, by id or name.")]
Search = Annotated[str | None, typer.Option("--search", help="Text in the hostname, or a part of a MAC.")]
Preview = Annotated[bool, typer.Option("--preview", help="Only say what it would do.")]
Hostname = Annotated[str | None, typer.Option(help="Its host name.")]
AWorkflow = Annotated[str | None, typer.Option("--workflow", help="Id or name of the workflow that installs it.")]


class Disk(StrEnum):
    """`site`: as its site has it."""

    SITE = "site"
    SANBOOT = LocalBoot.SANBOOT.value
    EXIT = LocalBoot.EXIT.value
    HTTP_404 = LocalBoot.HTTP_404.value


ADisk = Annotated[Disk | None, typer.Option("--local-boot", help="How it gets to its own disk; site: as its site.")]


@app.command()
def create(
    mac: Annotated[str, typer.Argument(metavar="MAC", help="Its MAC address.")],
    site: Annotated[str, typer.Option(help="Id or name of the site it stands at.")],
    hostname: Hostname = None,
    workflow: AWorkflow = None,
    state: Annotated[NodeState | None, typer.Option(help="Its state, for a machine already in service.")] = None,
    local_boot: ADisk = None,
    json: AsJson = False,
) -> None:
    """Create a node before its machine is first seen."""
    with central() as remote:
        fields = given(
            mac_address=mac,
            home_site_id=names.site(remote, site)["id"],
            hostname=hostname,
            workflow_id=names.workflow(remote, workflow)["id"] if workflow else None,
            state=state,
        ) | _disk(local_boot)
        row = remote.send("POST", "nodes", json=fields)
        show.said(row, f"Node {row['mac_address']} is {row['id']}, {row['state']}.", json=json)


def _disk(said: Disk | None) -> Row:
    """The field as central takes it: null is the site's way."""
    return {} if said is None else {"local_boot": None if said is Disk.SITE else said.value}


@app.command("list")
def list_(
    site: Annotated[str | None, typer.Option(help="Only those of this site.")] = None,
    state: Annotated[NodeState | None, typer.Option(help="Only those in this state.")] = None,
    workflow: OfWorkflow = None,
    search: Search = None,
    json: AsJson = False,
) -> None:
    """List nodes."""
    with central() as remote:
        rows = remote.listing("nodes", **given(site=site, state=state, workflow=workflow, q=search))
        show.listing(rows if json else _named(remote, rows), COLUMNS, json=json, empty="There are no such nodes.")


def _named(remote: Remote, rows: list[Row]) -> list[Row]:
    """With the names of sites and workflows, for people."""
    sites = {each["id"]: each["name"] for each in remote.listing("sites")}
    workflows = {each["id"]: each["name"] for each in remote.listing("workflows")}
    return [
        row | {"site": sites.get(row.get("home_site_id")), "workflow": workflows.get(row.get("workflow_id"))}
        for row in rows
    ]


@app.command("show")
def show_(node: Node, json: AsJson = False) -> None:
    """Show one node."""
    with central() as remote:
        show.record(names.node(remote, node), json=json)


@app.command()
def update(
    node: Node,
    hostname: Hostname = None,
    workflow: AWorkflow = None,
    group_id: Annotated[str | None, typer.Option("--group", help="The group people file it under.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Its tags; repeat it for more than one.")] = None,
    site: Annotated[str | None, typer.Option(help="Id or name of the site that it moved to.")] = None,
    local_boot: ADisk = None,
    version: Annotated[int | None, typer.Option(help="Refuse if somebody changed it since this version.")] = None,
    json: AsJson = False,
) -> None:
    """Change what is named; the rest stays."""
    with central() as remote:
        fields = given(
            hostname=hostname,
            workflow_id=names.workflow(remote, workflow)["id"] if workflow else None,
            group_id=group_id,
            tags=tag or None,
            home_site_id=names.site(remote, site)["id"] if site else None,
            version=version,
        ) | _disk(local_boot)
        row = remote.send("PATCH", f"nodes/{names.node(remote, node)['id']}", json=fields)
        show.said(row, f"Node {row['mac_address']} is changed.", json=json)


@app.command()
def approve(
    nodes: Annotated[list[str], typer.Argument(metavar="NODE...", help="Ids or MAC addresses of nodes.")],
    workflow: AWorkflow = None,
    comment: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    json: AsJson = False,
) -> None:
    """Let nodes be installed at their next boot, one after the other until one is refused."""
    approved: list[Row] = []
    try:
        with central() as remote:
            assigned = names.workflow(remote, workflow)["id"] if workflow else None
            for said in nodes:
                approved.append(_approve(remote, names.node(remote, said), assigned, comment))
                if not json:
                    show.tell(f"Node {approved[-1]['mac_address']} is approved.")
    finally:
        if json:
            show.as_json(approved)


def _approve(remote: Remote, row: Row, workflow_id: str | None, comment: str) -> Row:
    _check_approvable(row, workflow_id)
    if workflow_id:
        remote.send("PATCH", f"nodes/{row['id']}", json={"workflow_id": workflow_id})
    body = {"state": NodeState.PENDING, "comment": comment}
    return remote.send("PATCH", f"nodes/{row['id']}/state", json=body)


def _check_approvable(row: Row, workflow_id: str | None) -> None:
    """Before anything is changed: an approval is two requests, and the first must not stand alone."""
    stage = Stage(NodeState.parse(row["state"]), row["attempt"])
    if stage.state is NodeState.PENDING:
        return
    if stage.state in (NodeState.INSTALLED, NodeState.ACTIVE):
        raise IllegalEdge(
            f"Node {row['mac_address']} is in service ({stage}).",
            hint=f"To install it again: pureboot node state {row['mac_address']} reprovision.",
        )
    check(Edge(stage, destination(stage, NodeState.PENDING), By.ADMIN))
    if not (workflow_id or row["workflow_id"]):
        raise Clash(f"Node {row['mac_address']} has no workflow.", hint="Name one with --workflow.")


@app.command()
def state(
    node: Node,
    to: Annotated[NodeState, typer.Argument(metavar="STATE", help="The state it shall be in.")],
    comment: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Even where the lifecycle has no such edge; say why.")] = False,
    json: AsJson = False,
) -> None:
    """Move a node to another state."""
    with central() as remote:
        body = {"state": to, "comment": comment, "force": force}
        row = remote.send("PATCH", f"nodes/{names.node(remote, node)['id']}/state", json=body)
        show.said(row, f"Node {row['mac_address']} is {row['state']}.", json=json)


@app.command()
def assign(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Id or name of a workflow, or none.")],
    nodes: Some = None,
    site: OfSite = None,
    state: OfState = None,
    search: Search = None,
    preview: Preview = False,
    json: AsJson = False,
) -> None:
    """Give a workflow to many nodes: those named, or all that the options find."""
    with central() as remote:
        body = _selection(remote, nodes, given(site=site, state=state, q=search), preview)
        _tell(
            remote.send("POST", "nodes/assign", json=body | {"workflow_id": None if workflow == "none" else workflow}),
            json=json,
        )


@app.command()
def move(
    to: Annotated[NodeState, typer.Argument(metavar="STATE", help="The state they shall be in.")],
    nodes: Some = None,
    site: OfSite = None,
    state: OfState = None,
    search: Search = None,
    comment: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    preview: Preview = False,
    json: AsJson = False,
) -> None:
    """Move many nodes to a state: those named, or all that the options find. Each is moved or refused on its own."""
    with central() as remote:
        body = _selection(remote, nodes, given(site=site, state=state, q=search), preview)
        _tell(remote.send("POST", "nodes/move", json=body | {"state": to, "comment": comment}), json=json)


def _selection(remote: Remote, said: list[str] | None, found_by: Row, preview: bool) -> Row:
    """Raises BadParameter where it is neither of both: all nodes of all sites are never meant by saying nothing."""
    if bool(said) == bool(found_by):
        raise typer.BadParameter("Name nodes, or say which by --site, --state or --search.")
    chosen = {"ids": [names.node(remote, each)["id"] for each in said]} if said else {"filter": found_by}
    return {**chosen, "preview": preview}


def _tell(outcome: Row, *, json: bool) -> None:
    """A refusal makes the command fail."""
    said = "would change" if outcome["preview"] else "changed"
    show.said(outcome, f"{outcome['changed']} {said}, {outcome['unchanged']} are like that already.", json=json)
    for each in [] if json else outcome["refused"]:
        show.tell(f"{each['mac_address'] or each['node_id']}: {each['message']}", err=True)
    if outcome["refused"]:
        raise typer.Exit(1)


@app.command()
def delete(node: Node, json: AsJson = False) -> None:
    """Delete a node; its machine registers anew when it boots."""
    with central() as remote:
        row = names.node(remote, node)
        remote.send("DELETE", f"nodes/{row['id']}")
        show.said({"deleted": row["id"]}, f"Node {row['mac_address']} is deleted.", json=json)


@app.command()
def history(node: Node, json: AsJson = False) -> None:
    """List every state a node was in, oldest first."""
    with central() as remote:
        rows = remote.listing(f"nodes/{names.node(remote, node)['id']}/history")
        show.listing(rows, HISTORY, json=json, empty="It has never changed its state.")


@app.command()
def events(node: Node, json: AsJson = False) -> None:
    """List what a node reported, oldest first."""
    with central() as remote:
        rows = remote.listing(f"nodes/{names.node(remote, node)['id']}/events")
        show.listing(rows, EVENTS, json=json, empty="It has reported nothing.")


@app.command()
def timeline(node: Node, json: AsJson = False) -> None:
    """Show its history and events on one line, the newest first, and when central learned of each."""
    with central() as remote:
        rows = remote.listing(f"nodes/{names.node(remote, node)['id']}/timeline")
        shown = rows if json else [row | {"what": _what(row)} for row in rows]
        show.listing(shown, TIMELINE, json=json, empty="Nothing has happened to it.")


def _what(row: Row) -> str:
    if row["kind"] == "event":
        return str(row["event"])
    return f"{row['from_state']} -> {row['to_state']}{' (forced)' if row['forced'] else ''}"
