"""What is ready beforehand is, byte for byte, what would be made when it is asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.observations import Observations
from pureboot.agent.offline_boot import OfflineBootGenerator
from pureboot.agent.ready_scripts import ReadyScripts
from pureboot.core.lifecycle import Autonomy, NodeState
from tests.fakes import FakeCentral
from tests.support.parts import MAC, OTHER_MAC, Parts, opened

S = NodeState
WAITS = (S.PENDING, S.REPROVISION, S.INSTALLING)


@dataclass
class Both:
    parts: Parts
    link: ConnectivityMonitor
    generator: OfflineBootGenerator
    observations: Observations
    ready: ReadyScripts
    central: FakeCentral

    async def agree(self, mac: str = MAC) -> str:
        """The script, which both give."""
        quick = self.ready.script(mac)
        assert quick is not None
        assert quick.decode() == await self.generator.generate_script(mac, {"platform": "efi"}, base_url="http://a")
        return quick.decode()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    central = FakeCentral()
    with opened(tmp_path / "agent.db") as parts:
        link = ConnectivityMonitor("http://central", failure_threshold=1, transport=central, now=parts.clock.when)
        observations = Observations(parts.journal)
        generator = OfflineBootGenerator(
            parts.cache,
            ContentCache(tmp_path / "cache", 2**20),
            "attic",
            site=parts.site,
            journal=parts.journal,
            connectivity=link,
            observations=observations,
        )
        ready = ReadyScripts(parts.cache, parts.site, link, observations, generator)
        yield Both(parts, link, generator, observations, ready, central)


@pytest.mark.parametrize("state", [state for state in S if state not in WAITS])
async def test_it_is_what_the_boot_service_would_say(both: Both, state: NodeState) -> None:
    await both.parts.knows("n1", MAC, state=state)
    await both.agree()
    await both.link.check_connectivity()
    await both.agree()


@pytest.mark.parametrize("state", WAITS)
async def test_what_may_be_an_install_is_never_ready(both: Both, state: NodeState) -> None:
    await both.parts.knows("n1", MAC, state=state, attempt=int(state is S.INSTALLING))
    assert both.ready.script(MAC) is None


@pytest.mark.parametrize("mac", ["52:54:00:00:00:99", "", "x", "../boot.ipxe", "00:00:00:00:00:00"])
async def test_who_is_not_known_is_left_to_the_app(both: Both, mac: str) -> None:
    await both.parts.knows("n1", MAC, state=S.ACTIVE)
    assert both.ready.script(mac) is None


async def test_each_machine_has_its_own_mac_however_it_spells_it(both: Both) -> None:
    await both.parts.knows("n1", MAC, state=S.ACTIVE)
    await both.parts.knows("n2", OTHER_MAC, state=S.ACTIVE)
    assert MAC in await both.agree(MAC.replace(":", "-").upper())
    assert OTHER_MAC in await both.agree(OTHER_MAC)


async def test_what_changes_shows_at_once(both: Both) -> None:
    await both.parts.knows("n1", MAC, state=S.ACTIVE)
    first = await both.agree()
    await both.link.check_connectivity()
    assert "OFFLINE" in first
    assert "STALE" not in await both.agree()
    both.parts.clock.advance(3600)
    assert "STALE" in await both.agree()
    both.central.all("refuses")
    await both.link.check_connectivity()
    offline = await both.agree()
    await both.parts.has_autonomy(Autonomy.FULL)
    await both.parts.knows("n1", MAC, state=S.INSTALLED, version=2)
    assert "installed" in await both.agree()
    assert offline != await both.agree()
    await both.parts.knows("n1", MAC, state=S.PENDING, version=3)
    assert both.ready.script(MAC) is None
    await both.parts.knows("n1", MAC, state=S.RETIRED, version=4)
    assert "exit 1" in await both.agree()


async def test_local_boot_of_site_and_node_count(both: Both) -> None:
    await both.parts.knows("n1", MAC, state=S.ACTIVE)
    await both.parts.has_autonomy(Autonomy.LIMITED, local_boot="exit")
    assert "sanboot" not in await both.agree()
    await both.parts.knows("n1", MAC, state=S.ACTIVE, version=2, local_boot="sanboot")
    assert "sanboot" in await both.agree()
    await both.parts.knows("n1", MAC, state=S.ACTIVE, version=3, local_boot="http-404")
    assert both.ready.script(MAC) is None


async def test_a_site_whose_name_is_odd_gets_its_scripts_all_the_same(both: Both) -> None:
    await both.parts.has_autonomy(Autonomy.LIMITED, description="@MAC@")
    await both.parts.knows("n1", MAC, state=S.ACTIVE)
    document = both.parts.site.document
    assert document
    await both.parts.database.store.write(
        lambda tx: both.parts.site.set_site(tx, document.model_copy(update={"name": "@MAC@ @MAC@"}))
    )
    assert both.ready.script(MAC) is None
    assert "@MAC@" in await both.generator.generate_script(MAC)


async def test_it_counts_as_a_boot(both: Both) -> None:
    await both.parts.knows("n1", MAC, state=S.ACTIVE)
    assert both.ready.script(MAC)
    assert sum(both.generator.boots.counts.values()) == 1
    assert both.observations.seen_last_hour == 1
