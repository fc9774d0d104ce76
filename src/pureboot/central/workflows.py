"""Workflows: how a machine is installed. Every site gets them all."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from pureboot.central import tables as t
from pureboot.central.bodies import WorkflowPatch
from pureboot.central.clock import new_id
from pureboot.central.content import check_name, check_path
from pureboot.central.positions import EVERYWHERE, publish
from pureboot.central.sql import count, locked, page_by, tally
from pureboot.core.errors import Clash, Invalid, NotFound, StaleVersion
from pureboot.core.node import InstallMethod
from pureboot.rendering.language import check_line
from pureboot.wire.messages import ListPage, WorkflowDocument, WorkflowFields, valid


def document(row: Row[Any]) -> WorkflowDocument:
    return WorkflowDocument.model_validate(row._asdict())


def find(conn: Connection, ref: str, *, lock: bool = False) -> WorkflowDocument:
    """By id, or by name. Raises NotFound."""
    query = select(t.workflow).where(or_(t.workflow.c.id == ref, t.workflow.c.name == ref)).order_by(t.workflow.c.id)
    found = conn.execute(locked(query) if lock else query).all()
    for row in sorted(found, key=lambda row: row.id != ref):
        return document(row)
    raise NotFound(f"There is no workflow {ref[:100]!r}.", code="unknown_workflow", hint="Use its id or its name.")


def named(conn: Connection, ref: str) -> WorkflowDocument:
    """The workflow that a request's field names. Raises Invalid."""
    try:
        return find(conn, ref)
    except NotFound as error:
        raise Invalid(f"workflow_id: {error.message}", code=error.code, hint=error.hint) from None


def create(conn: Connection, fields: WorkflowFields, now: datetime) -> WorkflowDocument:
    values = _checked(conn, fields, "")
    row = {**values, "id": new_id(), "version": 1, "created_at": now, "updated_at": now}
    conn.execute(insert(t.workflow), row)
    publish(conn, EVERYWHERE, "workflow", row["id"], 1)
    return WorkflowDocument.model_validate(row)


def change(conn: Connection, ref: str, patch: WorkflowPatch, now: datetime) -> WorkflowDocument:
    """Raises NotFound, Invalid, Clash and StaleVersion."""
    workflow = find(conn, ref, lock=True)
    if patch.version is not None and patch.version != workflow.version:
        raise StaleVersion(f"The workflow {workflow.name!r} is at version {workflow.version}, not {patch.version}.")
    current = workflow.model_dump(include=set(WorkflowFields.model_fields))
    fields = valid(WorkflowFields, current | patch.model_dump(exclude_unset=True, exclude={"version"}))
    row = {**_checked(conn, fields, workflow.id), "version": workflow.version + 1, "updated_at": now}
    conn.execute(update(t.workflow).where(t.workflow.c.id == workflow.id).values(row))
    publish(conn, EVERYWHERE, "workflow", workflow.id, workflow.version + 1)
    return find(conn, workflow.id)


def _checked(conn: Connection, fields: WorkflowFields, id: str) -> dict[str, Any]:
    if conn.execute(select(t.workflow.c.id).where(t.workflow.c.name == fields.name, t.workflow.c.id != id)).first():
        raise Clash(f"There is a workflow {fields.name!r} already.", code="name_taken", hint="Choose another name.")
    for field, line in (("cmdline", fields.cmdline), ("boot_url", fields.boot_url)):
        try:
            check_line(line)
        except Invalid as error:
            raise Invalid(f"{field}: {error.message}", code=error.code, hint=error.hint) from None
    if fields.install_method is InstallMethod.KERNEL and not fields.kernel:
        raise Invalid("kernel: an install by kernel needs one.", hint="Name it as category/path.")
    if fields.install_method is not InstallMethod.KERNEL and not fields.boot_url:
        raise Invalid(f"boot_url: an install by {fields.install_method} needs one.")
    boot_file = fields.boot_url if "://" not in fields.boot_url else ""
    for name in filter(None, (fields.kernel, *fields.initrd, boot_file, *fields.templates.values())):
        check_name(name)
    for path in fields.templates:
        if check_path(path).startswith("token/"):
            raise Invalid("templates: names that begin with token/ are the addresses of all templates.")
    return fields.model_dump(mode="json")


def remove(conn: Connection, ref: str) -> None:
    """Raises Clash while a node has it."""
    workflow = find(conn, ref, lock=True)
    if nodes := count(conn, t.node, t.node.c.workflow_id == workflow.id):
        raise Clash(
            f"The workflow {workflow.name!r} is assigned to {nodes} node(s).",
            code="workflow_assigned",
            hint="Assign them another first.",
        )
    conn.execute(delete(t.workflow).where(t.workflow.c.id == workflow.id))
    publish(conn, EVERYWHERE, "workflow", workflow.id, workflow.version + 1, "delete")


def uses(conn: Connection, ids: Collection[str]) -> dict[str, int]:
    """How many nodes each of these workflows has, by its id."""
    nodes = select(t.node.c.workflow_id, func.count()).where(
        t.node.c.workflow_id.in_(ids), t.node.c.deleted_at.is_(None)
    )
    return tally(conn, nodes.group_by(t.node.c.workflow_id))


def page(conn: Connection, cursor: str | None, limit: int) -> ListPage[WorkflowDocument]:
    rows, more = page_by(conn, select(t.workflow), t.workflow.c.name, cursor, limit)
    items = [document(row) for row in rows]
    return ListPage(items=items, next_cursor=items[-1].name if more else None)


def names(conn: Connection, limit: int) -> dict[str, str]:
    """What people call them, by id, in that order."""
    query = select(t.workflow.c.id, t.workflow.c.name).order_by(t.workflow.c.name).limit(limit)
    return {row.id: row.name for row in conn.execute(query)}
