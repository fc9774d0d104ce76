"""`pureboot conflict`: where a site and central changed the same node."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, group
from pureboot.cli.remote import Remote, Row, central
from pureboot.cli.show import text
from pureboot.core.errors import NotFound
from pureboot.core.reconcile import ConflictType, Resolution

app = group("Conflicts: see them, and decide who is right.")

COLUMNS = {
    "ID": "id",
    "SITE NAME": "site_name",
    "NODE": "node_mac",
    "TYPE": "conflict_type",
    "WAS": "base_state",
    "SITE": "local_state",
    "CENTRAL": "central_state",
    "STATUS": "status",
    "RESOLUTION": "resolution",
}


class Status(StrEnum):
    PENDING = "pending"
    RESOLVED = "resolved"
    ALL = "all"


ASite = Annotated[str | None, typer.Option("--site", help="Id or name of a site; default: all sites.")]


AKind = Annotated[ConflictType | None, typer.Option("--type", help="Of this type only.")]
AText = Annotated[str | None, typer.Option("--match", help="Part of a MAC address, a hostname or a state.")]
AConflict = Annotated[str, typer.Argument(metavar="CONFLICT", help="Id of a conflict, or a node's MAC address.")]
AComment = Annotated[str, typer.Option("--comment", help="Why; it stays with the conflict.")]


@app.command("list")
def list_(
    site: ASite = None,
    status: Annotated[Status, typer.Option(help="Which ones.")] = Status.PENDING,
    kind: AKind = None,
    match: AText = None,
    json: AsJson = False,
) -> None:
    """List conflicts."""
    with central() as remote:
        rows = remote.listing("conflicts", **_filter(status=status, site=site, type=kind, q=match))
    show.listing(rows, COLUMNS, json=json, empty="There are no such conflicts.")


@app.command("show")
def show_(conflict: AConflict, json: AsJson = False) -> None:
    """Show one: both sides, what each did, what each resolution would do, and what was decided."""
    with central() as remote:
        view = remote.get(_path(_find(remote, conflict)))
    if json:
        show.record(view, json=True)
        return
    for line in _told(view):
        show.tell(line)


@app.command()
def resolve(
    conflicts: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFLICT]...", help="Ids of conflicts, or nodes' MAC addresses.")
    ] = None,
    resolution: Annotated[Resolution, typer.Argument(help="Whose word counts.")] = ...,  # type: ignore[assignment]
    all_: Annotated[bool, typer.Option("--all", help="All pending ones that the options choose.")] = False,
    site: ASite = None,
    kind: AKind = None,
    match: AText = None,
    comment: AComment = "",
    preview: Annotated[bool, typer.Option("--preview", help="Only say what it would do.")] = False,
    json: AsJson = False,
) -> None:
    """Settle conflicts.

    keep_local replays what the site did on central's state; keep_central lets central stand and keeps what the site
    reported as events; merge takes of what the site did as much as needs no force.
    """
    if all_ == bool(conflicts):
        raise typer.BadParameter("Name conflicts, or choose with --all.")
    with central() as remote:
        named = [_find(remote, each, "pending")["id"] for each in conflicts or []]
        chosen: Row = {"ids": named} if named else _filter(site=site, type=kind, q=match)
        rows = _settle(remote, {"resolution": resolution, "comment": comment, "preview": preview} | chosen)
    if json:
        show.record({"items": rows}, json=True)
        raise typer.Exit(_code(rows))
    for row in rows:
        is_now = "would be" if preview else "is"
        told = f"not settled: {row['reason']}" if row["outcome"] == "refused" else f"settled: {resolution}."
        show.tell(f"The conflict about {row['node_mac'] or row['id']} {is_now} {told}")
    if not rows:
        show.tell("There are no such conflicts.")
    raise typer.Exit(_code(rows))


def _settle(remote: Remote, body: Row) -> list[Row]:
    """Until none is left that can be settled."""
    rows: list[Row] = []
    while True:
        answer = remote.send("POST", "conflicts/resolve", json=body)
        rows += answer["items"]
        if not answer["left"] or not answer["resolved"] or answer["preview"]:
            return rows


def _code(rows: list[Row]) -> int:
    return int(any(row["outcome"] == "refused" for row in rows))


@app.command()
def undo(conflict: AConflict, comment: AComment = "", json: AsJson = False) -> None:
    """Take the last decision back, while nothing has happened since: the conflict is open again."""
    with central() as remote:
        row = _find(remote, conflict, "resolved")
        view = remote.send("POST", f"{_path(row)}/undo", json={"comment": comment, "version": row["version"]})
    show.said(view, f"The conflict about {view['node_mac']} is open again.", json=json)


def _path(row: Row) -> str:
    return f"sites/{row['site_id']}/conflicts/{row['id']}"


def _find(remote: Remote, conflict: str, status: str = "all") -> Row:
    """The newest that is meant. Raises NotFound."""
    said = names.spelled(conflict) or conflict
    rows = remote.listing("conflicts", status=status)
    if found := [row for row in rows if said in (row["id"], row["node_mac"])]:
        return found[-1]
    which = "" if status == "all" else f"{status} "
    raise NotFound(
        f"There is no {which}conflict {conflict!r}.", hint="`pureboot conflict list --status all` shows all."
    )


def _filter(**query: str | None) -> dict[str, str]:
    return {name: value for name, value in query.items() if value is not None}


def _told(view: Row) -> Iterator[str]:
    yield f"{view['id']}  {view['conflict_type']} about {view['node_mac']} at {view['site_name']}, {view['status']}"
    yield f"base     {_stage(view['base'])}"
    doubt = f"±{view['local_uncertainty_seconds']:.0f} s"
    yield f"site     {view['local_state']}, {text(view['local_updated_at'])} ({doubt})"
    for link in view["chain"]:
        path = f"{_stage(link['origin'])} → {_stage(link['target'])}"
        yield f"           {text(link['occurred_at'])}  {path}  {link['comment']}"
    yield f"central  {text(view['central_state'])}, {text(view['central_updated_at'])}"
    for step in view["central_history"]:
        path = f"{text(step['from_state'])} → {step['to_state']}"
        yield f"           {text(step['recorded_at'])}  {path}  by {step['actor']}  {step['comment']}"
    for preview in view["previews"]:
        forced = " by force" if any(step["forced"] for step in preview["steps"]) else ""
        end = f"the node is {_stage(preview['end'])}{forced}" if preview["end"] else "the node stays deleted"
        yield f"{preview['resolution']:<12} {preview['refused'] or end}"
    for decision in view["decisions"]:
        what = decision["resolution"] or "taken back"
        yield f"decided  {text(decision['at'])}  {what} by {decision['by']}  {decision['comment']}"


def _stage(stage: Row | None) -> str:
    return "-" if stage is None else f"{stage['state']}/{stage['attempt']}"
