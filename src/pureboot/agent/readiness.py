"""Which machines this site could install by itself, and what keeps it from the others: known before an outage."""

from collections.abc import Callable
from time import monotonic

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.offline_boot import WAITS, OfflineBootGenerator
from pureboot.agent.site import SiteState
from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import MissingContent, NodeReadiness, ReadinessReport, ReadinessSummary

# Seconds for which a summary holds: everybody who watches a site asks for it.
FRESH = 5.0
# Names of missing content that a heartbeat carries.
NAMED = 20
NO_WORKFLOW = "It is approved, but no workflow is assigned to it."

# A node, and why it would not be installed; "" where it would.
Judged = tuple[CachedNode, str]


class Readiness:
    """Of the nodes that have a workflow, or were approved without one. For one that is not approved the question is
    what would keep its install back if it were approved now."""

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
        """Each node, which costs more than counting them: for people who ask."""
        judged = self._judged()
        missing = self._missing(judged)
        summary = self._sum(judged, missing)
        nodes = [self._node(node, reason) for node, reason in judged]
        return ReadinessReport(
            summary=summary.sentence(self._site.document.name if self._site.document else "of this agent"),
            ready=summary.ready,
            total=summary.total,
            missing=[self._content(name) for name in missing],
            items=sorted(nodes, key=lambda node: (node.ready, not node.approved, node.mac_address)),
        )

    def summary(self) -> ReadinessSummary:
        """At most a few seconds old: each look at the health of a site asks for it."""
        if self._now() - self._summed_at > FRESH:
            judged = self._judged()
            self._sum(judged, self._missing(judged))
        return self._summary

    def _judged(self) -> list[Judged]:
        """The nodes that count, each with what keeps it; a decision for each kind of node, not for each."""
        refusals: dict[object, str] = {}
        judged = []
        for node in filter(_counts, self._cache.nodes()):
            kind = (node.workflow_id, node.stage, node.disputed, node.begun)
            if kind not in refusals:
                refusals[kind] = (
                    NO_WORKFLOW if node.workflow_id is None else self._generator.refusal_without_central(node)
                )
            judged.append((node, refusals[kind]))
        return judged

    def _sum(self, judged: list[Judged], missing: list[str]) -> ReadinessSummary:
        self._summary = ReadinessSummary(
            ready=sum(not reason for _, reason in judged),
            total=len(judged),
            missing=missing[:NAMED],
            missing_total=len(missing),
        )
        self._summed_at = self._now()
        return self._summary

    def _missing(self, judged: list[Judged]) -> list[str]:
        """Costs a look at the disk for each file of a workflow."""
        workflows = dict.fromkeys(node.workflow_id for node, _ in judged)
        names = (name for id in workflows for name in self._generator.missing(self._site.workflow(id)))
        return list(dict.fromkeys(names))

    def _node(self, node: CachedNode, reason: str) -> NodeReadiness:
        workflow = self._site.workflow(node.workflow_id)
        return NodeReadiness(
            node_id=node.node_id,
            mac_address=node.mac_address,
            hostname=node.hostname,
            state=node.state,
            workflow_id=node.workflow_id,
            workflow=workflow.name if workflow else "",
            approved=node.state in WAITS,
            ready=not reason,
            reason=reason,
        )

    def _content(self, name: str) -> MissingContent:
        document = self._site.content(name)
        return MissingContent(name=name, size=document.size if document else None)


def _counts(node: CachedNode) -> bool:
    is_meant = node.workflow_id is not None or node.state in WAITS
    return is_meant and node.state is not NodeState.RETIRED and not node.gone
