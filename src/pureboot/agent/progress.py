"""When an install attempt has begun: its machine has every file it boots from, under the attempt's own token."""

from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.journal import Journal
from pureboot.agent.site import SiteState


class InstallProgress:
    """What was handed over is kept in memory until it is all: a machine that lost power after its kernel gets the same
    attempt again, as it does when this agent restarted in between."""

    def __init__(self, cache: NodeStateCache, site: SiteState, journal: Journal) -> None:
        self._cache, self._site, self._journal = cache, site, journal
        self._handed: dict[str, set[str]] = {}

    async def served(self, boot_token: str, name: str) -> None:
        """The whole of `name` has reached the machine that showed `boot_token`."""
        node = self._cache.by_token(boot_token)
        workflow = self._site.workflow(node.workflow_id) if node else None
        if node is None or workflow is None or self._journal.has_begun(node):
            return
        handed = self._handed.setdefault(boot_token, set())
        handed.add(name)
        if handed.issuperset(workflow.boots):
            del self._handed[boot_token]
            await self._journal.mark_begun(boot_token)
