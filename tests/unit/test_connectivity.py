"""Is central there, and is it worth a machine's time to wait for it (user's contract, task 1)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from pureboot.agent.connectivity import ConnectivityMonitor
from tests.fakes import Behaviour, FakeCentral, SiteClock
from tests.fakes_cli import Canned, serving
from tests.support.tls import CERTIFICATE

URL = "http://central"
NOT_WELL: list[Behaviour] = ["refuses", "hangs", "garbage", "broken", "busy", "unauthorised"]


@pytest.fixture
def central() -> FakeCentral:
    return FakeCentral()


@pytest.fixture
def clock() -> SiteClock:
    return SiteClock()


@pytest.fixture
async def monitor(central: FakeCentral, clock: SiteClock) -> AsyncIterator[ConnectivityMonitor]:
    monitor = ConnectivityMonitor(URL, timeout=0.05, transport=central, now=clock.when)
    yield monitor
    await monitor.stop()


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.states: list[bool] = []
        self.turned = asyncio.Event()

    async def __call__(self, online: bool) -> None:
        self.states.append(online)
        self.turned.set()


async def test_connectivity_check_success(monitor: ConnectivityMonitor, clock: SiteClock) -> None:
    assert not monitor.is_online
    assert monitor.last_online_at is None
    assert await monitor.check_connectivity()
    assert monitor.is_online
    assert monitor.last_online_at == clock.when()
    assert monitor.offline_duration is None


@pytest.mark.parametrize("behaviour", NOT_WELL)
async def test_connectivity_check_failure(
    monitor: ConnectivityMonitor, central: FakeCentral, behaviour: Behaviour
) -> None:
    """A hung central is the same as a dead one, and a captive portal's page is not central."""
    central.health = behaviour
    async with asyncio.timeout(5):
        assert not await monitor.check_connectivity()
    assert not monitor.is_online
    assert monitor.last_online_at is None


