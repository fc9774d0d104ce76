"""What the site knows of its nodes: rows on disk, and a view that is never behind and never torn."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.core.errors import Invalid, Malformed
from pureboot.core.lifecycle import NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import LocalBoot
from pureboot.storage.sqlite import Transaction
from tests.support.parts import EPOCH, MAC, OTHER_MAC

HERE = MacAddress.parse(MAC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agent.db"


@pytest.fixture
def cache(path: Path) -> Iterator[NodeStateCache]:
    cache = NodeStateCache(path)
    yield cache
    cache.database.close()


def a_node(node_id: str = "n1", mac: str = MAC, state: NodeState = NodeState.ACTIVE, **fields: object) -> CachedNode:
    return CachedNode(node_id, mac, state, **fields)  # type: ignore[arg-type]


async def reopened(path: Path) -> NodeStateCache:
    cache = NodeStateCache(path)
    await cache.initialize()
    await cache.initialize()
    cache.database.close()
    return cache


async def test_a_node_is_found_by_any_spelling_of_its_mac(cache: NodeStateCache) -> None:
    await cache.cache_node(a_node(mac="52-54-00-AA-BB-01"))
    for spelling in (MAC, MAC.upper(), "525400aabb01", "5254.00aa.bb01"):
        found = await cache.get_node(spelling)
        assert found is not None
        assert (found.node_id, found.mac_address) == ("n1", MAC)
    assert await cache.get_node(OTHER_MAC) is None
    with pytest.raises(Malformed):
        await cache.get_node("not a mac")


async def test_every_field_survives_a_restart(cache: NodeStateCache, path: Path) -> None:
    node = a_node(
        state=NodeState.INSTALLING,
        attempt=2,
        workflow_id="w1",
        base_version=9,
        base_state_rev=4,
        base_state=NodeState.PENDING,
        base_attempt=1,
        more_macs=(OTHER_MAC,),
        hostname="web1",
        boot_token="secret",
        begun=True,
        conflict_id="c1",
        local_boot=LocalBoot.EXIT,
        updated_at=EPOCH,
        cached_at=datetime.now(UTC),
    )
    await cache.cache_node(node)
    again = await reopened(path)
    assert await again.get_node(MAC) == await again.get_node(OTHER_MAC) == await again.get_node_by_id("n1") == node
    assert again.by_token("secret") == node
    assert (again.nodes(), again.count()) == ([node], 1)


async def test_a_state_nobody_knows_is_refused(cache: NodeStateCache) -> None:
    with pytest.raises(Invalid):
        await cache.cache_node(a_node(state="sleeping"))  # type: ignore[arg-type]
    assert cache.count() == 0


async def test_nodes_are_listed_by_mac(cache: NodeStateCache) -> None:
    await cache.cache_node(a_node("n2", OTHER_MAC))
    await cache.cache_node(a_node("n1", MAC))
    assert [node.node_id for node in await cache.list_nodes()] == ["n1", "n2"]


async def test_a_node_that_leaves_is_remembered_by_its_last_state(cache: NodeStateCache, path: Path) -> None:
    await cache.cache_node(a_node(more_macs=(OTHER_MAC,), boot_token="t"))
    assert await cache.remove(MAC)
    assert not await cache.remove(MAC)
    for view in (cache, await reopened(path)):
        assert view.by_mac(HERE) is None
        assert view.by_id("n1") is None
        assert view.by_token("t") is None
        assert {view.last_state(MacAddress.parse(mac)) for mac in (MAC, OTHER_MAC)} == {NodeState.ACTIVE}


async def test_a_machine_that_comes_back_is_remembered_no_more(cache: NodeStateCache, path: Path) -> None:
    await cache.cache_node(a_node())
    await cache.remove(MAC)
    await cache.cache_node(a_node("n2", state=NodeState.DISCOVERED))
    for view in (cache, await reopened(path)):
        assert view.last_state(HERE) is None


async def test_a_mac_belongs_to_the_node_that_was_saved_last(cache: NodeStateCache, path: Path) -> None:
    await cache.cache_node(a_node("n1", MAC, more_macs=(OTHER_MAC,)))
    await cache.cache_node(a_node("n2", OTHER_MAC, NodeState.PENDING))
    for view in (cache, await reopened(path)):
        owner = view.by_mac(MacAddress.parse(OTHER_MAC))
        assert owner is not None
        assert owner.node_id == "n2"
        first = view.by_id("n1")
        assert first is not None
        assert first.macs == (MAC,)


async def test_a_node_that_lost_its_only_mac_is_no_machines_and_comes_back_with_one(
    cache: NodeStateCache, path: Path
) -> None:
    await cache.cache_node(a_node("n1", MAC))
    await cache.cache_node(a_node("n2", MAC))
    await cache.database.store.write(lambda tx: cache.forget(tx, "n1"))
    for view in (cache, await reopened(path)):
        owner = view.by_mac(HERE)
        assert owner is not None
        assert owner.node_id == "n2"
        assert view.last_state(HERE) is None
        assert [node.node_id for node in view.nodes()] == ["n2"]


async def test_a_mac_that_is_dropped_is_unknown_again(cache: NodeStateCache, path: Path) -> None:
    await cache.cache_node(a_node(more_macs=(OTHER_MAC,)))
    await cache.cache_node(a_node())
    for view in (cache, await reopened(path)):
        assert view.by_mac(MacAddress.parse(OTHER_MAC)) is None


async def test_a_node_that_central_knows_by_another_id_answers_to_both(cache: NodeStateCache, path: Path) -> None:
    await cache.cache_node(a_node("local", boot_token="t"))
    await cache.database.store.write(lambda tx: cache.rename(tx, "local", "n1"))
    await cache.database.store.write(lambda tx: cache.rename(tx, "n1", "n2"))
    for view in (cache, await reopened(path)):
        for name in ("local", "n1", "n2"):
            found = view.by_id(name)
            assert found is not None
            assert found.node_id == "n2"
        assert view.by_mac(HERE) == view.by_token("t") == view.by_id("n2")
        assert view.count() == 1


async def test_what_is_known_of_a_node_moves_with_its_name(cache: NodeStateCache) -> None:
    await cache.cache_node(a_node("local"))
    await cache.database.store.write(lambda tx: cache.set_facts(tx, "local", {"vendor": "QEMU"}))
    await cache.database.store.write(lambda tx: cache.rename(tx, "local", "n1"))
    assert await cache.database.store.write(lambda tx: cache.facts(tx, "n1")) == {"vendor": "QEMU"}


async def test_of_two_nodes_that_are_one_the_facts_under_centrals_name_hold(cache: NodeStateCache) -> None:
    known = {"local": {"vendor": "old", "model": "R650"}, "n1": {"vendor": "QEMU", "serial_number": "S1"}}
    for (node_id, facts), mac in zip(known.items(), (MAC, OTHER_MAC), strict=True):
        await cache.cache_node(a_node(node_id, mac))
        await cache.database.store.write(partial(set_facts, cache, node_id, facts))
    await cache.database.store.write(lambda tx: cache.rename(tx, "local", "n1"))
    facts = await cache.database.store.write(lambda tx: cache.facts(tx, "n1"))
    assert facts == {"vendor": "QEMU", "model": "R650", "serial_number": "S1"}


def set_facts(cache: NodeStateCache, node_id: str, facts: dict[str, str], tx: Transaction) -> None:
    cache.set_facts(tx, node_id, facts)


async def test_two_nodes_that_are_one_unite_their_macs(cache: NodeStateCache, path: Path) -> None:
    await cache.cache_node(a_node("n1", MAC, NodeState.INSTALLED))
    await cache.cache_node(a_node("local", OTHER_MAC, NodeState.DISCOVERED))
    await cache.database.store.write(lambda tx: cache.rename(tx, "local", "n1"))
    for view in (cache, await reopened(path)):
        node = view.by_id("n1")
        assert node is not None
        assert (node.macs, node.state) == ((MAC, OTHER_MAC), NodeState.INSTALLED)
        assert view.by_mac(MacAddress.parse(OTHER_MAC)) == view.by_mac(HERE) == view.by_id("local") == node
        assert view.count() == 1


def test_a_node_that_moves_loses_what_belonged_to_its_attempt() -> None:
    node = a_node(state=NodeState.INSTALLING, attempt=1, boot_token="t", begun=True, updated_at=EPOCH)
    now = datetime.now(UTC)
    assert node.at(node.stage, now) == node
    moved = node.at(Stage(NodeState.INSTALLING, 2), now)
    assert (moved.attempt, moved.boot_token, moved.begun, moved.updated_at) == (2, "", False, now)


@pytest.mark.timeout(240)
async def test_a_boot_never_misses_a_node_that_is_being_changed(cache: NodeStateCache) -> None:
    """2,000 saves and renames, while another thread looks without a pause."""
    rounds = 300
    await cache.cache_node(a_node("n0", more_macs=(OTHER_MAC,)))
    done = threading.Event()
    looks, missed = 0, []

    def look() -> None:
        nonlocal looks
        macs = [HERE, MacAddress.parse(OTHER_MAC)]
        while not done.is_set():
            found = [cache.by_mac(mac) for mac in macs]
            if any(node is None for node in found) or cache.by_id("n0") is None:
                missed.append(found)
            looks += 1
            time.sleep(0)  # a look that never lets go starves the writer: each of its statements waits for its turn

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for n in range(rounds):
            old, new = f"n{n}", f"n{n + 1}"
            macs = (MAC, OTHER_MAC) if n % 2 else (OTHER_MAC, MAC)
            node = a_node(old, macs[0], more_macs=macs[1:], boot_token=f"t{n}")
            cache.database.store.submit(partial(save, cache, node))
            cache.database.store.submit(partial(rename, cache, old, new))
        await cache.database.store.write(lambda tx: None)
    finally:
        done.set()
        reader.join(10)
    assert looks > rounds
    assert missed == []
    last = cache.by_mac(HERE)
    assert last is not None
    assert last.node_id == f"n{rounds}"


def save(cache: NodeStateCache, node: CachedNode, tx: Transaction) -> None:
    cache.save(tx, node)


def rename(cache: NodeStateCache, old: str, new: str, tx: Transaction) -> None:
    cache.rename(tx, old, new)


async def test_a_read_after_an_acknowledged_write_sees_it(cache: NodeStateCache) -> None:
    for attempt in range(200):
        await cache.cache_node(a_node(attempt=attempt))
        found = cache.by_mac(HERE)
        assert found is not None
        assert found.attempt == attempt


async def together(cache: NodeStateCache, *works: Callable[[Transaction], Any]) -> list[Any]:
    """In one transaction, as writes of one moment are."""
    return await asyncio.gather(*(cache.database.store.write(work) for work in works))


async def test_a_write_finds_what_another_of_its_transaction_has_changed(cache: NodeStateCache) -> None:
    await cache.initialize()
    await cache.cache_node(a_node("n1", MAC))
    await cache.cache_node(a_node("n2", OTHER_MAC))
    found = await together(
        cache,
        lambda tx: cache.find(tx, "n1"),
        lambda tx: cache.save(tx, a_node("n1", OTHER_MAC, NodeState.RETIRED)),
        lambda tx: cache.find(tx, "n1"),
        lambda tx: cache.owner(tx, OTHER_MAC),
        lambda tx: cache.owner(tx, MAC),
    )
    states = [node and (node.node_id, node.state) for node in found]
    n1 = ("n1", NodeState.RETIRED)
    assert states == [("n1", NodeState.ACTIVE), None, n1, n1, None]


async def test_a_write_finds_nobody_under_a_name_that_another_has_just_taken_away(cache: NodeStateCache) -> None:
    await cache.initialize()
    await cache.cache_node(a_node("n1", MAC))
    await cache.cache_node(a_node("n2", OTHER_MAC))
    found = await together(
        cache,
        lambda tx: cache.rename(tx, "n1", "central's"),
        lambda tx: cache.find(tx, "n1"),
        lambda tx: cache.forget(tx, "n2"),
        lambda tx: cache.find(tx, "n2"),
    )
    assert [node and node.node_id for node in found] == [None, "central's", None, None]


async def test_a_write_that_was_undone_has_changed_nothing_that_is_found(cache: NodeStateCache) -> None:
    await cache.initialize()
    await cache.cache_node(a_node("n1", MAC))

    def fails(tx: Transaction) -> None:
        cache.save(tx, a_node("n1", MAC, NodeState.RETIRED))
        raise LookupError

    with pytest.raises(LookupError):
        await cache.database.store.write(fails)
    [found] = await together(cache, lambda tx: cache.find(tx, "n1"))
    assert found == cache.by_id("n1")
    assert found.state is NodeState.ACTIVE


async def test_what_a_write_has_changed_is_found_though_another_was_undone_after_it(cache: NodeStateCache) -> None:
    await cache.initialize()
    await cache.cache_node(a_node("n1", MAC))
    await cache.cache_node(a_node("n2", OTHER_MAC))

    def fails(tx: Transaction) -> None:
        cache.save(tx, a_node("n2", OTHER_MAC, NodeState.RETIRED))
        raise LookupError

    writes = [
        lambda tx: cache.save(tx, a_node("n1", MAC, NodeState.RETIRED)),
        fails,
        lambda tx: (cache.find(tx, "n1"), cache.find(tx, "n2")),
    ]
    *_, found = await asyncio.gather(*map(cache.database.store.write, writes), return_exceptions=True)
    assert [node.state for node in found] == [NodeState.RETIRED, NodeState.ACTIVE]  # type: ignore[union-attr]
