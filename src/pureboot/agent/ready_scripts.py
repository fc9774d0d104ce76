"""Boot scripts that are ready before they are asked for: a whole site powers on at once, and nearly all boot disks.

The script of a machine that boots its disk differs from another's by its MAC alone. So one is rendered for each kind of
node, and taken apart where the MAC stands; that is kept until anything it shows has changed. All else goes to the app.
"""

import logging
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.observations import Observations
from pureboot.agent.offline_boot import OfflineBootGenerator
from pureboot.agent.site import SiteState
from pureboot.core.boot import Decision
from pureboot.core.ipxe import Link

log = logging.getLogger(__name__)

_PATH = "/boot/"
# Stands for the MAC while a script is rendered. What is no MAC cannot be in a script by accident.
_PLACE = "@MAC@"


@dataclass(frozen=True, slots=True)
class _Script:
    before: bytes
    after: bytes
    decision: Decision


class ReadyScripts:
    """`script` gives the same bytes as the boot service would, or None."""

    def __init__(
        self,
        nodes: NodeStateCache,
        site: SiteState,
        link: ConnectivityMonitor,
        observations: Observations,
        generator: OfflineBootGenerator,
    ) -> None:
        self._nodes, self._site, self._link = nodes, site, link
        self._observations, self._generator = observations, generator
        self._scripts: dict[tuple[object, ...], _Script | None] = {}
        self._shown: tuple[object, ...] = ()

    def script(self, mac: str) -> bytes | None:
        """Counts as a boot. A node is one that is known by this MAC."""
        # As iPXE spells it, and as we do. Reading every spelling costs as much as all the rest; the app does that.
        written = mac.replace("-", ":").lower()
        node, link = self._nodes.by_written_mac(written), self._generator.link()
        if node is None or (script := self._of(node, link)) is None:
            return None
        self._observations.saw(node.node_id)
        self._generator.boots.add(written, node, script.decision, link)
        return script.before + written.encode() + script.after

    def _of(self, node: CachedNode, link: Link) -> _Script | None:
        """What a script shows beside its node: all of these are replaced, never changed, so that what is kept is known
        to hold by looking whether they are still the same."""
        shown = (self._site.document, self._site.last_pass, self._link.last_online_at, link)
        if shown != self._shown:
            self._scripts, self._shown = {}, shown
        kind = (node.state, node.attempt, node.disputed, node.local_boot)
        if kind not in self._scripts:
            self._scripts[kind] = self._rendered(node, link)
        return self._scripts[kind]

    def _rendered(self, node: CachedNode, link: Link) -> _Script | None:
        simple = self._generator.simple_script(node, _PLACE, link)
        if simple is None:
            return None
        text, decision = simple
        before, _, after = text.partition(_PLACE)
        return None if _PLACE in after or not after else _Script(before.encode(), after.encode(), decision)


class QuickBoots:
    """Ahead of the app: `GET /boot/{mac}` of a machine whose script is ready never comes as far."""

    def __init__(self, app: ASGIApp, ready: ReadyScripts) -> None:
        self._app, self._ready = app, ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = None
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(_PATH):
            try:
                body = self._ready.script(scope["path"][len(_PATH) :])
            except Exception:  # the app has an answer for that, too
                log.exception("no script was ready")
        if body is None:
            await self._app(scope, receive, send)
            return
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
