"""What has arrived of files whose download was cut, so that it goes on there, after a restart too."""

import hashlib
from collections.abc import Collection
from pathlib import Path

from pureboot.agent.cache.content_index import LANDING, remove_file

SUFFIX = ".part"


class Parts:
    """One file for each version of a name. Its bytes are worth nothing until the digest of the whole holds."""

    def __init__(self, root: Path) -> None:
        self._folder = root / LANDING

    def path(self, name: str, digest: str) -> Path:
        return self._folder / f"{hashlib.sha256(f'{digest} {name}'.encode()).hexdigest()}{SUFFIX}"

    def idle(self, landing: Collection[Path]) -> dict[Path, int]:
        """Those that nobody is at, and their bytes."""
        parts = [path for path in self._folder.glob(f"*{SUFFIX}") if path not in landing]
        return {path: size_of(path) for path in parts}

    def usage(self) -> int:
        """Bytes of all that is on its way in."""
        return sum(size_of(path) for path in self._folder.iterdir())

    def forget(self, wanted: Collection[Path], landing: Collection[Path]) -> None:
        for path in self.idle(landing):
            if path not in wanted:
                remove_file(path)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
