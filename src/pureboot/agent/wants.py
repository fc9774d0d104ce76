"""What content a site wants on its disk: by its cache policy, by what its nodes need, and for how long.

minimal    boot loaders and what approved installs need; all else when a machine asks for it
assigned   that, and what the workflows of the site's nodes need
pattern    that of `minimal`, and all names that match one of the site's patterns
mirror     all that central has
"""

from fnmatch import fnmatchcase

from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.site import SiteState
from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import CachePolicy, ContentCategory

GIB = 1024**3
DAY = 86_400.0

_APPROVED = (NodeState.PENDING, NodeState.REPROVISION, NodeState.INSTALLING)
# Times `cache_retention_days` that content may lie unused. Scripts and templates are small, and boot loaders stay.
_AGES = {ContentCategory.IMAGES: 1, ContentCategory.SCRIPTS: 4, ContentCategory.TEMPLATES: 4}


class Wants:
    """A view over what the site knows; it holds nothing. Names of content, without repeats."""

    def __init__(self, site: SiteState, nodes: NodeStateCache) -> None:
        self._site, self._nodes = site, nodes

    def pressing(self) -> list[str]:
        """Boot loaders, for without one nothing else is asked for; then what approved installs need. It is fetched at
        once, whatever the schedule says, and never evicted."""
        return list(dict.fromkeys([*self._site.boot_loaders(), *self._needed(_APPROVED)]))

    def ahead(self) -> list[str]:
        """All that the policy asks for before a machine does, in the order in which it is wanted."""
        return list(dict.fromkeys([*self.pressing(), *self._by_policy()]))

    def room(self) -> float:
        """Bytes that the site lets the cache take."""
        document = self._site.document
        return document.cache_max_size_gb * GIB if document else float("inf")

    def age(self, category: ContentCategory) -> float:
        """Seconds that content of a category may lie unused and unwanted."""
        if self._site.document is None or category not in _AGES:
            return float("inf")
        return _AGES[category] * self._site.document.cache_retention_days * DAY

    def _by_policy(self) -> list[str]:
        document = self._site.document
        match document.cache_policy if document else CachePolicy.ASSIGNED:
            case CachePolicy.ASSIGNED:
                return self._needed(tuple(NodeState))
            case CachePolicy.MIRROR:
                return [*self._needed(tuple(NodeState)), *self._site.content_names()]
            case CachePolicy.PATTERN if document:
                return [
                    n for n in self._site.content_names() if any(fnmatchcase(n, p) for p in document.cache_patterns)
                ]
        return []

    def _needed(self, states: tuple[NodeState, ...]) -> list[str]:
        workflow_ids = dict.fromkeys(node.workflow_id for node in self._nodes.nodes() if node.state in states)
        workflows = [self._site.workflow(workflow_id) for workflow_id in workflow_ids]
        return [name for workflow in workflows if workflow for name in workflow.content]
