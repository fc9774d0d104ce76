"""`pureboot workflow`: how machines are installed."""

from enum import StrEnum
from typing import Annotated

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, Workflow, given, group
from pureboot.cli.remote import central
from pureboot.core.node import DoneWhen, InstallMethod

app = group("Workflows: how machines are installed.")

COLUMNS = {"ID": "id", "NAME": "name", "METHOD": "install_method", "KERNEL": "kernel", "INITRD": "initrd"}


class BootMode(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"
    ANY = "any"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    kernel: Annotated[str | None, typer.Option(metavar="CATEGORY/PATH", help="Content to boot.")] = None,
    initrd: Annotated[list[str] | None, typer.Option(metavar="CATEGORY/PATH", help="Repeat it for more.")] = None,
    cmdline: Annotated[str | None, typer.Option(help="The kernel's command line.")] = None,
    boot_url: Annotated[
        str | None, typer.Option(help="For the methods sanboot and chain: an address, or content as CATEGORY/PATH.")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CATEGORY/PATH", help="An answer file, as the installer asks for it. Repeat it."),
    ] = None,
    install_method: Annotated[InstallMethod | None, typer.Option(help="How it starts.")] = None,
    architecture: Annotated[str | None, typer.Option(help="The machines it is for.")] = None,
    boot_mode: Annotated[BootMode | None, typer.Option(help="The firmware it is for.")] = None,
    done_when: Annotated[DoneWhen | None, typer.Option(help="What ends an install.")] = None,
    json: AsJson = False,
) -> None:
    """Create a workflow."""
    fields = given(
        name=name,
        kernel=kernel,
        initrd=initrd or None,
        cmdline=cmdline,
        boot_url=boot_url,
        templates=_templates(template or []) or None,
        install_method=install_method,
        architecture=architecture,
        boot_mode=boot_mode,
        done_when=done_when,
    )
    with central() as remote:
        row = remote.send("POST", "workflows", json=fields)
    show.said(row, f"Workflow {row['name']} is {row['id']}.", json=json)


def _templates(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not all(pair.partition("=")):
            raise typer.BadParameter(f"{pair!r} names no template. Write preseed.cfg=templates/debian.cfg.")
    return {name: content for name, _, content in (pair.partition("=") for pair in pairs)}


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List all workflows."""
    with central() as remote:
        show.listing(remote.listing("workflows"), COLUMNS, json=json, empty="There are no workflows yet.")


@app.command("show")
def show_(workflow: Workflow, json: AsJson = False) -> None:
    """Show one workflow."""
    with central() as remote:
        show.record(names.workflow(remote, workflow), json=json)


@app.command()
def delete(workflow: Workflow, json: AsJson = False) -> None:
    """Delete a workflow that no node has."""
    with central() as remote:
        row = names.workflow(remote, workflow)
        remote.send("DELETE", f"workflows/{row['id']}")
        show.said({"deleted": row["id"]}, f"Workflow {row['name']} is deleted.", json=json)
