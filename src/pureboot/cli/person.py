"""`pureboot person`: who may sign in to central's pages."""

from typing import Annotated

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, ask, given, group
from pureboot.cli.remote import central
from pureboot.core.roles import Role

app = group("People: who may sign in to central's pages, and as what.")

COLUMNS = {"NAME": "name", "ROLE": "role", "DISABLED": "disabled", "CHANGED": "updated_at"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")]
RoleOption = Annotated[
    Role | None,
    typer.Option(help="viewer sees; operator also moves nodes and settles conflicts; admin also changes the rest."),
]


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List everybody who may sign in."""
    with central() as remote:
        show.listing(remote.listing("people"), COLUMNS, json=json, empty="There is nobody yet.")


@app.command()
def add(name: Name, role: RoleOption = None, json: AsJson = False) -> None:
    """Let somebody sign in. The password is asked for, or read from standard input."""
    fields = given(name=name, role=role, password=_password(f"Password of {name}"))
    with central() as remote:
        row = remote.send("POST", "people", json=fields)
    show.said(row, f"{row['name']} can sign in, as {row['role']}.", json=json)


@app.command("set")
def set_(
    name: Name,
    role: RoleOption = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for a new password; it signs out.")] = False,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether they are kept out; it signs out.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Change somebody's role or password, or keep them out."""
    secret = _password(f"New password of {name}") if password else None
    fields = given(role=role, password=secret, disabled=disabled)
    with central() as remote:
        row = remote.send("PATCH", _path(name), json=fields)
    show.said(row, f"{row['name']} is changed.", json=json)


@app.command()
def remove(name: Name, json: AsJson = False) -> None:
    """Remove somebody; what they did keeps their name."""
    with central() as remote:
        remote.send("DELETE", _path(name))
    show.said({"deleted": name}, f"{name} is removed.", json=json)


def _path(name: str) -> str:
    return f"people/{names.part(name)}"


def _password(question: str) -> str:
    if password := ask(question, twice=True):
        return password
    raise typer.BadParameter("There is no password. Type it when asked, or pipe it in as one line.")
