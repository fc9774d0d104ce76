"""Central's SQLite file before it is opened: whose it is, whether it is whole, and what lies beside it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from pureboot.core.errors import SettingsError
from pureboot.storage.lock import FileLock

_ANOTHER = (
    "Put a backup in its place, with no -wal and no -shm beside it that did not come with the backup; then"
    " `pureboot central post-restore`."
)


def lock(file: Path) -> FileLock:
    """Beside the file, for another central may have a folder of its own. Raises SettingsError."""
    beside = Path(f"{file}.lock")
    try:
        return FileLock(beside, f"database_url: another central runs on {file}.")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SettingsError(f"The database {file} cannot be opened: {beside.name}: {reason}.") from None


def refuse_a_wal(file: Path) -> None:
    """SQLite would play it onto the file: that of a central that was killed undoes the restore, or damages what was
    restored. Nothing in either file says whether they belong together, so whoever put them there has to. Raises
    SettingsError."""
    if (wal := _wal_left(file)) is not None:
        raise SettingsError(
            f"{wal} lies beside the database. If a central that was killed left it, it would undo the restore or"
            " damage the database.",
            hint=f"Remove {wal.name} and {file.name}-shm, and put the backup in its place again. Only if this"
            f" {wal.name} came with the backup: --with-wal.",
        )


def check(file: Path, *, thoroughly: bool) -> None:
    """Raises SettingsError where it is damaged, and has changed nothing then: who may only read plays no -wal onto the
    file. `thoroughly`: each index against its table, too, which takes three times as long. So it is where there is a
    -wal, be it of a power cut: of another file it may fit well enough for a first look."""
    pragma = "integrity_check" if thoroughly or _wal_left(file) else "quick_check"
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            [(found,)] = connection.execute(f"PRAGMA {pragma}(1)").fetchall()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return  # whatever else keeps it from being read keeps it from being opened, and is told then
        raise SettingsError(f"The database {file} cannot be opened: {error}.", hint=_ANOTHER) from None
    if found != "ok":
        raise SettingsError(f"The database {file} is damaged: {' '.join(found.split())}.", hint=_ANOTHER)


def _wal_left(file: Path) -> Path | None:
    """A central that is stopped leaves none; an empty one is nothing."""
    wal = Path(f"{file}-wal")
    return wal if wal.exists() and wal.stat().st_size > 0 else None
