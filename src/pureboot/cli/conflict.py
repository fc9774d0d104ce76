"""`pureboot conflict`: where a site and central changed the same node."""

from enum import StrEnum
from typing import Annotated

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, group
from pureboot.cli.remote import Remote, Row, central
from pureboot.core.errors import NotFound
from pureboot.core.reconcile import Resolution

app = group("Conflicts: see them, and decide who is right.")

COLUMNS = {
    "ID": "id",
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


@app.command("list")
def list_(
    site: ASite = None,
    status: Annotated[Status, typer.Option(help="Which ones.")] = Status.PENDING,
    json: AsJson = False,
) -> None:
    """List conflicts."""
    with central() as remote:
        rows = [row for _, row in _conflicts(remote, site, status)]
    show.listing(rows, COLUMNS, json=json, empty="There are no such conflicts.")


@app.command()
def resolve(
    conflict: Annotated[str, typer.Argument(metavar="CONFLICT", help="Id of a conflict, or a node's MAC address.")],
    resolution: Annotated[Resolution, typer.Argument(help="Who is right; merge is not there yet.")],
    site: ASite = None,
    json: AsJson = False,
) -> None:
    """Settle a conflict.

    keep_local replays what the site did on central's state; keep_central lets central stand and keeps what the site
    reported as events.
    """
    with central() as remote:
        for site_id, row in _conflicts(remote, site, Status.PENDING):
            if conflict in (row["id"], row["node_mac"]):
                path = f"sites/{site_id}/conflicts/{row['id']}/resolve"
                answer = remote.send("POST", path, json={"resolution": resolution})
                show.said(answer, f"The conflict about {row['node_mac']} is settled: {resolution}.", json=json)
                return
        raise NotFound(f"There is no pending conflict {conflict!r}.", hint="`pureboot conflict list` shows all.")


def _conflicts(remote: Remote, site: str | None, status: Status) -> list[tuple[str, Row]]:
    sites = [names.site(remote, site)] if site else remote.listing("sites")
    return [
        (each["id"], row) for each in sites for row in remote.listing(f"sites/{each['id']}/conflicts", status=status)
    ]
