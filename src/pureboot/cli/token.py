"""`pureboot token`: for programs that speak to central."""

from typing import Annotated

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, group
from pureboot.cli.remote import central
from pureboot.core.roles import Role

app = group("Tokens: for programs that speak to central's API, and for this command.")

COLUMNS = {"NAME": "name", "ROLE": "role", "MADE": "created_at"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="What history calls whoever uses it.")]


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List the tokens there are; none is shown itself."""
    with central() as remote:
        show.listing(remote.listing("tokens"), COLUMNS, json=json, empty="There are no tokens.")


@app.command()
def create(
    name: Name,
    role: Annotated[Role, typer.Option(help="viewer reads; operator also moves nodes; admin also changes the rest.")],
    json: AsJson = False,
) -> None:
    """Make a token; it is shown only now."""
    with central() as remote:
        row = remote.send("POST", "tokens", json={"name": name, "role": role})
    show.said(row, row["token"], json=json)


@app.command()
def revoke(name: Name, json: AsJson = False) -> None:
    """Let a token open nothing any more."""
    with central() as remote:
        remote.send("DELETE", f"tokens/{names.part(name)}")
    show.said({"deleted": name}, f"The token {name} opens nothing any more.", json=json)
