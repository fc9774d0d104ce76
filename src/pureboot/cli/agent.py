"""`pureboot agent`: a site's agent on this host, and what it says of itself."""

import getpass
import os
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pureboot.cli import names, remote, show
from pureboot.cli.conflict import Status
from pureboot.cli.options import AsJson, Config, DataDir, ask, group
from pureboot.core.errors import CentralUnavailable
from pureboot.core.lifecycle import NodeState
from pureboot.core.reconcile import Resolution

if TYPE_CHECKING:
    from pureboot.cli.remote import Remote, Row
    from pureboot.config.settings import AgentSettings

app = group("Run a site's agent, and ask the one on this host.")

Port = Annotated[int | None, typer.Option(help="HTTP port of the agent.")]


@app.command()
def init(
    central_url: Annotated[str, typer.Option(help="Address of central.")],
    site: Annotated[str, typer.Option(help="Id or name of the site.")],
    token: Annotated[
        str,
        typer.Option(
            envvar="PUREBOOT_AGENT_TOKEN",
            help="One-time token from `pureboot site token`; `-`: asked for, or read from standard input. "
            "`PUREBOOT_AGENT_TOKEN` may hold it too. Written here, others on this host can see it.",
        ),
    ],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Trade a one-time token for this agent's own credential.

    Doing it again on a folder keeps what the agent holds there.
    """
    from pydantic import ValidationError

    from pureboot import __version__
    from pureboot.agent import identity
    from pureboot.wire.messages import AgentCredential, AgentRegistration

    settings = _settings(config, data_dir)
    folder = settings.data_dir
    identity.check_writable(folder)  # before the token is spent
    body = AgentRegistration(token=_one_time(token), site=site, version=__version__).model_dump()
    with remote.anyone(central_url, settings.ca_file) as central:
        answer = central.send("POST", "agents/register", json=body)
    try:
        issued = AgentCredential.model_validate(answer)
    except ValidationError:
        raise CentralUnavailable(f"What answers at {remote.shown(central_url)} is not central.") from None
    identity.save(folder, identity.Identity(issued.agent_id, issued.site_id, central_url, issued.credential))
    show.tell(
        f"This is agent {issued.agent_id} of site {issued.site_id}. Start it: pureboot agent run --data-dir {folder}"
    )


def _one_time(token: str) -> str:
    if token != "-":
        return token
    if given := ask("One-time token").strip():
        return given
    raise typer.BadParameter("There is no token on standard input.")


@app.command()
def run(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Port = None,
    tftp_port: Annotated[int | None, typer.Option(help="Port for TFTP; 0: none.")] = None,
    data_dir: DataDir = None,
    advertise_url: Annotated[str | None, typer.Option(help="Address that boot scripts name.")] = None,
    config: Config = None,
) -> None:
    """Serve this site's machines until stopped, with central or without.

    Over HTTP: boot scripts, files and the API for nodes. Over TFTP: content of the category `bootloaders`, by its plain
    name, and `autoexec.ipxe`.
    """
    from pureboot.agent import main
    from pureboot.cli import serve

    flags = {"host": host, "port": port, "tftp_port": tftp_port, "advertise_url": advertise_url}
    settings = _settings(config, data_dir, **flags)
    serve.run(main.run(settings), log_level=settings.log_level, log_format=settings.log_format)


@app.command("dnsmasq-config")
def dnsmasq_config(
    range_: Annotated[
        str | None,
        typer.Option("--range", metavar="START,END[,LEASE]", help="Addresses to give out, for how long."),
    ] = None,
    proxy: Annotated[
        str | None, typer.Option(metavar="SUBNET", help="Beside another DHCP server, on this subnet.")
    ] = None,
    interface: Annotated[str | None, typer.Option(help="Network interface on the machines' LAN.")] = None,
    subnet: Annotated[
        str | None, typer.Option(help="Subnet of the range; left out, that of the interface, and hardly checked.")
    ] = None,
    router: Annotated[str | None, typer.Option(help="Default router of the machines; left out, none.")] = None,
    dns: Annotated[str | None, typer.Option(help="DNS servers, with commas between them; left out, none.")] = None,
    ipv6_ra: Annotated[
        bool, typer.Option("--ipv6-ra", help="Send IPv6 router advertisements, which old iPXE waits 16 s for.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="The agent's IPv4 address on that LAN; default: that of `advertise_url`.")
    ] = None,
    http_port: Annotated[int | None, typer.Option(min=1, max=65535, help="HTTP port of the agent.")] = None,
    tftp_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Its port for TFTP; 0: none.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Print a dnsmasq configuration that points a site's machines at this agent.

    With --range dnsmasq is the LAN's DHCP server; with --proxy another one is, and dnsmasq only says where to boot
    from. BIOS, UEFI and UEFI HTTP boot each get their loader, and iPXE gets the boot script.
    """
    from pureboot.agent import dhcp, dnsmasq

    settings = _settings(config, data_dir, tftp_port=tftp_port)
    agent = dhcp.agent_address(
        address or "",
        http_port,
        advertise_url=settings.advertise_url,
        port=settings.port,
        tftp_port=settings.tftp_port,
    )
    service: dhcp.Leases | dhcp.Proxy
    if range_ is not None and proxy is None:
        service = dhcp.leases(
            range_,
            interface_name=interface or "",
            subnet=subnet or "",
            router=router or "",
            dns=dns or "",
            router_advertisements=ipv6_ra,
        )
        for doubt in dhcp.doubts(agent, service):
            show.tell(f"pureboot: {doubt}", err=True)
    elif proxy is not None and range_ is None:
        if subnet or router or dns or ipv6_ra:
            raise typer.BadParameter("--subnet, --router, --dns and --ipv6-ra are what the other DHCP server says.")
        service = dhcp.Proxy(dhcp.network(proxy, "--proxy"), dhcp.interface(interface) if interface else "")
    else:
        raise typer.BadParameter("Give either --range or --proxy.")
    typer.echo(dnsmasq.render(agent, service), nl=False)


@app.command()
def status(port: Port = None, data_dir: DataDir = None, config: Config = None, json: AsJson = False) -> None:
    """Show the link to central, the queue, conflicts and services."""
    with _local(config, data_dir, port) as agent:
        show.record(agent.get("api/v1/agent/status"), json=json)


class QueueAction(StrEnum):
    LIST = "list"
    REQUEUE = "requeue"
    DISCARD = "discard"
    CLEAR_FAILED = "clear-failed"


@app.command()
def queue(
    action: Annotated[QueueAction, typer.Argument(help="What to do.")] = QueueAction.LIST,
    item: Annotated[str | None, typer.Argument(metavar="ID", help="The item to requeue or to discard.")] = None,
    reason: Annotated[str, typer.Option(help="Why it is given up; central keeps it.")] = "",
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """List what central does not know yet, or settle what failed.

    `requeue ID` offers a failed item again. `discard ID` gives one up for good, `clear-failed` all that failed; central
    is told who did it.
    """
    if (item is not None) != (action in (QueueAction.REQUEUE, QueueAction.DISCARD)):
        needs = "the ID of an item" if item is None else "no ID"
        raise typer.BadParameter(f"`{action}` takes {needs}.")
    with _local(config, data_dir, port) as agent:
        if action is QueueAction.LIST:
            _show_queue(agent.listing("api/v1/agent/queue", limit="1000"), json)
        elif action is QueueAction.REQUEUE:
            answer = agent.send("POST", f"api/v1/agent/queue/{names.part(str(item))}/requeue")
            show.said(answer, f"Item {item} goes out again.", json=json)
        elif action is QueueAction.DISCARD:
            said = {"reason": reason, "person": _me()}
            answer = agent.send("POST", f"api/v1/agent/queue/{names.part(str(item))}/discard", json=said)
            show.said(answer, f"Item {item} is given up; central will be told, unless it had refused it.", json=json)
        else:
            said = {"reason": reason, "person": _me()}
            answer = agent.send("DELETE", "api/v1/agent/queue/failed", json=said)
            done = f"{answer['cleared']} failed items are given up; central will be told of those it had not refused."
            show.said(answer, done, json=json)


def _me() -> str:
    """Who sits at this terminal, as central will show it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _show_queue(rows: list["Row"], json: bool) -> None:
    columns = {
        "ID": "id",
        "TYPE": "item_type",
        "NODE": "lane",
        "STATUS": "status",
        "ATTEMPTS": "attempts",
        "CREATED": "created_at",
        "LAST ERROR": "last_error",
    }
    show.listing(rows, columns, json=json, empty="The queue is empty: central knows everything.")


@app.command()
def conflicts(
    status: Annotated[Status, typer.Option(help="Which ones.")] = Status.PENDING,
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """List the nodes about which this site and central disagree, or disagreed."""
    columns = {
        "ID": "id",
        "NODE": "node_mac",
        "TYPE": "conflict_type",
        "HERE": "local_state",
        "CENTRAL": "central_state",
        "DECIDED HERE" if status is Status.PENDING else "DECIDED": "resolution",
    }
    if status is not Status.PENDING:
        columns["BY"] = "resolved_by"
    with _local(config, data_dir, port) as agent:
        rows = agent.listing("api/v1/agent/conflicts", status=status)
    show.listing(rows, columns, json=json, empty="Site and central agree.")


@app.command()
def boots(
    follow: Annotated[bool, typer.Option("--follow", help="Go on with those to come, until interrupted.")] = False,
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """List the last boots, the oldest first: which machine was told what, and why.

    With --follow each is a line as it happens; with --json too, a JSON object a line.
    """
    columns = {
        "TIME": "at",
        "MAC": "mac_address",
        "HOSTNAME": "hostname",
        "STATE": "state",
        "TOLD": "decision",
        "LINK": "link",
        "WHY": "reason",
    }
    path = "api/v1/agent/boots"
    with _local(config, data_dir, port) as agent:
        if not follow:
            show.listing(agent.listing(path, limit="1000"), columns, json=json, empty="No machine has booted yet.")
            return
        after = "0"
        while True:
            answer = agent.page(path, after=after, wait="20", limit="1000")
            for row in answer["items"]:
                show.line(row, columns.values(), json=json)
            after = str(answer["last"])


Comment = Annotated[str, typer.Option(help="Why; central keeps it.")]


@app.command()
def resolve(
    conflict: Annotated[str, typer.Argument(metavar="CONFLICT", help="Id of a conflict, or a node's MAC address.")],
    resolution: Annotated[Resolution, typer.Argument(help="Whose word counts.")],
    comment: Comment = "",
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Settle a conflict from here; offline too. It counts once central confirms it."""
    said = names.spelled(conflict) or conflict
    with _local(config, data_dir, port) as agent:
        rows = agent.listing("api/v1/agent/conflicts")
        found = next((row["id"] for row in rows if said in (row["id"], row["node_mac"])), conflict)
        body = {"resolution": resolution, "person": _me(), "comment": comment}
        answer = agent.send("POST", f"api/v1/agent/conflicts/{names.part(found)}/resolve", json=body)
    show.said(answer, f"{resolution}: {_counts(answer)}.", json=json)


@app.command()
def move(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Id of a node, or its MAC address.")],
    state: Annotated[NodeState, typer.Argument(help="What it becomes: pending approves its install.")],
    comment: Comment = "",
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Do here what administrators do with a node at central; at a site of the level full only."""
    with _local(config, data_dir, port) as agent:
        rows = agent.listing("api/v1/nodes", mac=mac) if (mac := names.spelled(node)) else []
        found = rows[0]["id"] if rows else node
        body = {"state": state, "person": _me(), "comment": comment}
        answer = agent.send("POST", f"api/v1/agent/nodes/{names.part(found)}/state", json=body)
    show.said(answer, f"The node is {answer['state']} here: {_counts(answer)}.", json=json)


def _counts(answer: "Row") -> str:
    """What a decision has come to."""
    if answer["status"] == "queued":
        return "it waits for central" + (", which is not reached" if answer["offline"] else "")
    if answer["status"] == "rejected":
        return f"central refused it: {answer.get('reason')}"
    if answer["status"] == "conflict":
        return f"central has the node otherwise; see conflict {answer.get('conflict_id')}"
    if answer["status"] == "already":
        return "it was said before"
    return "central has confirmed it" if "queue_id" in answer else "it is settled here, and central knows nothing of it"


# Whoever empties a cache should know what the line is about to carry.
AGAIN = "What the site's policy asks for is fetched again."


class CacheAction(StrEnum):
    LIST = "list"
    VERIFY = "verify"
    REMOVE = "remove"
    EVICT = "evict"
    CLEAR = "clear"


@app.command()
def cache(
    action: Annotated[CacheAction, typer.Argument(help="What to do.")] = CacheAction.LIST,
    name: Annotated[str | None, typer.Argument(metavar="CATEGORY/PATH", help="The file to remove.")] = None,
    port: Port = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """List the content on this site's disk, or tidy it.

    `verify` begins to read all of it again, at `verify_rate`; what has rotted is dropped and fetched anew. `remove`
    drops one file, `evict` all that the site's policy does not ask for, `clear` all but what boot ROMs and approved
    installs need. What is dropped and the policy asks for is fetched again at once.
    """
    if (name is not None) != (action is CacheAction.REMOVE):
        raise typer.BadParameter(f"`{action}` takes {'the NAME of a file' if name is None else 'no NAME'}.")
    with _local(config, data_dir, port) as agent:
        if action is CacheAction.LIST:
            _show_cache(agent.listing("api/v1/agent/cache"), json)
        elif action is CacheAction.VERIFY:
            answer = agent.send("POST", "api/v1/agent/cache/verify")
            show.said(answer, f"{answer['files']} files are read again; `agent status` shows what is wrong.", json=json)
        elif action is CacheAction.REMOVE:
            agent.send("DELETE", f"api/v1/agent/cache/{names.parts(str(name))}")
            show.said({"removed": name}, f"{name} is removed. {AGAIN}", json=json)
        else:
            clear = action is CacheAction.CLEAR
            answer = (
                agent.send("DELETE", "api/v1/agent/cache") if clear else agent.send("POST", "api/v1/agent/cache/evict")
            )
            done = f"{len(answer['evicted'])} files went, {answer['freed']} bytes are free."
            show.said(answer, f"{done} {AGAIN}" if clear else done, json=json)


def _show_cache(rows: list["Row"], json: bool) -> None:
    columns = {"NAME": "name", "BYTES": "size", "WANTED": "wanted", "DIGEST": "digest"}
    show.listing(rows, columns, json=json, empty="The cache is empty.")


@app.command()
def readiness(port: Port = None, data_dir: DataDir = None, config: Config = None, json: AsJson = False) -> None:
    """Show which machines this site could install without central, and what keeps it from the others."""
    columns = {
        "MAC": "mac_address",
        "HOSTNAME": "hostname",
        "STATE": "state",
        "WORKFLOW": "workflow",
        "READY": "ready",
        "WHY NOT": "reason",
    }
    with _local(config, data_dir, port) as agent:
        report = agent.get("api/v1/agent/readiness")
    if json:
        show.record(report, json=True)
        return
    if report["items"]:
        show.listing(report["items"], columns, json=False, empty="")
    show.tell(report["summary"])


@app.command()
def confirm_clock(port: Port = None, data_dir: DataDir = None, config: Config = None, json: AsJson = False) -> None:
    """Say that this host's clock is right, where a reboot left it in doubt: approved installs go by it again."""
    with _local(config, data_dir, port) as agent:
        answer = agent.send("POST", "api/v1/agent/clock/confirm")
    hours = answer["knowledge_age_seconds"] / 3600
    show.said(answer, f"Central was last heard out {hours:.1f} h ago, by this clock.", json=json)


@app.command()
def sync(port: Port = None, data_dir: DataDir = None, config: Config = None, json: AsJson = False) -> None:
    """Hear central out now, and fetch what approved machines need."""
    with _local(config, data_dir, port) as agent:
        answer = agent.send("POST", "api/v1/agent/sync")
    missing = f" Missing: {', '.join(answer['missing'])}." if answer["missing"] else ""
    show.said(
        answer, f"Heard central out: {answer['items']} changes, {answer['fetched']} files fetched.{missing}", json=json
    )


def _settings(config: Path | None, data_dir: Path | None, **flags: object) -> "AgentSettings":
    from pureboot.config.loading import load
    from pureboot.config.settings import AgentSettings

    return load(AgentSettings, file=config, data_dir=data_dir, **flags)


def _local(config: Path | None, data_dir: Path | None, port: int | None) -> AbstractContextManager["Remote"]:
    settings = _settings(config, data_dir, port=port)
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    url = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    return remote.site_agent(url, "" if _is_loopback(host) else _site_token(settings.data_dir))


def _is_loopback(host: str) -> bool:
    """There the agent asks for no token; while it does not run, whoever else listens need not see it."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _site_token(folder: Path) -> str:
    """What opens the agent where it listens on another address than the loopback."""
    try:
        return (folder / "admin-token").read_text(errors="replace").strip()
    except OSError:
        return ""
