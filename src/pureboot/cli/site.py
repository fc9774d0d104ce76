"""`pureboot site`: the places machines stand at."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, Site, finite, given, group
from pureboot.cli.remote import Row, central
from pureboot.core.boot import DefaultAction
from pureboot.core.lifecycle import Autonomy
from pureboot.core.node import LocalBoot
from pureboot.core.reconcile import Strategy

app = group("Sites: create, list, change, and let an agent in.")

COLUMNS = {
    "ID": "id",
    "NAME": "name",
    "AGENT": "agent_status",
    "LAST SEEN": "agent_last_seen",
    "AUTONOMY": "autonomy_level",
    "NODES": "nodes_total",
    "CONFLICTS": "conflicts_pending",
    "WAITING": "pending_queue_items",
    "FAILED": "failed_queue_items",
    "CACHE HITS": "cache_hit_rate",
    "READY": "readiness.ready",
}


class AgentStatus(StrEnum):
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


class CachePolicy(StrEnum):
    MINIMAL = "minimal"
    ASSIGNED = "assigned"
    MIRROR = "mirror"
    PATTERN = "pattern"


Description = Annotated[str | None, typer.Option(help="What people should know of it.")]
Parent = Annotated[str | None, typer.Option(metavar="SITE", help="Id or name of the site above it.")]
AutonomyLevel = Annotated[Autonomy | None, typer.Option(help="What it may do without central.")]
ConflictResolution = Annotated[
    Strategy | None,
    typer.Option(help="Who is right where both changed a node."),
]
Cache = Annotated[
    CachePolicy | None,
    typer.Option(
        help="What its agent fetches before a machine asks: what approved installs need (minimal), and what its nodes "
        "are assigned (assigned), or all (mirror), or what matches its patterns (pattern)."
    ),
]
Patterns = Annotated[
    list[str] | None,
    typer.Option("--cache-pattern", metavar="GLOB", help="For the policy `pattern`: images/debian/*; may be repeated."),
]
MaxSize = Annotated[
    float | None,
    typer.Option(
        "--cache-max-size-gb", callback=finite, help="GiB its agent may keep; the agent's own limit counts too."
    ),
]
Retention = Annotated[
    int | None,
    typer.Option(
        "--cache-retention-days",
        help="Days that an image nobody wants may lie unused at the agent; scripts and templates four times as long.",
    ),
]
OfflineDefault = Annotated[
    DefaultAction | None, typer.Option("--offline-default-action", help="What an unknown machine gets while offline.")
]
OfflineMaxAge = Annotated[
    float | None,
    typer.Option(
        "--offline-install-max-age",
        callback=finite,
        help="Seconds an approval may be old to start an install offline.",
    ),
]

Disk = Annotated[
    LocalBoot | None, typer.Option("--local-boot", help="How its machines get to their own disk, unless a node says.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    description: Description = None,
    parent: Parent = None,
    autonomy_level: AutonomyLevel = None,
    conflict_resolution: ConflictResolution = None,
    cache_policy: Cache = None,
    cache_patterns: Patterns = None,
    cache_max_size_gb: MaxSize = None,
    cache_retention_days: Retention = None,
    offline_default_action: OfflineDefault = None,
    offline_install_max_age: OfflineMaxAge = None,
    local_boot: Disk = None,
    json: AsJson = False,
) -> None:
    """Create a site."""
    with central() as remote:
        fields = given(
            name=name,
            description=description,
            parent_id=names.site(remote, parent)["id"] if parent else None,
            autonomy_level=autonomy_level,
            conflict_resolution=conflict_resolution,
            cache_policy=cache_policy,
            cache_patterns=cache_patterns or None,
            cache_max_size_gb=cache_max_size_gb,
            cache_retention_days=cache_retention_days,
            offline_default_action=offline_default_action,
            offline_install_max_age=offline_install_max_age,
            local_boot=local_boot,
        )
        row = remote.send("POST", "sites", json=fields)
        show.said(
            row, f"Site {row['name']} is {row['id']}. Let its agent in: pureboot site token {row['id']}", json=json
        )


@app.command("list")
def list_(
    search: Annotated[str | None, typer.Option(help="Text in the name or the description.")] = None,
    status: Annotated[AgentStatus | None, typer.Option(help="Only those whose agent is so.")] = None,
    problems: Annotated[bool, typer.Option("--problems-first", help="What needs a person comes first.")] = False,
    json: AsJson = False,
) -> None:
    """List sites."""
    query = given(q=search, status=status, order="problems" if problems else None)
    with central() as remote:
        show.listing(remote.listing("sites", **query), COLUMNS, json=json, empty="There are no sites yet.")


@app.command("show")
def show_(site: Site, json: AsJson = False) -> None:
    """Show one site."""
    with central() as remote:
        show.record(names.site(remote, site), json=json)


@app.command()
def update(
    site: Site,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    description: Description = None,
    parent: Parent = None,
    autonomy_level: AutonomyLevel = None,
    conflict_resolution: ConflictResolution = None,
    cache_policy: Cache = None,
    cache_patterns: Patterns = None,
    cache_max_size_gb: MaxSize = None,
    cache_retention_days: Retention = None,
    offline_default_action: OfflineDefault = None,
    offline_install_max_age: OfflineMaxAge = None,
    local_boot: Disk = None,
    json: AsJson = False,
) -> None:
    """Change what is named; the rest stays."""
    with central() as remote:
        fields: dict[str, Any] = given(
            name=name,
            description=description,
            parent_id=names.site(remote, parent)["id"] if parent else None,
            autonomy_level=autonomy_level,
            conflict_resolution=conflict_resolution,
            cache_policy=cache_policy,
            cache_patterns=cache_patterns or None,
            cache_max_size_gb=cache_max_size_gb,
            cache_retention_days=cache_retention_days,
            offline_default_action=offline_default_action,
            offline_install_max_age=offline_install_max_age,
            local_boot=local_boot,
        )
        row = remote.send("PATCH", f"sites/{names.site(remote, site)['id']}", json=fields)
        show.said(row, f"Site {row['name']} is changed.", json=json)


@app.command()
def health(site: Site, json: AsJson = False) -> None:
    """Show how a site is: its agent's last words, its nodes, conflicts and notices."""
    with central() as remote:
        row = remote.get(f"sites/{names.site(remote, site)['id']}/health")
    show.record(row, json=json)


