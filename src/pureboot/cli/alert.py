"""`pureboot alert`: what an operator should know of the sites."""

from enum import StrEnum
from typing import Annotated

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, group
from pureboot.cli.remote import central

app = group("Alerts: see what stands at the sites, and say that it was seen.")

COLUMNS = {
    "ID": "id",
    "SEVERITY": "severity",
    "SITE": "site_name",
    "KIND": "kind",
    "SINCE": "first_at",
    "ENDED": "ended_at",
    "SEEN BY": "acknowledged_by",
    "MESSAGE": "message",
}


class Status(StrEnum):
    OPEN = "open"
    ALL = "all"


@app.command("list")
def list_(
    site: Annotated[str | None, typer.Option("--site", help="Id or name of a site; default: all sites.")] = None,
    status: Annotated[Status, typer.Option(help="Which ones: those that stand, or all.")] = Status.OPEN,
    json: AsJson = False,
) -> None:
    """List alerts, the newest first."""
    with central() as remote:
        about = {"site": names.site(remote, site)["id"]} if site else {}
        rows = remote.listing("alerts", status=status.value, limit="1000", **about)
    show.listing(rows, COLUMNS, json=json, empty="Nothing stands.")


@app.command()
def acknowledge(
    alert: Annotated[str, typer.Argument(metavar="ALERT", help="Id of an alert.")], json: AsJson = False
) -> None:
    """Say that somebody has seen an alert. What happened ends with it; what lasts stands on."""
    with central() as remote:
        row = remote.send("POST", f"alerts/{names.part(alert)}/acknowledge")
    show.said(row, f"{row['site_name']}: {row['message']} Seen by {row['acknowledged_by']}.", json=json)
