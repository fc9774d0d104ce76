"""Settings: the contract's defaults, who beats whom, and what is said of a damaged one."""

import pytest
from pydantic import ValidationError

from pureboot.config.loading import load
from pureboot.config.settings import AgentSettings
from pureboot.core.errors import SettingsError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No settings file of the developer's is read."""
    monkeypatch.chdir(tmp_path)


def test_offline_config_defaults():
    settings = AgentSettings()
    assert settings.connectivity_check_interval == 30
    assert settings.connectivity_timeout == 5.0
    assert settings.connectivity_failure_threshold == 3
    assert settings.offline_default_action == "local"
    assert settings.queue_batch_size == 10
    assert settings.queue_retry_delay == 5.0
    assert settings.queue_max_retries == 3


def test_offline_config_from_env(monkeypatch):
    monkeypatch.setenv("PUREBOOT_AGENT__CONNECTIVITY_CHECK_INTERVAL", "7")
    monkeypatch.setenv("PUREBOOT_AGENT__CONNECTIVITY_TIMEOUT", "0.5")
    monkeypatch.setenv("PUREBOOT_AGENT__OFFLINE_DEFAULT_ACTION", "last_known")
    monkeypatch.setenv("PUREBOOT_AGENT__QUEUE_MAX_RETRIES", "9")
    settings = AgentSettings()
    assert settings.connectivity_check_interval == 7
    assert settings.connectivity_timeout == 0.5
    assert settings.offline_default_action == "last_known"
    assert settings.queue_max_retries == 9


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path, monkeypatch):
    file = tmp_path / "any.toml"
    file.write_text("port = 1\nheartbeat_interval = 1\nqueue_batch_size = 1\n")
    monkeypatch.setenv("PUREBOOT_AGENT__HEARTBEAT_INTERVAL", "2")
    monkeypatch.setenv("PUREBOOT_AGENT__PORT", "2")
    settings = load(AgentSettings, file=file, port=3, host=None)
    assert (settings.port, settings.heartbeat_interval, settings.queue_batch_size) == (3, 2, 1)
    assert settings.host == "0.0.0.0"


@pytest.mark.parametrize("by_flag", [True, False])
def test_a_file_in_the_data_folder_is_found(tmp_path, monkeypatch, by_flag):
    (tmp_path / "agent.toml").write_text('site_id = "lab"\n')
    if by_flag:
        assert load(AgentSettings, data_dir=tmp_path).site_id == "lab"
    else:
        monkeypatch.setenv("PUREBOOT_AGENT__DATA_DIR", str(tmp_path))
        assert load(AgentSettings).site_id == "lab"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    monkeypatch.setenv("PUREBOOT_AGENT__PORT", "")
    assert load(AgentSettings).port == 8080


def test_a_bad_variable_is_named(monkeypatch):
    monkeypatch.setenv("PUREBOOT_AGENT__QUEUE_BATCH_SIZE", "many")
    with pytest.raises(SettingsError, match="queue_batch_size = 'many' from the environment variable PUREBOOT_AGENT__"):
        load(AgentSettings)


def test_a_bad_flag_is_named():
    with pytest.raises(SettingsError, match="port = '70000' from the flag --port is wrong"):
        load(AgentSettings, port=70000)


def test_an_address_is_shown_without_its_password():
    with pytest.raises(SettingsError, match=r"central_url = 'ftp://\*\*\*@central' from") as caught:
        load(AgentSettings, central_url="ftp://me:SECRET@PW@central")
    assert "SECRET" not in caught.value.message


def test_a_bad_value_in_a_file_is_named(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text('offline_default_action = "reboot"\n')
    with pytest.raises(SettingsError) as caught:
        load(AgentSettings, file=file)
    assert "offline_default_action = 'reboot'" in caught.value.message
    assert str(file) in caught.value.message
    assert "'last_known'" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("port = ", "is not TOML"),
        ("queue_batch_sise = 3", "'queue_batch_sise' in .* is not a setting"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, complaint):
    file = tmp_path / "agent.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=complaint):
        load(AgentSettings, file=file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml cannot be read"):
        load(AgentSettings, file=tmp_path / "none.toml")


def test_a_misspelt_variable_is_refused_with_the_right_one(monkeypatch):
    monkeypatch.setenv("PUREBOOT_AGENT__QUEU_BATCH_SIZE", "3")
    with pytest.raises(SettingsError) as caught:
        load(AgentSettings)
    assert caught.value.hint == "Did you mean PUREBOOT_AGENT__QUEUE_BATCH_SIZE?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connectivity_check_interval", 0),
        ("connectivity_timeout", 0),
        ("connectivity_failure_threshold", 0),
        ("queue_batch_size", 0),
        ("queue_batch_max", 1001),
        ("queue_retry_delay", -1),
        ("queue_max_retries", 0),
        ("boot_budget", 0),
        ("write_confirm_budget", -0.1),
        ("offline_install_max_age", 0),
        ("log_format", "xml"),
        ("central_url", "central.example"),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValidationError):
        AgentSettings(**{name: value})
