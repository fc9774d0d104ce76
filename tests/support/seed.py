"""A database as it looks after months: written past the rules, in bulk, and always the same."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, select, update

from pureboot.central import tables as t
from pureboot.central.accounts import digest
from pureboot.central.conflicts import Link, StoredConflict, save
from pureboot.core.lifecycle import By, Edge, NodeState, Stage
from pureboot.core.reconcile import ConflictType, Strategy
from pureboot.wire.messages import AgentMetrics, ReadinessSummary

TOWNS = ("berlin", "hamburg", "munich", "cologne", "leipzig", "dresden", "bremen", "essen", "vienna", "zurich")
STATES = ("active", "active", "active", "installed", "discovered", "pending", "installing", "install_failed")
VENDORS = (("Dell Inc.", "PowerEdge R650"), ("HPE", "ProLiant DL380 Gen10"), ("Supermicro", "SYS-1029P"))


def uuid(kind: int, number: int) -> str:
    return str(UUID(int=(0x018F << 112) | (7 << 76) | (1 << 63) | (kind << 40) | number))


def site_id(number: int) -> str:
    return uuid(1, number)


def node_id(number: int) -> str:
    return uuid(2, number)


def workflow_id(number: int) -> str:
    return uuid(3, number)


def mac(number: int) -> str:
    return "52:54:" + ":".join(f"{number:08x}"[i : i + 2] for i in range(0, 8, 2))


def seed(conn: Connection, *, sites: int, nodes: int, workflows: int, now: datetime) -> None:
    conn.execute(insert(t.site), list(_sites(sites, now)))
    conn.execute(insert(t.site_pos), [{"site": site_id(n), "pos": 1, "floor": 0} for n in range(sites)])
    conn.execute(insert(t.agent), list(_agents(sites, now)))
    conn.execute(insert(t.workflow), list(_workflows(workflows, now)))
    for start in range(0, nodes, 10_000):
        some = range(start, min(start + 10_000, nodes))
        conn.execute(insert(t.node), [_node(n, sites, workflows, now) for n in some])
        conn.execute(insert(t.node_mac), [{"mac": mac(n), "node_id": node_id(n), "position": 0} for n in some])


def _sites(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {
            "id": site_id(n),
            "name": f"{TOWNS[n % len(TOWNS)]}-{n // len(TOWNS) + 1:02}",
            "description": ("Rack room on the second floor", "", "Behind a satellite link")[n % 3],
            "parent_id": None,
            "agent_url": "",
            "autonomy_level": "limited",
            "conflict_resolution": "central_wins",
            "cache_policy": "assigned",
            "cache_patterns": [],
            "cache_max_size_gb": 50,
            "cache_retention_days": 30,
            "migration_policy": "manual",
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }


def _agents(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    """Of twenty sites, one is cut off, one late, and one has no agent that was ever heard."""
    for n in range(count):
        chance = random.Random(n)
        silent = {3: 9000, 7: 200}.get(n % 20, chance.randrange(2, 55))
        metrics = AgentMetrics(
            version="0.4.0",
            uptime_seconds=chance.randrange(10**6),
            cache_hit_rate=chance.uniform(0.8, 1),
            pending_queue_items=chance.randrange(4) if n % 20 != 3 else 41,
            failed_queue_items=2 if n % 20 == 11 else 0,
            readiness=ReadinessSummary(ready=90 + n % 7, total=96),
        )
        yield {
            "id": uuid(4, n),
            "site_id": site_id(n),
            "credential_hash": digest(str(n)),
            "version": "0.4.0",
            "agent_url": "",
            "interval_seconds": 60,
            "metrics": metrics.model_dump(mode="json"),
            "commands": [],
            "last_seen": None if n % 20 == 15 else now - timedelta(seconds=silent),
            "created_at": now,
        }


def _workflows(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {
            "id": workflow_id(n),
            "name": ("debian-12", "ubuntu-24.04", "rocky-9", "talos")[n % 4] + (f"-{n // 4}" if n >= 4 else ""),
            "install_method": "kernel",
            "architecture": "x86_64",
            "boot_mode": "any",
            "kernel": "images/debian/linux",
            "initrd": ["images/debian/initrd.gz"],
            "cmdline": "auto=true priority=critical",
            "boot_url": "",
            "templates": {},
            "done_when": "report",
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }


def _node(n: int, sites: int, workflows: int, now: datetime) -> dict[str, Any]:
    chance = random.Random(n)
    vendor, model = VENDORS[n % len(VENDORS)]
    state = chance.choice(STATES)
    return {
        "id": node_id(n),
        "home_site_id": site_id(n % sites),
        "mac_address": mac(n),
        "state": state,
        "attempt": 1 if state == "installing" else 0,
        "version": 3,
        "state_rev": 2,
        "hostname": "" if state == "discovered" else f"srv-{n:06}",
        "workflow_id": None if state == "discovered" else workflow_id(n % workflows),
        "group_id": None,
        "tags": ["rack-12"] if n % 5 == 0 else [],
        "facts": {"vendor": vendor, "model": model, "serial_number": f"SN{n:08}"},
        "last_seen": now - timedelta(seconds=chance.randrange(5, 400_000)),
        "stage_at": now - timedelta(seconds=chance.randrange(5, 400_000)),
        "created_at": now - timedelta(days=90),
        "updated_at": now - timedelta(days=1),
    }


def content(conn: Connection, now: datetime) -> None:
    sizes = {
        "bootloaders/undionly.kpxe": 72_000,
        "images/debian/linux": 8_200_000,
        "images/debian/initrd.gz": 38_900_000,
    }
    sizes |= {"images/ubuntu/noble.iso": 2_700_000_000, "templates/debian.cfg": 2_100}
    for name, size in sizes.items():
        category, _, path = name.partition("/")
        row = {"category": category, "path": path, "digest": f"sha256:{digest(name)}", "size": size}
        conn.execute(insert(t.content), row | {"version": 1, "updated_at": now - timedelta(days=3), "deleted_at": None})


def disputes(conn: Connection, count: int, now: datetime) -> None:
    """Of the first nodes of a seeded database: each was installed at its site while central gave it up."""
    for n in range(count):
        link = Link(uuid(6, n), Edge(Stage(NodeState.PENDING), Stage(NodeState.INSTALLING, 1), By.SYSTEM), "", now)
        conflict = StoredConflict(
            id=uuid(7, n),
            site_id=conn.execute(select(t.node.c.home_site_id).where(t.node.c.id == node_id(n))).scalar_one(),
            node_id=node_id(n),
            node_mac=mac(n),
            agent_id="",
            type=ConflictType.STATE_MISMATCH,
            base_state="pending",
            local_state="installing",
            central_state="discovered",
            base_rev=1,
            central_rev=2,
            chain=(link,),
            strategy=Strategy.MANUAL,
            status="pending",
            local_updated_at=now,
            local_uncertainty_ms=0,
            central_updated_at=now,
            created_at=now,
            updated_at=now,
        )
        save(conn, [conflict])


def outage_of(conn: Connection, n: int, now: datetime) -> None:
    """What node `n` went through: approved, installed, and installed again while its site was cut off for two hours."""
    mine = t.node.c.id == node_id(n)
    site = conn.execute(select(t.node.c.home_site_id).where(mine)).scalar_one()
    fields: dict[str, Any] = {"state": "active", "hostname": f"web-{n}", "workflow_id": workflow_id(0)}
    conn.execute(update(t.node).where(mine).values(**fields, last_seen=now - timedelta(minutes=3)))
    back = now - timedelta(minutes=12)

    def step(origin: str, target: str, ago: float, by: str, late: bool = False, **fields: Any) -> None:
        occurred = now - timedelta(minutes=ago)
        row = {
            "node_id": node_id(n),
            "from_state": origin,
            "to_state": target,
            "attempt": 1 if "install" in target else 0,
            "triggered_by": by,
            "actor": "kim" if by == "admin" else by,
            "comment": "",
            "occurred_at": occurred,
            "recorded_at": back if late else occurred + timedelta(milliseconds=140),
            "site_id": site,
            "forced": False,
        }
        conn.execute(insert(t.node_history), row | fields)

    def event(name: str, ago: float, late: bool = False, **fields: Any) -> None:
        occurred = now - timedelta(minutes=ago)
        row = {
            "id": uuid(5, int(ago * 1000) + n * 10**7),
            "node_id": node_id(n),
            "event": name,
            "message": "",
            "metadata": {},
            "attempt": 1,
            "occurred_at": occurred,
            "recorded_at": back if late else occurred + timedelta(milliseconds=140),
            "site_id": site,
        }
        conn.execute(insert(t.node_event), row | fields)

    step("discovered", "pending", 4300, "admin", comment="New web server, rack 12")
    step("pending", "installing", 4290, "system")
    event("install_started", 4289)
    event("install_complete", 4270, message="debian-12 in 18 min")
    step("installing", "installed", 4270, "node")
    step("installed", "active", 4265, "node")
    step("active", "reprovision", 150, "admin", comment="New kernel")
    step("reprovision", "pending", 149, "system")
    step("pending", "installing", 118, "system", late=True)
    event("install_started", 117.5, late=True)
    event("partitioned", 112, late=True, metadata={"disk": "/dev/sda", "size": "480 GB"})
    event("install_complete", 97, late=True, message="debian-12 in 20 min")
    step("installing", "installed", 97, "node", late=True)
    event("boot_started", 95, late=True)
    step("installed", "active", 94, "node", late=True)
    event("boot_started", 3)