@app.command()
def outages(site: Site, json: AsJson = False) -> None:
    """List when a site's agent was not heard, the newest first, and what is known of it."""
    columns = {"BEGAN": "began_at", "OFFLINE": "offline_at", "ENDED": "ended_at", "WHAT IS KNOWN": "account"}
    with central() as remote:
        rows = remote.listing(f"sites/{names.site(remote, site)['id']}/outages", limit="1000")
    show.listing(rows, columns, json=json, empty="This site's agent has been heard all the time.")


@app.command()
def queue(site: Site, json: AsJson = False) -> None:
    """Show what failed of a site's outbox, as its agent told it last, and what became of what was asked of it."""
    failed = {
        "ID": "id",
        "TYPE": "item_type",
        "NODE": "lane",
        "ATTEMPTS": "attempts",
        "CREATED": "created_at",
        "LAST ERROR": "last_error",
    }
    asked = {
        "ASKED": "asked_at",
        "COMMAND": "command",
        "ITEM": "item_id",
        "BY": "person",
        "OUTCOME": "outcome",
        "WHY": "message",
    }
    with central() as remote:
        row = remote.get(f"sites/{names.site(remote, site)['id']}/queue")
    if json:
        show.as_json(row)
        return
    when = show.text(row["told_at"])
    show.tell(f"{row['pending']} items wait and {row['failed']} failed, as its agent said at {when}.")
    if row["items"]:
        show.listing(row["items"], failed, json=False, empty="")
    if row["commands"]:
        show.listing(row["commands"], asked, json=False, empty="")


Item = Annotated[str, typer.Argument(metavar="ITEM", help="Id of a failed item; `pureboot site queue` shows them.")]


@app.command()
def requeue(site: Site, item: Item, json: AsJson = False) -> None:
    """Ask a site's agent to offer a failed item again."""
    _ask(site, f"queue/{names.part(item)}/requeue", f"The agent is asked to offer {item} again.", json)


@app.command()
def discard(
    site: Site,
    item: Item,
    reason: Annotated[str, typer.Option(help="Why it is given up; central keeps it.")] = "",
    json: AsJson = False,
) -> None:
    """Ask a site's agent to give an item up for good."""
    path = f"queue/{names.part(item)}/discard"
    _ask(site, path, f"The agent is asked to give {item} up.", json, body={"reason": reason})


@app.command()
def sync(site: Site, json: AsJson = False) -> None:
    """Ask a site's agent to hear central out, and to fetch what it wants."""
    _ask(site, "sync", "The agent is asked to hear central out.", json)


@app.command()
def invalidate(
    site: Site,
    name: Annotated[str, typer.Argument(metavar="CATEGORY/PATH", help="The file to drop.")],
    json: AsJson = False,
) -> None:
    """Ask a site's agent to drop a file from its cache; what its policy asks for is fetched again."""
    _ask(site, f"cache/{names.parts(name)}/invalidate", f"The agent is asked to drop {name}.", json)


def _ask(site: str, path: str, sentence: str, json: bool, body: Row | None = None) -> None:
    with central() as remote:
        answer = remote.send("POST", f"sites/{names.site(remote, site)['id']}/{path}", json=body)
    show.said(answer, f"{sentence} `pureboot site queue` shows what becomes of it.", json=json)


@app.command()
def delete(site: Site, json: AsJson = False) -> None:
    """Delete a site that has no nodes."""
    with central() as remote:
        row = names.site(remote, site)
        remote.send("DELETE", f"sites/{row['id']}")
        show.said({"deleted": row["id"]}, f"Site {row['name']} is deleted.", json=json)


@app.command()
def token(site: Site, json: AsJson = False) -> None:
    """Make a one-time token for the site's agent; it voids the one before, and is shown only now."""
    with central() as remote:
        row = remote.send("POST", f"sites/{names.site(remote, site)['id']}/agent-token")
        show.said(row, row["token"], json=json)


@app.command()
def revoke(site: Site, json: AsJson = False) -> None:
    """End every credential of the site's agents, of those that were replaced too, and the one-time token: for a host
    that was stolen. An agent serves on from what it holds, and tells central nothing until it is initialized anew."""
    with central() as remote:
        row = names.site(remote, site)
        answer = remote.send("POST", f"sites/{row['id']}/agents/revoke")
        many = answer["revoked"]
        sentence = f"{many} credential{'s' * (many != 1)} of {row['name']} revoked. `pureboot site token {row['name']}`"
        show.said(answer, f"{sentence} makes a new agent possible.", json=json)
