"""What central asks of this agent: each command is done at most once, and told until central has heard what became of
it.

What changes the outbox and the note that it was done are one transaction, so a death in between leaves neither or both.
What bears being done twice is done before it is noted.
"""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from pureboot.agent.queue import SyncQueue
from pureboot.core.errors import PureBootError
from pureboot.storage.sqlite import Transaction
from pureboot.wire.beats import MOST_COMMANDS, Command, CommandDone

log = logging.getLogger(__name__)

# Notes that are kept after central heard of them: a central restored from its backup asks again.
KEPT = 1000

CENTRAL = "an administrator at central"


class Commands:
    """`sync` begins to hear central out; `invalidate` drops a file of the cache."""

    def __init__(
        self, queue: SyncQueue, *, sync: Callable[[], None], invalidate: Callable[[str], Awaitable[None]]
    ) -> None:
        self._queue, self._sync, self._invalidate = queue, sync, invalidate
        self._steps: dict[str, Callable[[Transaction, Command], None]] = {
            "sync": lambda _, __: None,
            "invalidate": lambda _, __: None,
            "requeue": lambda tx, command: queue.again(tx, command.item_id),
            "discard": lambda tx, command: queue.give_up(
                tx, command.item_id, command.reason, command.person or CENTRAL
            ),
        }

    @property
    def known(self) -> list[str]:
        return sorted(self._steps)

    async def obey(self, command: Command) -> None:
        if command.command == "sync":
            self._sync()
        elif command.command == "invalidate":
            await self._invalidate(command.name)
        await self._queue.database.store.write(lambda tx: self._once(tx, command))

    async def untold(self) -> list[CommandDone]:
        """What central has not heard yet, the oldest first."""

        def work(connection: sqlite3.Connection) -> list[CommandDone]:
            sql = "SELECT id, outcome, message FROM command WHERE told = 0 ORDER BY rowid LIMIT ?"
            return [CommandDone(**dict(row)) for row in connection.execute(sql, [MOST_COMMANDS])]

        return await self._queue.database.store.read(work)

    async def told(self, done: Sequence[CommandDone]) -> None:
        if done:
            await self._queue.database.store.write(lambda tx: _told(tx, done))

    def _once(self, tx: Transaction, command: Command) -> None:
        if command.id and tx.execute("UPDATE command SET told = 0 WHERE id = ?", [command.id]).rowcount:
            return
        done = self._done(tx, command)
        log.info("central asks for %s: %s %s", command.command, done.outcome, done.message)
        if command.id:
            now = datetime.now(UTC).isoformat()
            tx.execute(
                "INSERT INTO command (id, outcome, message, done_at) VALUES (?, ?, ?, ?)",
                [command.id, done.outcome, done.message, now],
            )

    def _done(self, tx: Transaction, command: Command) -> CommandDone:
        step = self._steps.get(command.command)
        if step is None:
            return CommandDone(id=command.id, outcome="unknown", message="This agent knows no such command.")
        try:
            step(tx, command)
        except PureBootError as error:  # raised before anything was changed
            return CommandDone(id=command.id, outcome="refused", message=f"{error.message} {error.hint or ''}")
        return CommandDone(id=command.id, outcome="done")


def _told(tx: Transaction, done: Sequence[CommandDone]) -> None:
    tx.executemany("UPDATE command SET told = 1 WHERE id = ?", [[each.id] for each in done])
    tx.execute(
        "DELETE FROM command WHERE told = 1 AND rowid NOT IN (SELECT rowid FROM command ORDER BY rowid DESC LIMIT ?)",
        [KEPT],
    )
