"""What templates know of a node, under the names of `rendering.language.VARIABLES`."""

from typing import Any

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.site import SiteState
from pureboot.core.node import FACT_NAMES, Workflow

# Of a template's address; what follows is a boot token and then the template's name.
TOKEN_PREFIX = "token/"


class Variables:
    def __init__(self, cache: NodeStateCache, site: SiteState) -> None:
        self._cache, self._site = cache, site

    def of(self, node: CachedNode, workflow: Workflow, base_url: str) -> dict[str, Any]:
        """`base_url`: the agent's, without a slash at its end."""
        facts = self._cache.database.store.read_now(lambda c: self._cache.facts(c, node.node_id))
        site = self._site.document
        return {
            "node": {
                **{name: facts.get(name, "") for name in FACT_NAMES},
                "id": node.node_id,
                "mac": node.mac_address,
                "mac_hyphens": node.mac_address.replace(":", "-"),
                "hostname": node.hostname,
                "attempt": str(node.attempt),
            },
            "site": {"id": site.id if site else "", "name": site.name if site else ""},
            "workflow": {"id": workflow.id, "name": workflow.name},
            "agent": {
                "url": base_url,
                "files": f"{base_url}/files",
                # In the path, because cloud-init adds names to it.
                "templates": f"{base_url}/templates/{TOKEN_PREFIX}{node.boot_token}",
                "report": f"{base_url}/api/v1/report",
            },
            "token": node.boot_token,
        }
