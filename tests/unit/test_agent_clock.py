"""What the agent's clocks can tell, and what they cannot."""

import math
from dataclasses import dataclass

import pytest

from pureboot.agent.clock import DRIFT, REBOOT_UNCERTAINTY, Age, Stamp, SystemClock, age_of, trusted_age

HOUR = 3600.0


@dataclass(frozen=True)
class Row:
    """Boots, boot-time clocks and wall clocks of the moment, of the newest stamp on disk and of now, and the age."""

    name: str
    moment: Stamp | None
    kept: Stamp | None
    now: Stamp
    age: float | None


def at(boot: str, boottime: float, wall: float) -> Stamp:
    return Stamp(boot, boottime, wall)


TABLE = [
    Row("never synced", None, at("a", 9, 109), at("a", 10, 110), None),
    Row("same boot", at("a", 100, 1000), None, at("a", 160, 1060), 60),
    Row("same boot, wall clock stepped ahead a day", at("a", 100, 1000), None, at("a", 160, 87460), 60),
    Row("same boot, wall clock stepped back a day", at("a", 100, 100_000), None, at("a", 160, 13_660), 60),
    Row("same boot, boot-time clock as it was", at("a", 100, 1000), None, at("a", 100, 1000), 0),
    Row("rebooted, ten minutes down", at("a", 100, 1000), at("a", 400, 1300), at("b", 5, 1900), 900),
    Row("rebooted, kept before the pass", at("a", 100, 1000), at("a", 90, 990), at("b", 5, 1600), 600),
    Row("rebooted, nothing kept", at("a", 100, 1000), None, at("b", 5, 1900), None),
    Row("rebooted, wall clock behind what was kept", at("a", 100, 1000), at("a", 400, 1300), at("b", 5, 1299), None),
    Row("rebooted, wall clock behind the pass", at("a", 100, 1000), at("a", 90, 990), at("b", 5, 995), None),
    Row("rebooted, wall clock at 1970", at("a", 100, 1.7e9), at("a", 400, 1.7e9 + 300), at("b", 5, 42), None),
    Row("rebooted twice", at("a", 100, 1000), at("b", 50, 2000), at("c", 5, 4600), 3600),
    Row("rebooted twice, wall clock behind", at("a", 100, 1000), at("b", 50, 2000), at("c", 5, 1999), None),
    Row(
        "rebooted, wall clock stepped back before the last keep",
        at("a", 100, 50_000),
        at("a", 100 + 10 * HOUR, 50_000 + 5 * HOUR),
        at("b", 5, 50_000 + 6 * HOUR),
        11 * HOUR,
    ),
    Row(
        "rebooted, wall clock stepped back between the last keep and the pass",
        at("a", 100, 900),
        at("a", 50, 1000),
        at("b", 5, 1000),
        100,
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_age_of_an_approval_is_known_only_where_a_clock_can_tell(row: Row) -> None:
    assert trusted_age(row.moment, row.kept, row.now) == row.age


@pytest.mark.parametrize(
    ("moment", "now", "age"),
    [
        (at("a", 100, 1000), at("a", 160, 5), Age(60, 12 + DRIFT * 60)),
        (at("a", 100, 1000), at("b", 3, 4600), Age(3600, 12 + REBOOT_UNCERTAINTY + DRIFT * 3600)),
        (at("a", 100, 1000), at("b", 3, 999), Age(0, math.inf)),
        (at("a", 100, 1000), at("a", 99, 1000), Age(0, 12)),
    ],
    ids=["same boot", "after a reboot", "after a reboot, clock behind", "same boot, never negative"],
)
def test_the_age_of_an_item_carries_how_far_off_it_may_be(moment: Stamp, now: Stamp, age: Age) -> None:
    assert age_of(moment, now, on_its_way=12) == age


def test_a_stamp_survives_the_disk() -> None:
    stamp = SystemClock().stamp()
    assert Stamp.load(stamp.dump()) == stamp
    assert Stamp.load(None) is None
    assert Stamp.load("") is None


def test_a_stamp_of_an_older_file_is_read() -> None:
    assert Stamp.load('{"boot_id": "b", "boottime": 1.5, "wall": 2.5}') == Stamp("b", 1.5, 2.5)
    assert Stamp.load('["b", 1.5, 2.5, 3.5]') is None


def test_the_systems_clock_goes_forward_within_one_boot() -> None:
    clock = SystemClock()
    first, second = clock.stamp(), clock.stamp()
    assert first.boot_id == second.boot_id != ""
    assert second.boottime >= first.boottime > 0
    assert first.when.timestamp() == pytest.approx(first.wall)
