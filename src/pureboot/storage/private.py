"""Files that only their owner reads."""

from contextlib import suppress
from pathlib import Path


def make_private(database: Path) -> None:
    """Before SQLite opens the file: what is made beside it gets its mode. What is wrong with it, SQLite says itself."""
    with suppress(OSError):
        database.touch(mode=0o600)
    for file in (Path(f"{database}{end}") for end in ("", "-wal", "-shm")):
        with suppress(OSError):
            if file.is_file():
                file.chmod(0o600)
