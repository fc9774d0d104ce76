"""One program on one folder, or on one file."""

import fcntl
from pathlib import Path

from pureboot.core.errors import SettingsError


class FileLock:
    """Held from birth until `close`, or until the process ends, however it does. Raises SettingsError, which says
    `taken`, where another process holds it."""

    def __init__(self, file: Path, taken: str) -> None:
        self._file = file.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise SettingsError(taken, hint="Stop it first.") from None

    def close(self) -> None:
        """Idempotent."""
        self._file.close()


class FolderLock(FileLock):
    """Two programs on a folder would each act on a memory of what the other has changed."""

    def __init__(self, file: Path, who: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(file, f"data_dir: another {who} runs on {file.parent}.")
