"""The root of the command: its groups, and how an expected error looks on a terminal."""

import codecs
import json
import sys
from io import TextIOWrapper
from typing import Any

import typer
from typer.core import TyperGroup

from pureboot import __version__
from pureboot.cli import agent, alert, central, conflict, content, node, person, show, site, token, workflow
from pureboot.cli.demo import command as demo
from pureboot.core.errors import PureBootError, SettingsError

INTERRUPTED = 130


class Root(TyperGroup):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(sys.stdout, TextIOWrapper):
            codecs.register_error("pureboot", _escaped)
            sys.stdout.reconfigure(errors="pureboot")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Errors of ours are two lines at most: what is wrong, and what to do."""
        try:
            return super().invoke(ctx)
        except PureBootError as error:
            show.tell(f"pureboot: {error.message}", err=True)
            if error.hint:
                show.tell(error.hint, err=True)
            raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """A character that the terminal's encoding lacks as JSON has it, so that JSON stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


app = typer.Typer(
    name="pureboot",
    cls=Root,
    help="Network boot that keeps working when a site is cut off from its centre.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pureboot {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


app.command("demo", help=demo.HELP)(demo.demo)
app.add_typer(central.app, name="central")
app.add_typer(agent.app, name="agent")
app.add_typer(site.app, name="site")
app.add_typer(node.app, name="node")
app.add_typer(workflow.app, name="workflow")
app.add_typer(content.app, name="content")
app.add_typer(conflict.app, name="conflict")
app.add_typer(alert.app, name="alert")
app.add_typer(person.app, name="person")
app.add_typer(token.app, name="token")
