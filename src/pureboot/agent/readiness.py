"""Which machines this site could install by itself, and what keeps it from the others: known before an outage."""

from collections.abc import Callable
from time import monotonic

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.offline_boot import OfflineBootGenerator
from pureboot.agent.site import SiteState
from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import MissingContent, NodeReadiness, ReadinessReport, ReadinessSummary

# Seconds for which a summary holds: everybody who watches a site asks for it.
FRESH = 5.0
# Names of missing content that a heartbeat carries.
NAMED = 20

_APPROVED = frozenset({NodeState.PENDING, NodeState.REPROVISION, NodeState.INSTALLING})


class Readiness:
    """Of the nodes that have a workflow. For one that is not approved the question is what would keep its install back
    if it were approved now."""

    def __init__(
        self,
        cache: NodeStateCache,
        site: SiteState,
        generator: OfflineBootGenerator,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._cache, self._site, self._generator, self._now = cache, site, generator, now
        self._summary = ReadinessSummary()
        self._summed_at = float("-inf")

    def report(self) -> ReadinessReport:
        """Costs a look at the disk for each file of a workflow, and a decision for each kind of node."""
        refusals: dict[object, str] = {}
        nodes = [self._node(node, refusals) for node in self._cache.nodes() if _counts(node)]
        workflows = {node.workflow_id: None for node in nodes}
        missing = {name: None for id in workflows for name in self._generator.missing(self._site.workflow(id))}
        named = list(missing)[:NAMED]
        summary = ReadinessSummary(
            ready=sum(node.ready for node in nodes), total=len(nodes), missing=named, missing_total=len(missing)
        )
        self._summary, self._summed_at = summary, self._now()
        return ReadinessReport(
            summary=summary.sentence(self._site.document.name if self._site.document else "of this agent"),
            ready=summary.ready,
            total=summary.total,
            missing=[self._content(name) for name in missing],
            items=sorted(nodes, key=lambda node: (node.ready, not node.approved, node.mac_address)),
        )

    def summary(self) -> ReadinessSummary:
        """At most a few seconds old."""
        if self._now() - self._summed_at > FRESH:
            self.report()
        return self._summary

    def _node(self, node: CachedNode, refusals: dict[object, str]) -> NodeReadiness:
        kind = (node.workflow_id, node.stage, node.disputed, node.begun)
        if kind not in refusals:
            refusals[kind] = self._generator.refusal_without_central(node)
        workflow = self._site.workflow(node.workflow_id)
        return NodeReadiness(
            node_id=node.node_id,
            mac_address=node.mac_address,
            hostname=node.hostname,
            state=node.state,
            workflow_id=node.workflow_id,
            workflow=workflow.name if workflow else "",
            approved=node.state in _APPROVED,
            ready=not refusals[kind],
            reason=refusals[kind],
        )

    def _content(self, name: str) -> MissingContent:
        document = self._site.content(name)
        return MissingContent(name=name, size=document.size if document else None)


def _counts(node: CachedNode) -> bool:
    return node.workflow_id is not None and node.state is not NodeState.RETIRED and not node.gone
