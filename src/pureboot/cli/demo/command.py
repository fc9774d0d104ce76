"""The command: it picks how the story is told, and ends with what the story proved."""

from typing import Annotated

import typer

HELP = """\
Show a site that keeps booting while central is dead.

Central, a site agent and 25 simulated machines run as real processes on free ports of this host, in a folder of their
own, and are gone afterwards. Exits with 0 only if every change that was acknowledged is at central exactly once and in
order.
"""

MACHINES = 25
# What a shell shows for a program that SIGTERM ended.
TERMINATED = 143


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running, and print where it is and how to stop it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON; the story goes to stderr.")] = False,
    machines: Annotated[int, typer.Option(min=5, max=500, help="How many machines.")] = MACHINES,
) -> None:
    import asyncio

    from pureboot.cli import show
    from pureboot.cli.demo import perform, view

    try:
        with view.choose(json=json) as audience:
            summary = asyncio.run(perform.perform(audience, machines=machines, keep=keep))
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None
    if json:
        show.as_json(summary.as_dict())
    else:
        for line in summary.lines():
            typer.echo(line)
    raise typer.Exit(0 if summary.ok else 1)
