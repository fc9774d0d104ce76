"""The picture of a site's outages, and the words that say the same."""

from datetime import UTC, datetime, timedelta

import pytest

from pureboot.central.bodies import Outage
from pureboot.central.ui.outage_picture import WINDOWS, draw

NOW = datetime(2026, 1, 28, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=365)


def outage(began_hours_ago: float, ended_hours_ago: float | None, *, offline: bool = True) -> Outage:
    began = NOW - timedelta(hours=began_hours_ago)
    return Outage(
        id="o1",
        site_id="s1",
        agent_id="a1",
        began_at=began,
        noticed_at=began,
        offline_at=began if offline else None,
        ended_at=None if ended_hours_ago is None else NOW - timedelta(hours=ended_hours_ago),
        agent_offline_seconds=None,
        agent_back_at=None,
        agent_uptime_seconds=None,
        central_back_at=None,
    )


def test_a_bar_stands_where_its_time_is() -> None:
    picture = draw([outage(12, 6)], "24h", LONG_AGO, NOW)
    [bar] = picture.bars
    assert (bar.x, bar.width, bar.kind) == (500.0, 250.0, "offline")
    assert bar.title == "2026-01-28 00:00:00 UTC, for 6 h"
    assert picture.summary == "1 outage in the last 24 hours: 6 h in all, the longest 6 h."


def test_what_began_before_the_window_and_what_lasts_is_cut_to_it() -> None:
    picture = draw([outage(48, 18), outage(6, None)], "24h", LONG_AGO, NOW)
    assert [(bar.x, bar.width) for bar in picture.bars] == [(0.0, 250.0), (750.0, 250.0)]
    assert picture.summary == "2 outages in the last 24 hours: 12 h in all, the longest 6 h. One lasts."


def test_a_short_one_is_seen_and_stays_inside() -> None:
    picture = draw([outage(0.01, None, offline=False)], "30d", LONG_AGO, NOW)
    [bar] = picture.bars
    assert (bar.x, bar.width, bar.kind) == (997.0, 3.0, "degraded")


def test_before_the_first_word_nothing_is_claimed() -> None:
    picture = draw([], "24h", NOW - timedelta(hours=6), NOW)
    assert [(bar.x, bar.width, bar.kind) for bar in picture.bars] == [(0.0, 750.0, "unheard")]
    assert picture.summary == "Heard all the time in the last 24 hours."
    assert draw([], "24h", None, NOW).summary == "This site has never been heard of."


@pytest.mark.parametrize("window", sorted(WINDOWS))
def test_marks_stand_inside_and_at_round_times(window: str) -> None:
    marks = draw([], window, LONG_AGO, NOW).marks
    assert 4 <= len(marks) <= 7
    assert all(0 < mark.x < 1000 for mark in marks)
    if window == "24h":
        assert [mark.text for mark in marks] == ["16:00", "20:00", "00:00", "04:00", "08:00"]


def test_an_old_outage_is_not_shown() -> None:
    picture = draw([outage(72, 48)], "24h", LONG_AGO, NOW)
    assert (picture.bars, picture.summary) == ((), "Heard all the time in the last 24 hours.")
