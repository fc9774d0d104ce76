"""docs/settings.md and docs/cli.md, made from what the code says: `python -m pureboot.cli.reference` writes both."""

import inspect
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.main import get_command_name
from typer.models import ArgumentInfo, OptionInfo

from pureboot.cli.main import app
from pureboot.config.loading import Settings
from pureboot.config.settings import AgentSettings, CentralSettings

DOCS = Path(__file__).parents[3] / "docs"
MADE = "<!-- Made by `python -m pureboot.cli.reference`; a test compares. -->"


def settings_page() -> str:
    lines = [
        "# Settings",
        MADE,
        "Each setting may be given in three places. A flag beats the environment, the environment beats the file, the "
        "file beats the default. The file is TOML: the one named with `--config`, else `agent.toml` or `central.toml` "
        "in the data folder, where there is one. A setting that is wrong or unknown stops the start with one sentence "
        "that names it.",
    ]
    for title, kind in (("Agent", AgentSettings), ("Central", CentralSettings)):
        lines += [f"## {title}", f"In the environment: `{kind.variable('')}` and the name in capitals.", _table(kind)]
    return "\n\n".join(lines) + "\n"


def _table(kind: type[Settings]) -> str:
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for name, field in kind.model_fields.items():
        rows.append(f"| `{name}` | {_default(field.default)} | {field.description} |")
    return "\n".join(rows)


def _default(value: object) -> str:
    return "none" if value is None or value == "" else f"`{value}`"


def cli_page() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    lines = [
        "# Commands",
        MADE,
        "Commands for administrators (`site`, `node`, `workflow`, `content`, `conflict`, `alert`, `person`, `token`) "
        "speak to central over HTTP. "
        "`PUREBOOT_URL` names it (default: `http://127.0.0.1:8000`), `PUREBOOT_TOKEN` or the file that "
        "`PUREBOOT_TOKEN_FILE` names opens it. `SSL_CERT_FILE` names a CA of your own (PEM) for https. "
        "They end with 0; with 1 where central or the agent refuses or does not answer, or a file "
        "cannot be read or written; with 2 where the command or a setting is wrong.",
        *_group("pureboot", app, app.info.help, depth=2),
    ]
    return "\n\n".join(lines) + "\n"


def _group(path: str, group: typer.Typer, help: object, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {path}"
    yield str(help)
    for command in group.registered_commands:
        if command.callback is not None:
            name = command.name or get_command_name(command.callback.__name__)
            yield from _command(f"{path} {name}", command.callback, command.help, depth + 1)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _group(f"{path} {inner.name}", inner.typer_instance, inner.typer_instance.info.help, depth)


def _command(path: str, callback: Callable[..., Any], help: str | None, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {path}"
    yield inspect.cleandoc(help or callback.__doc__ or "")
    hints = get_type_hints(callback, include_extras=True)
    parameters = inspect.signature(callback).parameters
    rows = [_row(name, parameter.default, *get_args(hints[name])) for name, parameter in parameters.items()]
    if rows:
        yield "\n".join(["| argument or option | meaning |", "|---|---|", *rows])


def _row(name: str, default: object, kind: object, info: ArgumentInfo | OptionInfo) -> str:
    required = default is inspect.Parameter.empty
    if isinstance(info, OptionInfo):
        # Within Annotated typer takes the first name for the default.
        given = [each for each in (info.default, *(info.param_decls or ())) if str(each).startswith("-")]
        shown = ", ".join(f"`{option}`" for option in given or [f"--{name.replace('_', '-')}"])
    else:
        shown = f"`{info.metavar or name.upper()}`"
    words = [info.help or "", _choices(kind), "Required." if required and isinstance(info, OptionInfo) else ""]
    return f"| {shown} | {' '.join(word for word in words if word)} |"


def _choices(kind: object) -> str:
    for each in (kind, *get_args(kind)):
        if isinstance(each, type) and issubclass(each, StrEnum):
            return f"One of: {', '.join(f'`{choice}`' for choice in each)}."
    return ""


def write() -> None:
    DOCS.mkdir(exist_ok=True)
    (DOCS / "settings.md").write_text(settings_page())
    (DOCS / "cli.md").write_text(cli_page())


if __name__ == "__main__":
    write()
