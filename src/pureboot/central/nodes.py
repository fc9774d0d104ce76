"""What administrators do with nodes."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from pureboot.central import node_rows, sites, workflows
from pureboot.central.bodies import AdminRegisterBody, NodeCreate, NodePatch, RegisteredNode
from pureboot.central.clock import new_id
from pureboot.central.generation import first_number, generation_of
from pureboot.central.node_rows import StoredNode, announce, document
from pureboot.central.positions import publish
from pureboot.core.errors import Clash, NotFound, StaleVersion
from pureboot.core.lifecycle import NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import printable
from pureboot.wire.messages import NodeDocument


def find(conn: Connection, ref: str, *, lock: bool = False) -> StoredNode:
    """By its id or any alias of it. Raises NotFound, for a deleted one too."""
    node = _stored(conn, ref, lock=lock)
    if node.deleted_at is not None:
        raise NotFound(f"The node {ref[:64]!r} was deleted.", code="unknown_node", hint="It registers when it boots.")
    return node


def canonical_id(conn: Connection, ref: str) -> str:
    """Also of a deleted node, whose history stays. Raises NotFound."""
    return _stored(conn, ref, lock=False).id


def _stored(conn: Connection, ref: str, *, lock: bool) -> StoredNode:
    id = node_rows.canonical(conn, [ref]).get(ref, ref)
    node = node_rows.load(conn, [id], lock=lock).get(id)
    if node is None:
        hint = "`pureboot node list` shows them, and GET /api/v1/nodes."
        raise NotFound(f"There is no node {ref[:64]!r}.", code="unknown_node", hint=hint)
    return node


def by_mac(conn: Connection, mac: MacAddress) -> StoredNode | None:
    id = node_rows.owners(conn, [mac.value]).get(mac.value)
    node = node_rows.load(conn, [id], lock=True)[id] if id else None
    # While we waited for its lock, it may have been deleted.
    return node if node and node.deleted_at is None else None


def create(conn: Connection, body: NodeCreate, now: datetime) -> NodeDocument:
    mac = MacAddress.parse(body.mac_address)
    if known := by_mac(conn, mac):
        raise Clash(f"The MAC address {mac} belongs to the node {known.id}.", code="mac_taken")
    site = sites.named(conn, body.home_site_id, "home_site_id")
    workflow_id = workflows.named(conn, body.workflow_id).id if body.workflow_id else None
    node = replace(
        _new(conn, mac, site.id, body.state, now),
        hostname=printable(body.hostname, 255),
        workflow_id=workflow_id,
        group_id=body.group_id,
        tags=tuple(body.tags),
        local_boot=body.local_boot,
    )
    node_rows.add(conn, [node])
    announce(conn, node)
    return document(node)


def _new(conn: Connection, mac: MacAddress, site_id: str, state: NodeState, now: datetime, **fields: Any) -> StoredNode:
    stage = Stage(state, 1 if state is NodeState.INSTALLING else 0)
    first = first_number(generation_of(conn))
    node = StoredNode(new_id(), (mac,), site_id, stage, first, first, created_at=now, updated_at=now, stage_at=now)
    return replace(node, **fields)


def register(conn: Connection, body: AdminRegisterBody, now: datetime) -> tuple[RegisteredNode, bool]:
    """As a machine's boot would; and whether the node is new."""
    mac = MacAddress.parse(body.mac_address)
    site = sites.named(conn, body.home_site_id, "home_site_id")
    hostname, facts = printable(body.hostname, 255), body.facts()
    node = by_mac(conn, mac)
    if is_new := node is None:
        node = _new(conn, mac, site.id, NodeState.DISCOVERED, now, hostname=hostname, facts=facts)
        node_rows.add(conn, [node])
        announce(conn, node)
    elif node.home_site_id != site.id:
        raise Clash(f"The MAC address {mac} belongs to the node {node.id} of another site.", code="mac_taken")
    elif node.facts | facts != node.facts:
        node = saved(conn, node.changed(now, facts=node.facts | facts))
    return RegisteredNode(**document(node).model_dump()), is_new


def saved(conn: Connection, node: StoredNode) -> StoredNode:
    node_rows.save(conn, [node])
    announce(conn, node)
    return node


def edit(conn: Connection, ref: str, patch: NodePatch, now: datetime) -> NodeDocument:
    node = find(conn, ref, lock=True)
    check_version(node, patch.version)
    sent = patch.model_dump(exclude_unset=True, exclude={"version"})
    if sent.get("workflow_id"):
        sent["workflow_id"] = workflows.named(conn, sent["workflow_id"]).id
    if "home_site_id" in sent:
        sent["home_site_id"] = sites.named(conn, sent["home_site_id"], "home_site_id").id
    if "tags" in sent:
        sent["tags"] = tuple(sent["tags"])
    if "hostname" in sent:
        sent["hostname"] = printable(sent["hostname"], 255)
    changed = node.changed(now, **sent)
    if changed.home_site_id != node.home_site_id:
        publish(conn, node.home_site_id, "node", node.id, changed.version, "moved_out")
    return document(saved(conn, changed))


def check_version(node: StoredNode, version: int | None) -> None:
    if version is not None and version != node.version:
        raise StaleVersion(f"The node {node.id} is at version {node.version}, not {version}.")


def remove(conn: Connection, ref: str, now: datetime) -> None:
    """Its history stays; its MACs and its workflow are free, and a later boot registers it anew."""
    node = find(conn, ref, lock=True)
    saved(conn, node.changed(now, deleted_at=now, workflow_id=None))
