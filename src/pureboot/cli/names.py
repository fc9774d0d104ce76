"""People say names and MAC addresses; the API wants ids."""

from urllib.parse import quote

import typer

from pureboot.cli.remote import Remote, Row
from pureboot.core.errors import Clash, Malformed, NotFound
from pureboot.core.mac import MacAddress


def site(remote: Remote, said: str) -> Row:
    return _named(remote, "sites", said, "site")


def workflow(remote: Remote, said: str) -> Row:
    return _named(remote, "workflows", said, "workflow")


def node(remote: Remote, said: str) -> Row:
    mac = spelled(said)
    if mac is None:
        return remote.get(f"nodes/{part(said)}")
    rows = remote.listing("nodes", mac=mac)
    if not rows:
        raise NotFound(f"No node has the MAC address {mac}.", hint="`pureboot node list` shows all.")
    return rows[0]


def spelled(said: str) -> str | None:
    """A MAC address as it is kept, however it was said; None for what is none."""
    try:
        return str(MacAddress.parse(said))
    except Malformed:
        return None


def _named(remote: Remote, collection: str, said: str, kind: str) -> Row:
    rows = [row for row in remote.listing(collection) if said in (row["id"], row["name"])]
    if not rows:
        raise NotFound(f"There is no {kind} {said!r}.", hint=f"`pureboot {kind} list` shows all.")
    if len(rows) > 1:
        ids = ", ".join(row["id"] for row in rows)
        raise Clash(f"{len(rows)} {collection} are called {said!r}.", hint=f"Say which by its id: {ids}.")
    return rows[0]


def parts(said: str) -> str:
    return "/".join(map(part, said.split("/")))


def part(said: str) -> str:
    """Of a path, which it cannot lead elsewhere. Raises BadParameter; a shell passes bytes that are no text, too."""
    try:
        quoted = quote(said, safe="")
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{said!r} is no text in UTF-8.") from None
    if quoted in ("", ".", ".."):
        raise typer.BadParameter(f"{said!r} names nothing.")
    return quoted
