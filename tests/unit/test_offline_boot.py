"""Boot scripts from what the site holds (user's contract, task 3). The scripts themselves stand in tests/golden."""

import asyncio
import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent import offline_boot
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.offline_boot import NoScript, OfflineBootGenerator
from pureboot.agent.queue import QueueItem
from pureboot.core.errors import Clash, Malformed, StorageFull
from pureboot.core.lifecycle import Autonomy, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import ContentDocument, FeedItem, WorkflowDocument
from tests.fakes import FakeCentral
from tests.support.link import linked
from tests.support.parts import EPOCH, MAC, OTHER_MAC, Parts, node_item, opened, page

S = NodeState
LOCAL_DISK = "sanboot --no-describe --drive 0x80 || exit 1"
FILES = {"images/debian/linux": b"a kernel", "images/debian/initrd": b"an initrd"}
DAY = 24 * 3600.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


@pytest.fixture
def content(tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache", 10**6)


def generator(parts: Parts, content: ContentCache, action: str = "local", **more: Any) -> OfflineBootGenerator:
    """Of a site that central cannot be reached from."""
    return OfflineBootGenerator(parts.cache, content, "attic", action, site=parts.site, journal=parts.journal, **more)


async def holds(parts: Parts, content: ContentCache, *names: str) -> None:
    """Central has told of the workflow and its files; `names` of them are here."""
    workflow = WorkflowDocument(
        id="w1",
        name="debian",
        kernel="images/debian/linux",
        initrd=["images/debian/initrd"],
        cmdline="auto=true",
        version=1,
        created_at=EPOCH,
        updated_at=EPOCH,
    )
    items = [FeedItem(pos=1, type="workflow", op="upsert", id="w1", doc=workflow.model_dump(mode="json"))]
    for name, bytes_ in FILES.items():
        category, _, path = name.partition("/")
        digest = f"sha256:{hashlib.sha256(bytes_).hexdigest()}"
        document = ContentDocument(
            category=category, path=path, digest=digest, size=len(bytes_), version=1, updated_at=EPOCH
        )
        items.append(FeedItem(pos=1, type="content", op="upsert", id=name, doc=document.model_dump(mode="json")))
        if name in names:
            async with content.landing(name, len(bytes_)) as landing:
                landing.write_bytes(bytes_)
                await content.put(name, landing, digest)
    await parts.reads(page(*items))


async def approved(parts: Parts, content: ContentCache, level: Autonomy = Autonomy.LIMITED, *names: str) -> None:
    await parts.has_autonomy(level)
    await holds(parts, content, *(names or FILES))
    await parts.reads(page(node_item("n1", MAC, state=S.PENDING, workflow_id="w1")))


def state_shown(script: str) -> str:
    return str(re.findall(r"^# Cached State: (.*)$", script, re.MULTILINE)[0])


def is_install(script: str) -> bool:
    return "\nboot || goto failed\n" in script


def token_of(script: str) -> str:
    (token,) = set(re.findall(r"pureboot\.token=(\S+)", script))
    return str(token)


# The user's contract


async def test_generate_from_cached_node(tmp_path: Path, content: ContentCache) -> None:
    """Built as the contract builds it."""
    cache = NodeStateCache(tmp_path / "cache.db")
    await cache.initialize()
    await cache.cache_node(CachedNode("n1", MAC, S.ACTIVE))
    script = await OfflineBootGenerator(cache, content, "attic").generate_script(MAC.upper())
    assert script.startswith("#!ipxe\n")
    assert (state_shown(script), script.count(LOCAL_DISK)) == ("active", 1)
    assert f"# MAC: {MAC}" in script
    assert "# Site: attic" in script
    cache.database.close()


async def test_generate_for_unknown_node(parts: Parts, content: ContentCache) -> None:
    script = await generator(parts, content).generate_script(MAC, {"manufacturer": "QEMU", "serial": "42"})
    assert LOCAL_DISK in script
    assert "It is not known here." in script
    (item,) = await parts.waiting()  # recorded, for central to approve
    assert item.payload["facts"] == {"vendor": "QEMU", "serial_number": "42"}
    assert item.payload["mac_addresses"] == [MAC]


async def test_generate_discovery_script(parts: Parts, content: ContentCache) -> None:
    facts = {"uuid": "ab-cd", "product": "pc", "buildarch": "x86_64", "platform": "efi", "ip_address": "10.0.0.9"}
    script = await generator(parts, content, "discovery").generate_script(MAC, facts)
    assert "Proceeding with discovery, then local disk..." in script
    assert "It is new here and waits to be approved." in script
    assert LOCAL_DISK in script
    (item,) = await parts.waiting()
    assert item.payload["facts"] == {
        "system_uuid": "ab-cd",
        "model": "pc",
        "architecture": "x86_64",
        "platform": "efi",
        "ip_address": "10.0.0.9",
    }


@pytest.mark.parametrize("state", [state for state in S if state not in (S.PENDING, S.REPROVISION, S.RETIRED)])
async def test_generate_local_boot(parts: Parts, content: ContentCache, state: NodeState) -> None:
    """Nothing but an approval, with all it needs, ever does anything but boot the machine's own disk."""
    await parts.knows(state=state)
    script = await generator(parts, content).generate_script(MAC)
    assert LOCAL_DISK in script
    assert not is_install(script)
    assert await parts.waiting() == []


async def test_offline_indicator_in_script(parts: Parts, content: ContentCache) -> None:
    await parts.has_autonomy(Autonomy.LIMITED)
    await parts.knows(state=S.ACTIVE)
    async with linked(parts, FakeCentral()) as link:
        boots = generator(parts, content, connectivity=link.connectivity)
        never = await boots.generate_script(MAC)
        assert "# PureBoot Agent - OFFLINE MODE" in never
        assert "# Offline Since: never online" in never
        await link.connectivity.check_connectivity()
        online = await boots.generate_script(MAC)
        assert "OFFLINE" not in online
        parts.clock.advance(301)
        assert "STALE" in await boots.generate_script(MAC)
    offline = await generator(parts, content).generate_script(MAC)
    for line in (
        "echo *** PureBoot Site Agent - OFFLINE ***",
        "echo   Central controller is unreachable.",
        "echo   Operating from cached state.",
        "echo   Node state: active",
        "echo   Last sync: 2026-01-28T12:00:00Z",
        "echo   Proceeding with local disk...",
    ):
        assert line in offline.splitlines()


# Installs


@pytest.mark.parametrize("level", [Autonomy.LIMITED, Autonomy.FULL])
async def test_an_approved_machine_installs_from_the_site_alone(
    parts: Parts, content: ContentCache, level: Autonomy
) -> None:
    await approved(parts, content, level)
    script = await generator(parts, content).generate_script(MAC, base_url="http://10.0.0.1:8080")
    token = token_of(script)
    fetched = re.findall(r"^(kernel|initrd) .*?(http\S+)", script, re.MULTILINE)
    assert fetched == [
        ("kernel", f"http://10.0.0.1:8080/files/images/debian/linux?token={token}"),
        ("initrd", f"http://10.0.0.1:8080/files/images/debian/initrd?token={token}"),
    ]
    assert parts.node().stage == Stage(S.INSTALLING, 1)
    assert parts.node().boot_token == token
    (item,) = await parts.waiting()
    assert (item.payload["from_state"], item.payload["to_state"], item.payload["attempt"]) == (
        "pending",
        "installing",
        1,
    )


async def test_what_a_script_stands_on_is_on_disk_before_it_is_served(
    parts: Parts, content: ContentCache, tmp_path: Path
) -> None:
    await approved(parts, content)
    token = token_of(await generator(parts, content).generate_script(MAC))
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert (again.node().stage, again.node().boot_token) == (Stage(S.INSTALLING, 1), token)
        same = await generator(again, content).generate_script(MAC)
        assert (token_of(same), again.node().attempt) == (token, 1)


async def test_an_install_that_cannot_be_committed_is_not_begun(parts: Parts, content: ContentCache) -> None:
    await approved(parts, content)
    await parts.database.store.write(lambda tx: tx.execute(REFUSE_ITEMS))
    with pytest.raises(sqlite3.IntegrityError, match="refused"):
        await generator(parts, content).generate_script(MAC)
    assert parts.node().stage == Stage(S.PENDING)


async def test_a_full_disk_boots_disks_and_begins_nothing(parts: Parts, content: ContentCache) -> None:
    await approved(parts, content)
    await leave_no_room(parts)
    script = await generator(parts, content).generate_script(MAC)
    assert "There is no space left" in script
    assert LOCAL_DISK in script
    assert parts.node().stage == Stage(S.PENDING)
    assert {item.lane for item in await parts.waiting()} == {"other"}


async def leave_no_room(parts: Parts) -> None:
    """The file may not grow, and the last page of the outbox is filled up."""
    await parts.database.store.write(
        lambda tx: tx.execute(f"PRAGMA max_page_count = {tx.execute('PRAGMA page_count').fetchone()[0]}")
    )
    with contextlib.suppress(StorageFull):
        for n in range(10_000):
            item = QueueItem(id=f"{n}", item_type="event", payload={}, created_at=EPOCH, lane="other")
            await parts.queue.enqueue(item)


REFUSE_ITEMS = "CREATE TRIGGER refuse BEFORE INSERT ON sync_queue BEGIN SELECT RAISE (ABORT, 'refused'); END"


async def test_firmware_that_asks_again_gets_the_same_attempt(parts: Parts, content: ContentCache) -> None:
    await approved(parts, content)
    boots = generator(parts, content)
    scripts = await asyncio.gather(*(boots.generate_script(MAC) for _ in range(10)))
    assert len({token_of(script) for script in scripts}) == 1
    assert (parts.node().attempt, parts.queue.pending_count) == (1, 1)


async def test_a_machine_that_comes_back_unfinished_fails_at_the_third_time(
    parts: Parts, content: ContentCache
) -> None:
    await approved(parts, content)
    boots = generator(parts, content)
    for attempt in (1, 2, 3):
        script = await boots.generate_script(MAC)
        assert f"attempt {attempt}" in script
        await parts.journal.mark_begun(token_of(script))
    script = await boots.generate_script(MAC)
    assert LOCAL_DISK in script
    assert not is_install(script)
    assert parts.node().stage == Stage(S.INSTALL_FAILED, 3)
    assert [i.payload["to_state"] for i in await parts.waiting()] == ["installing"] * 3 + ["install_failed"]


async def approved_from_elsewhere(parts: Parts) -> None:
    workflow = WorkflowDocument(
        id="w1",
        name="vendor",
        install_method="chain",
        boot_url="http://mirror.example/install.ipxe",
        version=1,
        created_at=EPOCH,
        updated_at=EPOCH,
    )
    await parts.has_autonomy(Autonomy.FULL)
    told = FeedItem(pos=1, type="workflow", op="upsert", id="w1", doc=workflow.model_dump(mode="json"))
    await parts.reads(page(told, node_item("n1", MAC, state=S.PENDING, workflow_id="w1")))


@pytest.mark.parametrize("step", [timedelta(hours=-2), timedelta(0), timedelta(hours=2)], ids=str)
async def test_what_is_fetched_elsewhere_has_begun_after_a_minute_whatever_is_done_to_the_wall_clock(
    parts: Parts, content: ContentCache, monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Stepped":
            return cls.fromtimestamp((datetime.now(UTC) + step).timestamp(), tz)

    await approved_from_elsewhere(parts)
    boots = generator(parts, content)
    await boots.generate_script(MAC)
    monkeypatch.setattr(offline_boot, "datetime", Stepped)
    for seconds, attempt in ((30, 1), (29, 1), (15 * 60, 2), (15 * 60, 3)):
        parts.clock.advance(seconds)
        assert "chain " in await boots.generate_script(MAC)
        assert parts.node().stage == Stage(S.INSTALLING, attempt)
    parts.clock.advance(15 * 60)
    assert LOCAL_DISK in await boots.generate_script(MAC)
    assert parts.node().stage == Stage(S.INSTALL_FAILED, 3)


@pytest.mark.parametrize(("served", "attempt"), [(-30, 1), (-120, 2), (7200, 2)])
async def test_of_what_an_earlier_life_served_a_clock_that_was_set_back_makes_no_loop(
    parts: Parts, content: ContentCache, served: float, attempt: int
) -> None:
    """`served`: when that was, in seconds from now."""
    await approved_from_elsewhere(parts)
    await generator(parts, content).generate_script(MAC)
    when = datetime.now(UTC) + timedelta(seconds=served)
    await parts.cache.cache_node(replace(parts.node(), updated_at=when))
    await generator(parts, content).generate_script(MAC)
    assert parts.node().stage == Stage(S.INSTALLING, attempt)


@pytest.mark.parametrize(
    ("level", "held", "hours", "reason"),
    [
        (Autonomy.READONLY, tuple(FILES), 0, "this site may start none without central (readonly)"),
        (Autonomy.LIMITED, ("images/debian/linux",), 0, "content is missing here: images/debian/initrd"),
        (Autonomy.FULL, ("images/debian/initrd",), 0, "content is missing here: images/debian/linux"),
        (Autonomy.LIMITED, tuple(FILES), 25, "central last said so 25.0 h ago, and the limit is 24 h"),
    ],
    ids=["readonly", "initrd missing", "kernel missing", "too old"],
)
async def test_an_install_that_has_to_wait_says_why_and_boots_the_disk(
    parts: Parts, content: ContentCache, level: Autonomy, held: tuple[str, ...], hours: float, reason: str
) -> None:
    await approved(parts, content, level, *held)
    parts.clock.advance(hours * 3600)
    script = await generator(parts, content).generate_script(MAC)
    assert reason in script
    assert LOCAL_DISK in script
    assert not is_install(script)
    assert (parts.node().stage, await parts.waiting()) == (Stage(S.PENDING), [])


async def test_a_full_site_installs_however_old_the_approval_is(parts: Parts, content: ContentCache) -> None:
    await approved(parts, content, Autonomy.FULL)
    parts.clock.advance(300 * DAY)
    assert is_install(await generator(parts, content).generate_script(MAC))


@pytest.mark.parametrize(("hours", "installs"), [(-1, False), (1, True), (25, False)])
async def test_after_a_reboot_the_wall_clock_serves_where_it_can_be_trusted(
    parts: Parts, content: ContentCache, tmp_path: Path, hours: float, installs: bool
) -> None:
    await approved(parts, content)
    await parts.database.store.write(parts.site.keep_clock)
    parts.database.close()
    parts.clock.reboot(hours * 3600)
    with opened(tmp_path / "agent.db", parts.clock) as again:
        script = await generator(again, content).generate_script(MAC)
    assert is_install(script) is installs
    assert ("clock unknown" in script) is (hours < 0)


async def test_what_the_clock_told_at_the_start_holds_whatever_is_done_to_it_later(
    parts: Parts, content: ContentCache, tmp_path: Path
) -> None:
    await approved(parts, content)
    await parts.database.store.write(parts.site.keep_clock)
    parts.database.close()
    parts.clock.reboot(25 * 3600)
    for step in (-20 * 3600, -20 * 3600):
        with opened(tmp_path / "agent.db", parts.clock) as again:
            again.clock.set_wall(step)
            await again.database.store.write(again.site.keep_clock)
            assert "the limit is 24 h" in await generator(again, content).generate_script(MAC)


async def test_a_clock_once_distrusted_is_not_trusted_after_a_restart(
    parts: Parts, content: ContentCache, tmp_path: Path
) -> None:
    await approved(parts, content)
    await parts.database.store.write(parts.site.keep_clock)
    parts.database.close()
    parts.clock.reboot(-3600)
    for _ in range(2):
        with opened(tmp_path / "agent.db", parts.clock) as again:
            await again.database.store.write(again.site.keep_clock)
            assert "clock unknown" in await generator(again, content).generate_script(MAC)
        parts.clock.set_wall(7200)


async def test_a_person_confirms_a_clock_that_is_right(parts: Parts, content: ContentCache, tmp_path: Path) -> None:
    await approved(parts, content)
    await parts.database.store.write(parts.site.keep_clock)
    parts.database.close()
    parts.clock.reboot(-3600)
    with opened(tmp_path / "agent.db", parts.clock) as again:
        assert "confirm-clock" in again.site.clock_problem
        with pytest.raises(Clash, match="but central was last heard out at"):
            await again.site.confirm_clock()
        again.clock.set_wall(2 * 3600)
        assert await again.site.confirm_clock() == pytest.approx(3600, abs=60)
        assert again.site.clock_problem == ""
    with opened(tmp_path / "agent.db", parts.clock) as after:
        assert generator(after, content).may_install(after.node())
        after.clock.advance(24 * 3600)
        assert "the limit is 24 h" in await generator(after, content).generate_script(MAC)
        assert await after.site.confirm_clock() > 24 * 3600  # no way around the limit


async def test_a_file_that_changed_at_central_is_not_the_one_that_is_here(parts: Parts, content: ContentCache) -> None:
    await approved(parts, content)
    newer = ContentDocument(
        category="images", path="debian/linux", digest="sha256:" + "0" * 64, size=8, version=2, updated_at=EPOCH
    )
    await parts.reads(
        page(FeedItem(pos=9, type="content", op="upsert", id=newer.name, doc=newer.model_dump(mode="json")))
    )
    assert "content is missing here" in await generator(parts, content).generate_script(MAC)


async def test_a_disputed_machine_is_not_touched(parts: Parts, content: ContentCache) -> None:
    await approved(parts, content)
    node = parts.node()
    await parts.cache.cache_node(
        CachedNode(node.node_id, MAC, node.state, workflow_id="w1", base_version=1, conflict_id="c1")
    )
    script = await generator(parts, content).generate_script(MAC)
    assert "Site and central disagree about this node" in script
    assert LOCAL_DISK in script
    assert await parts.waiting() == []


async def test_a_retired_machine_goes_to_its_next_device(parts: Parts, content: ContentCache) -> None:
    await parts.knows(state=S.RETIRED)
    script = await generator(parts, content).generate_script(MAC)
    assert script.rstrip().endswith("exit 1")
    assert "sanboot" not in script


# Machines nobody knows


@pytest.mark.parametrize(
    ("state", "shown"),
    [(S.INSTALLED, LOCAL_DISK), (S.PENDING, LOCAL_DISK), (S.RETIRED, "exit 1")],
)
async def test_last_known_never_installs_and_records_nothing(
    parts: Parts, content: ContentCache, state: NodeState, shown: str
) -> None:
    await holds(parts, content, *FILES)
    await parts.knows(state=state, workflow_id="w1")
    await parts.reads(page(FeedItem(pos=2, type="node", op="delete", id="n1", version=2)))
    script = await generator(parts, content, "last_known").generate_script(MAC)
    assert script.rstrip().endswith(shown)
    assert not is_install(script)
    assert await parts.waiting() == []


async def test_a_setting_of_the_site_overrides_the_agents_own(parts: Parts, content: ContentCache) -> None:
    await parts.has_autonomy(Autonomy.LIMITED, offline_default_action="discovery")
    assert "discovery" in await generator(parts, content, "local").generate_script(MAC)


async def test_a_flood_of_new_machines_boots_its_disks_unrecorded(tmp_path: Path, content: ContentCache) -> None:
    with opened(tmp_path / "few.db", registrations_per_minute=2) as parts:
        boots = generator(parts, content)
        scripts = [await boots.generate_script(f"52:54:00:00:00:0{n}") for n in range(1, 6)]
        assert all(LOCAL_DISK in script for script in scripts)
        assert parts.cache.count() == 2


async def test_two_spellings_of_one_mac_are_one_machine(parts: Parts, content: ContentCache) -> None:
    boots = generator(parts, content)
    for spelling in (MAC, MAC.replace(":", "-").upper(), MAC.replace(":", "")):
        await boots.generate_script(spelling)
    assert (parts.cache.count(), parts.queue.pending_count) == (1, 1)
    with pytest.raises(Malformed):
        await boots.generate_script("nonsense")


@pytest.mark.parametrize("value", ["${cmd}", "a\nreboot", "x\r\n#!ipxe\nchain http://evil", "'; rm", "\x00" * 5000])
async def test_what_machines_say_of_themselves_stays_text(parts: Parts, content: ContentCache, value: str) -> None:
    boots = generator(parts, content)
    quiet = await boots.generate_script(OTHER_MAC)
    loud = await boots.generate_script(MAC, dict.fromkeys(["uuid", "serial", "manufacturer", "product"], value))
    assert loud.replace(MAC, OTHER_MAC) == quiet


async def test_boots_are_counted_by_what_was_decided(parts: Parts, content: ContentCache) -> None:
    await parts.knows(state=S.RETIRED)
    boots = generator(parts, content)
    await boots.generate_script(MAC)
    await boots.generate_script(OTHER_MAC)
    await boots.generate_script(OTHER_MAC)
    assert dict(boots.boots.counts) == {("Halt", "offline"): 1, ("LocalDisk", "offline"): 2}


def test_a_default_action_nobody_knows_stops_the_start(tmp_path: Path, content: ContentCache) -> None:
    with opened(tmp_path / "agent.db") as parts, pytest.raises(ValueError, match="reinstall"):
        generator(parts, content, "reinstall")


# Waiting for central, inside the budget


async def test_an_unknown_machine_is_asked_about_while_central_answers(parts: Parts, content: ContentCache) -> None:
    central = FakeCentral()
    await approved(parts, content)
    central.add("n2", OTHER_MAC, S.ACTIVE)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        boots = generator(parts, content, connectivity=link.connectivity, proxy=link.proxy)
        script = await boots.generate_script(OTHER_MAC)
    assert state_shown(script) == "active"
    here = parts.cache.by_mac(MacAddress.parse(OTHER_MAC))
    assert here is not None
    assert here.node_id == "n2"


async def test_that_central_answers_makes_no_approval_younger(parts: Parts, content: ContentCache) -> None:
    """After an outage of a day it is its feed that says whether the approval stands."""
    await approved(parts, content)
    parts.clock.advance(25 * 3600)
    async with linked(parts, FakeCentral()) as link:
        await link.connectivity.check_connectivity()
        boots = generator(parts, content, connectivity=link.connectivity, proxy=link.proxy)
        script = await boots.generate_script(MAC)
        assert "central last said so 25.0 h ago" in script
        assert not is_install(script)
        assert not boots.may_install(parts.node())
        await parts.reads(page())
        assert is_install(await boots.generate_script(MAC))


async def test_a_short_limit_of_an_approvals_age_is_one_of_outages(parts: Parts, content: ContentCache) -> None:
    """A feed that is read all the time says something every 25 s only."""
    await approved(parts, content)
    await parts.has_autonomy(Autonomy.LIMITED, offline_install_max_age=5.0)
    parts.clock.advance(60)
    assert "the limit is" in await generator(parts, content).generate_script(MAC)
    async with linked(parts, FakeCentral()) as link:
        await link.connectivity.check_connectivity()
        boots = generator(parts, content, connectivity=link.connectivity, proxy=link.proxy)
        assert is_install(await boots.generate_script(MAC))


async def test_what_central_says_of_an_unknown_machine_is_new_though_its_feed_was_not_read(
    parts: Parts, content: ContentCache
) -> None:
    await approved(parts, content)
    parts.clock.advance(25 * 3600)
    central = FakeCentral()
    central.add("n2", OTHER_MAC, S.PENDING, workflow_id="w1")
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        boots = generator(parts, content, connectivity=link.connectivity, proxy=link.proxy)
        assert is_install(await boots.generate_script(OTHER_MAC))
        assert not is_install(await boots.generate_script(MAC))


async def test_a_readonly_site_installs_what_central_confirms_in_time(parts: Parts, content: ContentCache) -> None:
    central = FakeCentral()
    await approved(parts, content, Autonomy.READONLY)
    central.add("n1", MAC, S.PENDING, workflow_id="w1")
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        boots = generator(parts, content, connectivity=link.connectivity, proxy=link.proxy, confirm_budget=0.05)
        late = await boots.generate_script(MAC)
        assert "central did not confirm the install in time" in late
        assert parts.node().stage == Stage(S.PENDING)
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        in_time = await boots.generate_script(MAC)
        assert is_install(in_time)
        assert token_of(in_time) == parts.node().boot_token
    assert central.nodes["n1"].stage == Stage(S.INSTALLING, 1)


async def test_an_unknown_machine_waits_no_longer_than_the_budget(parts: Parts, content: ContentCache) -> None:
    central = FakeCentral()
    async with linked(parts, central, patience=60) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        central.all("hangs")
        boots = generator(parts, content, connectivity=link.connectivity, proxy=link.proxy, confirm_budget=0.05)
        async with asyncio.timeout(5):
            script = await boots.generate_script(MAC)
        assert LOCAL_DISK in script
        assert not link.connectivity.may_wait


async def test_an_unknown_machine_does_not_wait_for_a_central_that_takes_no_pushes(
    parts: Parts, content: ContentCache
) -> None:
    central = FakeCentral()
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        central.push = "busy"
        await parts.journal.register(MacAddress.parse(OTHER_MAC), facts={})
        await link.processor.process_queue()
        boots = generator(parts, content, connectivity=link.connectivity, proxy=link.proxy, confirm_budget=60)
        async with asyncio.timeout(5):
            assert LOCAL_DISK in await boots.generate_script(MAC)
        assert link.connectivity.is_online


# How a machine gets to its own disk


@pytest.mark.parametrize(
    ("site", "node", "command"),
    [
        ("sanboot", None, LOCAL_DISK),
        ("exit", None, "exit 1"),
        ("exit", "sanboot", LOCAL_DISK),
        ("sanboot", "exit", "exit 1"),
        ("http-404", "exit", "exit 1"),
    ],
)
async def test_a_node_boots_its_disk_as_its_site_says_or_as_it_says_itself(
    parts: Parts, content: ContentCache, site: str, node: str | None, command: str
) -> None:
    await parts.has_autonomy(Autonomy.LIMITED, local_boot=site)
    await parts.knows(state=S.ACTIVE, local_boot=node)
    assert (await generator(parts, content).generate_script(MAC)).splitlines()[-1] == command


@pytest.mark.parametrize(("site", "node"), [("http-404", None), ("exit", "http-404")])
async def test_a_machine_whose_firmware_wants_none_gets_no_script(
    parts: Parts, content: ContentCache, site: str, node: str | None
) -> None:
    await parts.has_autonomy(Autonomy.LIMITED, local_boot=site)
    for state in (S.ACTIVE, S.RETIRED):
        await parts.knows(state=state, local_boot=node, version=2 + (state is S.RETIRED))
        with pytest.raises(NoScript):
            await generator(parts, content).generate_script(MAC)
        assert generator(parts, content).has_no_script(MAC)


async def test_an_unknown_machine_gets_no_script_either_and_is_registered(parts: Parts, content: ContentCache) -> None:
    await parts.has_autonomy(Autonomy.LIMITED, local_boot="http-404")
    with pytest.raises(NoScript):
        await generator(parts, content).generate_script(MAC)
    assert [node.mac_address for node in parts.cache.nodes()] == [MAC]


async def test_an_install_always_has_a_script(parts: Parts, content: ContentCache) -> None:
    await approved(parts, content)
    await parts.has_autonomy(Autonomy.LIMITED, local_boot="http-404")
    assert not generator(parts, content).has_no_script(MAC)
    script = await generator(parts, content).generate_script(MAC)
    assert is_install(script)
    assert script.splitlines()[-1] == "exit 1"


async def test_a_document_of_before_the_setting_means_sanboot(parts: Parts, content: ContentCache) -> None:
    site = {"id": "attic", "name": "attic", "version": 1, "created_at": str(EPOCH), "updated_at": str(EPOCH)}
    node = node_item("n1", MAC, state=S.ACTIVE)
    del node.doc["local_boot"]
    await parts.reads(page(FeedItem(pos=1, type="site", op="upsert", id="attic", doc=site), node))
    assert LOCAL_DISK in await generator(parts, content).generate_script(MAC)
