"""Bytes of content that no name stands for any more: kept for a while, then removed."""

from datetime import datetime, timedelta

from pureboot.central.content import Shelf

# Somebody may put the same file again, and an answer that has just found it is about to open it. Who reads it goes on.
KEEP_UNNAMED = timedelta(days=1)


class Unnamed:
    """Remembers since when, in memory: after a restart a while begins anew."""

    def __init__(self, shelf: Shelf, keep: timedelta = KEEP_UNNAMED) -> None:
        self._shelf, self._keep = shelf, keep
        self._since: dict[str, tuple[datetime, int]] = {}

    def sweep(self, named: set[str], now: datetime) -> list[str]:
        """Looks at all files; `named` are the digests that names stand for. Digests of those removed.

        A file that was put again meanwhile is another one, whether its name has been stored yet or not.
        """
        before = self._since
        self._since = {
            digest: before[digest] if before.get(digest, (now, 0))[1] == made else (now, made)
            for digest, made in self._shelf.files()
            if digest not in named
        }
        old = [(digest, made) for digest, (since, made) in self._since.items() if now - since >= self._keep]
        return [digest for digest, made in old if self._shelf.discard(digest, made)]
