"""`/metrics` of a site: read from the parts when asked, so that nothing is counted twice."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pureboot.agent.verification import Verifier
from pureboot.tftp.server import TftpServer
from pureboot.wire.messages import AgentMetrics


class SiteCollector(Collector):
    def __init__(
        self,
        collect: Callable[[], AgentMetrics],
        boots: Counter[tuple[str, str]],
        nodes: Callable[[], int],
        cache: Callable[[], tuple[int, int]],
        tftp: TftpServer,
        verifier: Verifier,
    ) -> None:
        self._collect, self._boots, self._nodes, self._cache = collect, boots, nodes, cache
        self._tftp, self._verifier = tftp, verifier

    def collect(self) -> Iterator[Metric]:
        now = self._collect()
        last = now.last_online_at.timestamp() if now.last_online_at else 0.0
        gauges = {
            "pureboot_agent_online": ("1 while central is reachable.", float(now.is_online)),
            "pureboot_agent_last_online_timestamp_seconds": ("Last word from central.", last),
            "pureboot_agent_offline_seconds": ("How long central has been away.", now.offline_duration_seconds),
            "pureboot_agent_queue_pending": ("Changes central does not know yet.", now.pending_queue_items),
            "pureboot_agent_queue_failed": ("Changes central refused or never took.", now.failed_queue_items),
            "pureboot_agent_conflicts_pending": ("Conflicts that wait to be settled.", now.conflicts_pending),
            "pureboot_agent_nodes": ("Nodes this site knows.", self._nodes()),
            "pureboot_agent_active_boots": ("Boot requests being answered.", now.active_boots),
            "pureboot_agent_cache_bytes": ("Content on disk.", now.cache_bytes),
            "pureboot_agent_installable_nodes": ("Nodes with a workflow.", now.readiness.total),
            "pureboot_agent_ready_nodes": ("Those it could install without central.", now.readiness.ready),
            "pureboot_agent_content_missing": ("Files it lacks for the others.", now.readiness.missing_total),
            "pureboot_agent_disk_free_bytes": ("Free space beside it.", now.disk_free_bytes),
            "pureboot_agent_tftp_active": ("TFTP transfers under way.", self._tftp.active),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        yield self._boot_counts()
        hits, misses = self._cache()
        yield CounterMetricFamily("pureboot_agent_cache_hits", "Files found on disk.", hits)
        yield CounterMetricFamily("pureboot_agent_cache_misses", "Files that had to be fetched.", misses)
        verifier = self._verifier
        yield CounterMetricFamily("pureboot_agent_cache_verified", "Kept files read again and good.", verifier.verified)
        yield CounterMetricFamily("pureboot_agent_cache_rotten", "Kept files that had rotted.", verifier.rotten)
        yield from self._tftp_counts()

    def _tftp_counts(self) -> Iterator[Metric]:
        tftp = self._tftp
        counters = {
            "transfers": ("Files sent whole.", tftp.transfers),
            "bytes": ("Bytes that clients acknowledged.", tftp.bytes_sent),
            "resends": ("Windows and answers sent again.", tftp.resends),
            "errors": ("Requests refused, transfers that failed or fell silent.", tftp.errors),
            "put_off": ("Requests beyond the limit of transfers, left for the client to repeat.", tftp.put_off),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"pureboot_agent_tftp_{name}", text, value)

    def _boot_counts(self) -> Metric:
        family = CounterMetricFamily("pureboot_agent_boots", "Boot scripts given out.", labels=["decision", "link"])
        for (decision, link), count in sorted(self._boots.copy().items()):
            family.add_metric([decision, link], count)
        return family


def registry_of(collector: SiteCollector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry
