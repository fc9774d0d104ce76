"""What the agent knows of its site and of central as a whole: settings, workflows, content, and how fresh that is."""

import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from pureboot.agent.clock import Clock, Stamp, carried_over, unexplained
from pureboot.agent.database import Database, set_meta
from pureboot.core.errors import Clash
from pureboot.core.lifecycle import Autonomy
from pureboot.core.node import LocalBoot, Workflow
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import ContentCategory, ContentDocument, SiteDocument, WorkflowDocument

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Position:
    """Where this agent stands on central's feed."""

    generation: int = 1
    cursor: str = "0"


class SiteState:
    """A view in memory over rows in agent.db, as NodeStateCache is one over nodes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self.document: SiteDocument | None = None
        self.position = Position()
        self._workflows: dict[str, Workflow] = {}
        self._content: dict[str, ContentDocument] = {}
        self._last_pass: Stamp | None = None
        self._last_kept: Stamp | None = None

    def load(self) -> None:
        """Reads the file. After a reboot of the host the time of the last pass is carried over to the new boot's clock
        once, here: later steps of the wall clock change nothing any more."""
        self.database.store.read_now(self._load)
        carried = carried_over(self._last_pass, self._last_kept, self.clock.stamp())
        if carried is not None and carried != self._last_pass:
            self.database.store.submit(lambda tx: set_meta(tx, "last_pass", carried.dump())).result()
            self._last_pass = carried

    @property
    def autonomy(self) -> Autonomy:
        """The user's default until central has told this site its level."""
        return self.document.autonomy_level if self.document else Autonomy.LIMITED

    @property
    def local_boot(self) -> LocalBoot:
        """How machines here get to their own disk, where a node has no other way."""
        return self.document.local_boot if self.document else LocalBoot.SANBOOT

    @property
    def last_pass(self) -> Stamp | None:
        """When the feed was last read to its end: everything here is at least as new as central was then."""
        return self._last_pass

    def knowledge_age(self) -> float | None:
        """Seconds since the last complete pass, or None where no clock can tell (DESIGN 4, age of an approval)."""
        now = self.clock.stamp()
        if self._last_pass is None or self._last_pass.boot_id != now.boot_id:
            return None
        return max(0.0, now.boottime - self._last_pass.boottime)

    @property
    def clock_problem(self) -> str:
        """What a person should know: after a reboot the wall clock cannot say how long ago central was heard."""
        if self._last_pass is None or self.knowledge_age() is not None:
            return ""
        return (
            "The clock cannot be trusted after this host's reboot, so approved installs wait for central (limited)."
            " Set it right, then run `pureboot agent confirm-clock`."
        )

    async def confirm_clock(self) -> float:
        """A person says that the wall clock is right: the seconds since central was last heard out are counted by it.
        Where they were not in doubt, nothing changes. Raises Clash."""
        if (age := self.knowledge_age()) is not None:
            return age
        last, now = self._last_pass, self.clock.stamp()
        if last is None:
            raise Clash("This site has never heard central out.", code="never_synced", hint="It has to reach it once.")
        if now.wall < last.wall:
            raise Clash(
                f"This host's clock shows {now.when:%Y-%m-%d %H:%M} UTC, but central was last heard out at"
                f" {last.when:%Y-%m-%d %H:%M} UTC.",
                code="clock_wrong",
                hint="Set the clock first.",
            )
        stamp = Stamp(now.boot_id, now.boottime - (now.wall - last.wall), last.wall)

        def work(tx: Transaction) -> None:
            set_meta(tx, "last_pass", stamp.dump())
            tx.after_commit(lambda: setattr(self, "_last_pass", stamp))

        await self.database.store.write(work)
        log.warning("a person confirmed this host's clock: central was last heard out at %s", last.when)
        return now.wall - last.wall

    def workflow(self, workflow_id: str | None) -> Workflow | None:
        return self._workflows.get(workflow_id) if workflow_id else None

    def content(self, name: str) -> ContentDocument | None:
        return self._content.get(name)

    def boot_loaders(self) -> list[str]:
        """Names of content that firmware asks for before the site can know which machine it is."""
        return [name for name, each in self._content.items() if each.category is ContentCategory.BOOTLOADERS]

    def content_names(self) -> list[str]:
        """In the order of the alphabet."""
        return sorted(self._content)

    def contents(self) -> list[ContentDocument]:
        return list(self._content.values())

    # Inside a transaction

    def set_site(self, tx: Transaction, document: SiteDocument) -> None:
        set_meta(tx, "site", document.model_dump_json())
        tx.after_commit(lambda: setattr(self, "document", document))

    def position_in(self, tx: Transaction) -> Position:
        """As this transaction finds it; `position` follows a commit by a moment."""
        return _position(
            dict(tx.execute("SELECT key, value FROM meta WHERE key IN ('generation', 'cursor')").fetchall())
        )

    def set_position(self, tx: Transaction, position: Position) -> None:
        set_meta(tx, "generation", str(position.generation))
        set_meta(tx, "cursor", position.cursor)
        tx.after_commit(lambda: setattr(self, "position", position))

    def passed(self, tx: Transaction) -> None:
        stamp = self.clock.stamp()
        set_meta(tx, "last_pass", stamp.dump())
        tx.after_commit(lambda: setattr(self, "_last_pass", stamp))

    def keep_clock(self, tx: Transaction) -> float:
        """Once a minute. Seconds by which the wall clock has moved since the last time and nothing says that they have
        passed: a step, or the host was off."""
        now = self.clock.stamp()
        row = tx.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
        last = Stamp.load(row["value"]) if row else None
        set_meta(tx, "clock", now.dump())
        return unexplained(last, now) if last else 0.0

    def set_workflow(self, tx: Transaction, document: WorkflowDocument) -> None:
        values = [document.id, document.version, document.model_dump_json()]
        tx.execute("INSERT OR REPLACE INTO workflow VALUES (?, ?, ?)", values)
        workflow = _workflow(document)
        tx.after_commit(lambda: self._workflows.update({workflow.id: workflow}))

    def drop_workflow(self, tx: Transaction, workflow_id: str) -> None:
        tx.execute("DELETE FROM workflow WHERE id = ?", [workflow_id])
        tx.after_commit(lambda: _drop(self._workflows, workflow_id))

    def set_content(self, tx: Transaction, document: ContentDocument) -> None:
        values = [document.name, document.version, document.model_dump_json()]
        tx.execute("INSERT OR REPLACE INTO content VALUES (?, ?, ?)", values)
        tx.after_commit(lambda: self._content.update({document.name: document}))

    def drop_content(self, tx: Transaction, name: str) -> None:
        tx.execute("DELETE FROM content WHERE name = ?", [name])
        tx.after_commit(lambda: _drop(self._content, name))

    def _load(self, connection: sqlite3.Connection) -> None:
        meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        if "site" in meta:
            self.document = SiteDocument.model_validate_json(meta["site"])
        self.position = _position(meta)
        self._last_pass = Stamp.load(meta.get("last_pass"))
        self._last_kept = Stamp.load(meta.get("clock"))
        for row in connection.execute("SELECT document FROM workflow"):
            workflow = _workflow(WorkflowDocument.model_validate_json(row["document"]))
            self._workflows[workflow.id] = workflow
        for row in connection.execute("SELECT document FROM content"):
            document = ContentDocument.model_validate_json(row["document"])
            self._content[document.name] = document


def _position(meta: Mapping[str, str]) -> Position:
    return Position(int(meta.get("generation", "1")), meta.get("cursor", "0"))


def _workflow(document: WorkflowDocument) -> Workflow:
    return Workflow(
        id=document.id,
        name=document.name,
        install_method=document.install_method,
        architecture=document.architecture,
        boot_mode=document.boot_mode,
        kernel=document.kernel,
        initrd=tuple(document.initrd),
        cmdline=document.cmdline,
        boot_url=document.boot_url,
        templates=document.templates,
        done_when=document.done_when,
    )


def _drop(view: dict[str, object] | dict[str, Workflow] | dict[str, ContentDocument], key: str) -> None:
    view.pop(key, None)
