"""One program on one folder."""

import fcntl
from pathlib import Path

from pureboot.core.errors import SettingsError


class FolderLock:
    """Held from birth until `close`, or until the process ends, however it does. Raises SettingsError where another
    process holds it: two of them would each act on a memory of what the other has changed."""

    def __init__(self, file: Path, who: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise SettingsError(f"data_dir: another {who} runs on {file.parent}.", hint="Stop it first.") from None

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
