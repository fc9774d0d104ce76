"""Central without HTTP: its database, what a request does to it, its administrators, its backups."""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from pureboot.central import (
    accounts,
    content,
    engines,
    feed,
    nodes,
    sessions,
    settlement,
    sites,
    steps,
    workflows,
)
from pureboot.central.accounts import Agent
from pureboot.central.bell import Bell
from pureboot.central.bodies import AdminStateBody, NodeCreate, NodePatch
from pureboot.central.compaction import compact, scopes
from pureboot.central.content import Shelf, Upload
from pureboot.central.db import Database
from pureboot.central.generation import begin_anew, generation_of
from pureboot.central.ingest import Ingest
from pureboot.core.errors import PureBootError
from pureboot.core.lifecycle import Autonomy
from pureboot.core.node import InstallMethod
from pureboot.core.reconcile import Resolution, Strategy
from pureboot.wire.errors import body_of, status_of
from pureboot.wire.messages import (
    AgentRegistration,
    ContentCategory,
    PushRequest,
    SessionRequest,
    SiteFields,
    WorkflowFields,
)
from tests.simulation.fuse import Fuse, Killed
from tests.support.central import SetClock

T = TypeVar("T")

PERSON = "admin"
WORKFLOW, KERNEL_NAME, KERNEL = "install", "linux", b"a kernel"
DIGEST = f"sha256:{hashlib.sha256(KERNEL).hexdigest()}"
# Sites there may be in a history, each with another policy.
POLICIES = [(autonomy, strategy) for autonomy in Autonomy for strategy in Strategy]
TOMBSTONES_FOR = timedelta(minutes=5)
LEASE = timedelta(seconds=90)


@dataclass(frozen=True)
class Reply:
    """`body` is JSON, as it would stand in the HTTP answer."""

    status: int
    body: str
    retry_after: float | None = None


@dataclass(frozen=True)
class Call:
    """One request on its way, as bytes: nothing of the sender's memory is shared."""

    sender: Agent
    what: str
    body: str


class Central:
    """One history's central, on the file of `db`, which holds what `furnish` has made. Its life is its `fuse`."""

    def __init__(self, db: Database, path: Path) -> None:
        self.db, self.path = db, path
        self.fuse = Fuse()
        self.clock = SetClock()
        self.ingest = Ingest(db, self.clock, LEASE)
        self.poisoned: set[str] = set()
        self.newest_generation = 1

    async def answer(self, call: Call) -> Reply:
        """Raises Killed where it dies over it, be it after its commit."""
        try:
            body = await self._handle(call)
        except PureBootError as error:
            return Reply(status_of(error), json.dumps(body_of(error)), getattr(error, "retry_after", None))
        finally:
            if self.fuse.dead:
                self.revive()
        try:
            self.fuse.burn("central, before it answers")
        except Killed:
            self.revive()
            raise
        return Reply(200, body)

    def revive(self) -> None:
        """It keeps nothing in memory that counts, so the same objects serve its next life."""
        self.fuse.dead = False
        self.fuse.put_out()

    async def _handle(self, call: Call) -> str:
        match call.what:
            case "push":
                return (
                    await self.ingest.push(call.sender, PushRequest.model_validate_json(call.body))
                ).model_dump_json()
            case "session":
                request, now = SessionRequest.model_validate_json(call.body), self.clock.now()
                grant = await self.db.write(lambda conn: sessions.open_session(conn, call.sender, request, now, LEASE))
                if isinstance(grant, PureBootError):
                    raise grant
                return grant.model_dump_json()
            case "changes":
                since, limit = json.loads(call.body)
                page = await feed.follow(self.db, call.sender.site_id, feed.Cursor.parse(since), limit, 0)
                return page.model_dump_json()
            case "health":
                return json.dumps({"status": "ok", "generation": await self.db.read(generation_of)})
            case _:
                raise AssertionError(call.what)

    # What administrators do. A change that the rules forbid changes nothing, and is no part of the history.

    def do(self, work: Callable[[Connection], T]) -> T:
        """What a request of an administrator does, in a transaction of its own."""
        return self.db.write_now(work)

    def set_state(self, node: str, state: str, force: bool) -> None:
        body, now = AdminStateBody(state=state, force=force, comment="because"), self.clock.now()
        self.do(lambda conn: steps.set_state(conn, node, body, PERSON, now))

    def edit(self, node: str, **fields: Any) -> None:
        patch, now = NodePatch.model_validate(fields), self.clock.now()
        self.do(lambda conn: nodes.edit(conn, node, patch, now))

    def create(self, mac: str, site: str, state: str, workflow: str | None) -> None:
        fields = {"mac_address": mac, "home_site_id": site, "state": state, "workflow_id": workflow}
        body, now = NodeCreate.model_validate(fields), self.clock.now()
        self.do(lambda conn: nodes.create(conn, body, now))

    def delete(self, node: str) -> None:
        now = self.clock.now()
        self.do(lambda conn: nodes.remove(conn, node, now))

    def resolve(self, site: str, conflict: str, how: Resolution) -> None:
        now = self.clock.now()
        self.do(lambda conn: settlement.resolve(conn, site, conflict, settlement.Verdict(how, PERSON, "", now)))

    def undo(self, site: str, conflict: str) -> None:
        now = self.clock.now()
        self.do(lambda conn: settlement.undo(conn, site, conflict, PERSON, "", now))

    def forget_tombstones(self) -> None:
        now = self.clock.now()
        for scope in self.do(scopes):
            self.do(partial(compact, scope=scope, before=now - TOMBSTONES_FOR, now=now))

    # Backups

    def back_up(self, to: Path) -> None:
        copy_database(self.path, to)

    def restore(self, backup: Path) -> None:
        """And `pureboot central post-restore`, which keeps the newest generation beside the database."""
        copy_database(backup, self.path)
        self.newest_generation = self.do(lambda conn: begin_anew(conn, self.newest_generation))


def copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)


def furnish(folder: Path) -> list[Agent]:
    """A database in `folder`, to be copied for each history: a site of each policy with its agent, and one workflow."""
    shelf = Shelf(folder / "content")
    shelf.open()
    kernel = folder / "kernel"
    kernel.write_bytes(KERNEL)
    now = SetClock().now()

    def work(conn: Connection) -> list[Agent]:
        content.put(conn, shelf, ContentCategory.IMAGES, KERNEL_NAME, Upload(kernel, DIGEST, len(KERNEL)), now)
        install = WorkflowFields(name=WORKFLOW, install_method=InstallMethod.KERNEL, kernel=f"images/{KERNEL_NAME}")
        workflows.create(conn, install, now)
        return [_site(conn, f"policy{number}", *policy) for number, policy in enumerate(POLICIES)]

    def _site(conn: Connection, name: str, autonomy: Autonomy, strategy: Strategy) -> Agent:
        site = sites.create(conn, SiteFields(name=name, autonomy_level=autonomy, conflict_resolution=strategy), now)
        token = accounts.issue_agent_token(conn, site.id, now).token
        credential = accounts.register_agent(conn, AgentRegistration(token=token), now)
        return Agent(credential.agent_id, credential.site_id, True)

    with Database(engines.sqlite_file(folder / "central.db"), Bell()) as db:
        return db.write_now(work)