async def test_a_certificate_that_is_not_trusted_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is a port without TLS. Each is said once, until something else is the cause."""
    with serving(Canned(), tls=True) as central:
        monitor = ConnectivityMonitor(central.url)
        for _ in range(2):
            assert not await monitor.check_connectivity()
        said = "Central is there, but its certificate is not trusted (self-signed certificate). If a CA of your own"
        assert monitor.problem.startswith(said)
        assert [record.levelname for record in caplog.records].count("WARNING") == 1
        assert said in caplog.text
    assert not await monitor.check_connectivity()
    assert monitor.problem == ""
    await monitor.stop()


async def test_a_port_without_tls_is_no_outage() -> None:
    with serving(Canned()) as central:
        monitor = ConnectivityMonitor(central.url.replace("http:", "https:"))
        await monitor.check_connectivity()
        assert monitor.problem.startswith("Central is there, but what listens there does not speak TLS.")
        await monitor.stop()


async def test_a_ca_that_is_pinned_mends_it() -> None:
    with serving(Canned(), tls=True) as central:
        central.says("GET", "/health", {"status": "ok"})
        monitor = ConnectivityMonitor(central.url, ca_file=CERTIFICATE)
        assert await monitor.check_connectivity()
        await monitor.stop()


async def test_offline_after_threshold(monitor: ConnectivityMonitor, central: FakeCentral) -> None:
    await monitor.check_connectivity()
    central.health = "refuses"
    seen = []
    for _ in range(4):
        await monitor.check_connectivity()
        seen.append(monitor.is_online)
    assert seen == [True, True, False, False]


async def test_a_success_in_between_starts_the_count_anew(monitor: ConnectivityMonitor, central: FakeCentral) -> None:
    for behaviour in ("well", "refuses", "refuses", "well", "refuses", "refuses"):
        central.health = behaviour
        await monitor.check_connectivity()
    assert monitor.is_online


async def test_online_after_recovery(monitor: ConnectivityMonitor, central: FakeCentral, clock: SiteClock) -> None:
    await monitor.check_connectivity()
    last = clock.when()
    central.health = "refuses"
    for _ in range(3):
        clock.advance(30)
        await monitor.check_connectivity()
    assert (monitor.is_online, monitor.last_online_at) == (False, last)
    assert monitor.offline_duration == timedelta(seconds=90)
    central.health = "well"
    clock.advance(30)
    assert await monitor.check_connectivity()
    assert (monitor.is_online, monitor.last_online_at) == (True, clock.when())
    still_offline = monitor.offline_duration
    assert still_offline is None


async def test_listener_notification(monitor: ConnectivityMonitor, central: FakeCentral) -> None:
    heard = Heard()
    monitor.add_listener(heard)
    for behaviour in ("well", "well", "refuses", "refuses", "refuses", "refuses", "well"):
        central.health = behaviour
        await monitor.check_connectivity()
    assert heard.states == [True, False, True]


async def test_a_listener_that_fails_keeps_no_other_from_hearing(monitor: ConnectivityMonitor) -> None:
    async def broken(_: bool) -> None:
        raise LookupError("a listener's own mistake")

    heard = Heard()
    monitor.add_listener(broken)
    monitor.add_listener(heard)
    assert await monitor.check_connectivity()
    assert heard.states == [True]


async def test_an_earlier_life_remembers_when_central_was_last_there(clock: SiteClock) -> None:
    last = clock.when()
    clock.advance(3600)
    monitor = ConnectivityMonitor(URL, last_online_at=last, transport=FakeCentral(), now=clock.when)
    assert (monitor.is_online, monitor.last_online_at) == (False, last)
    assert monitor.offline_duration == timedelta(hours=1)
    await monitor.stop()


async def test_a_clock_that_ran_backwards_makes_no_negative_outage(clock: SiteClock) -> None:
    monitor = ConnectivityMonitor(URL, last_online_at=clock.when(), transport=FakeCentral(), now=clock.when)
    clock.set_wall(-7200)
    assert monitor.offline_duration == timedelta(0)
    await monitor.stop()


async def test_start_checks_at_once_and_waits_for_nothing(central: FakeCentral, clock: SiteClock) -> None:
    central.health = "slow"
    monitor = ConnectivityMonitor(URL, transport=central, now=clock.when)
    heard = Heard()
    monitor.add_listener(heard)
    await monitor.start()
    await monitor.start()
    assert not monitor.is_online
    central.release()
    await asyncio.wait_for(heard.turned.wait(), 5)
    assert central.checks == 1
    await monitor.stop()
    await monitor.stop()


async def test_stop_ends_a_check_under_way(central: FakeCentral, clock: SiteClock) -> None:
    central.health = "hangs"
    monitor = ConnectivityMonitor(URL, timeout=60, transport=central, now=clock.when)
    await monitor.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await monitor.stop()


async def test_the_first_wait_that_runs_out_of_time_is_the_last_until_central_answers(
    monitor: ConnectivityMonitor, central: FakeCentral
) -> None:
    assert not monitor.may_wait
    await monitor.check_connectivity()
    assert monitor.may_wait
    monitor.doubt()
    assert (monitor.is_online, monitor.may_wait) == (True, False)
    central.health = "hangs"
    await monitor.check_connectivity()
    assert (monitor.is_online, monitor.may_wait) == (True, False)
    central.health = "well"
    await monitor.check_connectivity()
    assert monitor.may_wait


async def test_a_failed_check_stops_waiting_before_it_means_offline(
    monitor: ConnectivityMonitor, central: FakeCentral
) -> None:
    await monitor.check_connectivity()
    central.health = "refuses"
    await monitor.check_connectivity()
    assert (monitor.is_online, monitor.may_wait) == (True, False)


async def test_doubt_asks_central_at_once(central: FakeCentral, clock: SiteClock) -> None:
    """The next look would come in half a minute."""
    monitor = ConnectivityMonitor(URL, check_interval=30, transport=central, now=clock.when)
    heard = Heard()
    monitor.add_listener(heard)
    await monitor.start()
    await asyncio.wait_for(heard.turned.wait(), 5)
    monitor.doubt()
    await central.heard(lambda c: c.checks == 2)
    await monitor.stop()


async def test_any_word_from_central_counts_as_contact(monitor: ConnectivityMonitor, clock: SiteClock) -> None:
    recovered: list[bool] = []
    monitor.on_recovery(lambda: recovered.append(True))
    await monitor.heard()
    clock.advance(10)
    await monitor.heard()
    assert (monitor.is_online, monitor.may_wait) == (True, True)
    assert monitor.last_online_at == clock.when()
    assert recovered == [True]
