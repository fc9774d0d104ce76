"""Options that several commands share, so that they read the same everywhere."""

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file (TOML); default: the one in the data folder.")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of this program's state.")]
Site = Annotated[str, typer.Argument(metavar="SITE", help="Id or name of a site.")]
Node = Annotated[str, typer.Argument(metavar="NODE", help="Id or MAC address of a node.")]
Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Id or name of a workflow.")]


def group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)


def finite(value: float | None) -> float | None:
    """For an option: JSON has neither `nan` nor `inf`."""
    if value is None or math.isfinite(value):
        return value
    raise typer.BadParameter(f"{value} is no number that can be counted with.")


def ask(question: str, *, twice: bool = False) -> str:
    """What is typed and not shown, or the first line of what is piped in; empty where that is no text."""
    if sys.stdin.isatty():
        return str(typer.prompt(question, hide_input=True, confirmation_prompt=twice))
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        return ""


def given(**values: Any) -> dict[str, Any]:
    """The fields that were said; None means that an option was left out."""
    return {name: value for name, value in values.items() if value is not None}
