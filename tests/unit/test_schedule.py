from datetime import UTC, datetime, timedelta

import pytest

from pureboot.agent.schedule import Schedule
from pureboot.config.loading import load
from pureboot.config.settings import AgentSettings
from pureboot.core.errors import SettingsError

NOON = datetime(2026, 1, 28, 12, tzinfo=UTC)


def test_without_an_expression_it_is_always_due():
    schedule = Schedule("", NOON)
    assert schedule.is_due(NOON)
    assert schedule.wait(NOON) == float("inf")


def test_each_time_is_due_once():
    schedule = Schedule("0 2 * * *", NOON)
    assert not schedule.is_due(NOON)
    assert schedule.wait(NOON) == 14 * 3600
    night = NOON + timedelta(hours=14)
    assert schedule.is_due(night)
    assert not schedule.is_due(night)
    assert not schedule.is_due(night + timedelta(hours=23))
    assert schedule.is_due(night + timedelta(hours=25))


def test_times_that_were_slept_through_are_due_once():
    schedule = Schedule("*/5 * * * *", NOON)
    assert schedule.is_due(NOON + timedelta(days=3))
    assert not schedule.is_due(NOON + timedelta(days=3, minutes=1))


def test_a_clock_that_was_a_year_ahead_does_not_stop_it_for_a_year():
    schedule = Schedule("0 2 * * *", NOON)
    schedule.is_due(NOON + timedelta(days=365))
    assert not schedule.is_due(NOON)
    assert schedule.is_due(NOON + timedelta(hours=15))


@pytest.mark.parametrize("expression", ["nightly", "99 * * * *", "* * *", "0 0 31 2 *"])
def test_what_is_no_schedule_stops_the_start(expression: str, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="sync_schedule"):
        load(AgentSettings, sync_schedule=expression)
