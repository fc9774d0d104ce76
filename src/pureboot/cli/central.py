"""`pureboot central`: the source of truth."""

from typing import Annotated

import typer

from pureboot.cli import show
from pureboot.cli.options import Config, DataDir, group

app = group("Run central, the source of truth.")


@app.callback()
def central() -> None:
    pass


@app.command()
def run(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: DataDir = None,
    database_url: Annotated[str | None, typer.Option(help="Database; default: a SQLite file in the folder.")] = None,
    config: Config = None,
) -> None:
    """Serve the API until stopped.

    The first start creates the database and writes an admin token to DIR/admin-token.
    """
    from pureboot.central import main
    from pureboot.cli import serve
    from pureboot.config.loading import load
    from pureboot.config.settings import CentralSettings

    flags = {"host": host, "port": port, "data_dir": data_dir, "database_url": database_url}
    settings = load(CentralSettings, file=config, **flags)
    serve.run(main.run(settings), log_level=settings.log_level, log_format=settings.log_format)


@app.command()
def post_restore(
    data_dir: DataDir = None,
    database_url: Annotated[str | None, typer.Option(help="Database; default: a SQLite file in the folder.")] = None,
    known: Annotated[int, typer.Option(min=0, help="The newest generation that any agent has seen.")] = 0,
    with_wal: Annotated[bool, typer.Option("--with-wal", help="The -wal beside the file is the backup's.")] = False,
    config: Config = None,
) -> None:
    """Begin a new generation, after the database came from a backup and before central runs again.

    Agents then offer again what they had sent, and read everything anew. DIR/generation remembers the newest
    generation; --known tells it where that file is lost too. A SQLite file that is damaged is refused, and one with a
    -wal beside it, which a central that was killed may have left: it would undo the restore.
    """
    from pureboot.central import main
    from pureboot.config.loading import load
    from pureboot.config.settings import CentralSettings

    settings = load(CentralSettings, file=config, data_dir=data_dir, database_url=database_url)
    generation = main.post_restore(settings, known=known, with_wal=with_wal)
    show.tell(f"This is generation {generation} now. Start central; its agents will offer again what they had sent.")


@app.command()
def admin_token(
    data_dir: DataDir = None,
    database_url: Annotated[str | None, typer.Option(help="Database; default: a SQLite file in the folder.")] = None,
    show_it: Annotated[bool, typer.Option("--show", help="Print the token too.")] = False,
    config: Config = None,
) -> None:
    """Make a new administrator's token where nobody has one any more, while central does not run.

    It is written to DIR/admin-token, for its owner only, as the first start does. It takes the place of the token
    called `admin`, which opens nothing any more; all others stay.
    """
    from pureboot.central import main
    from pureboot.config.loading import load
    from pureboot.config.settings import CentralSettings

    settings = load(CentralSettings, file=config, data_dir=data_dir, database_url=database_url)
    file = main.admin_token(settings)
    show.tell(f"A new administrator's token is in {file}; the one called `admin` before opens nothing any more.")
    if show_it:
        show.tell(file.read_text().strip())
