"""`pureboot agent dnsmasq-config`: what it prints, and what it refuses. The real dnsmasq reads it in tests/system."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pureboot.agent.dhcp import FIRMWARE
from pureboot.cli.main import app

GOLDEN = Path(__file__).parents[1] / "golden"
DHCP = ("--range", "10.9.0.100,10.9.0.200", "--interface", "eth1")
AT = ("--address", "10.9.0.1")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def config(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["agent", "dnsmasq-config", *arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dhcp", ("--router", "10.9.0.254", "--dns", "10.9.0.2,10.9.0.3", "--ipv6-ra", *DHCP, *AT)),
        ("proxy-dhcp", ("--proxy", "10.9.0.0/24", "--interface", "eth1", *AT)),
    ],
)
def test_the_whole_file(name, arguments):
    assert config(*arguments) == (GOLDEN / f"{name}.conf").read_text()


def test_without_a_router_it_names_none():
    # dnsmasq would name itself: a default route into nowhere.
    assert {"dhcp-option=option:router", "dhcp-option=option:dns-server"} <= set(config(*DHCP, *AT).splitlines())


def test_a_lease_time_and_a_subnet():
    lines = config("--range", "10.9.0.100,10.9.0.200,12h", "--interface", "e", "--subnet", "10.9.0.0/16", *AT)
    assert "dhcp-range=10.9.0.100,10.9.0.200,255.255.0.0,12h\n" in lines


@pytest.mark.parametrize(
    ("arguments", "doubt"),
    [
        (("--range", "192.168.5.10,192.168.5.20"), "lies outside 10.9.0.0/24, the network of the agent's address"),
        (("--range", "10.9.0.10,10.9.1.20"), "name it with --subnet"),
        (("--range", "10.9.0.10,10.9.0.20"), ""),
        (("--range", "10.9.0.10,10.9.1.20", "--subnet", "10.9.0.0/16"), ""),
        (("--range", "10.8.0.10,10.8.0.20", "--subnet", "10.8.0.0/16"), "10.9.0.1 lies outside the subnet 10.8.0.0/16"),
    ],
)
def test_a_range_in_another_network_than_the_agents_is_told(arguments: tuple[str, ...], doubt: str):
    result = CliRunner().invoke(app, ["agent", "dnsmasq-config", *arguments, "--interface", "e", *AT])
    assert result.exit_code == 0
    assert result.stdout.startswith("# DHCP for")
    assert "outside" not in result.stdout
    assert doubt in result.stderr
    assert bool(result.stderr) is bool(doubt)


def test_every_architecture_has_its_line():
    said = config(*DHCP, *AT)
    for firmware in FIRMWARE:
        for number in firmware.architectures:
            assert f"dhcp-match=set:{firmware.tag},option:client-arch,{number}\n" in said


class TestTheAgentsSettings:
    def test_the_advertised_address_is_the_agents(self, tmp_path):
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "agent.toml").write_text('advertise_url = "http://10.9.0.7:81/"\ntftp_port = 6969\n')
        said = config(*DHCP, "--data-dir", "here")
        assert "dhcp-boot=tag:ipxe,http://10.9.0.7:81/boot.ipxe,,10.9.0.7\n" in said
        assert "dhcp-boot=tag:uefi,tag:!ipxe,snponly.efi,,10.9.0.7\n" in said
        assert "ATTENTION: the agent serves TFTP on port 6969" in said

    def test_flags_beat_them(self, monkeypatch):
        monkeypatch.setenv("PUREBOOT_AGENT__ADVERTISE_URL", "http://10.9.0.7:81")
        monkeypatch.setenv("PUREBOOT_AGENT__PORT", "82")
        assert "dhcp-boot=tag:ipxe,http://10.9.0.1:82/boot.ipxe,,10.9.0.1\n" in config(*DHCP, *AT)
        assert "dhcp-boot=tag:ipxe,http://10.9.0.7:83/boot.ipxe,,10.9.0.7\n" in config(*DHCP, "--http-port", "83")

    def test_a_name_is_no_address_of_a_tftp_server(self, monkeypatch):
        monkeypatch.setenv("PUREBOOT_AGENT__ADVERTISE_URL", "http://boot.lan")
        assert "name it with --address" in config(*DHCP, code=2)

    def test_without_tftp_no_loader_is_named(self):
        said = config(*DHCP, *AT, "--tftp-port", "0")
        assert ",snponly.efi,," not in said
        assert "the agent serves no TFTP" in said
        assert "/files/bootloaders/snponly.efi,,10.9.0.1\n" in said

    def test_a_port_nobody_knows_is_asked_for(self, monkeypatch):
        monkeypatch.setenv("PUREBOOT_AGENT__PORT", "0")
        assert "--http-port" in config(*DHCP, *AT, code=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (DHCP, "name it with --address"),
        ((*AT,), "Give either --range or --proxy."),
        ((*DHCP, *AT, "--proxy", "10.9.0.0/24"), "Give either --range or --proxy."),
        ((*DHCP, "--address", "boot.lan"), "--address: 'boot.lan' is not an IPv4 address."),
        ((*DHCP, "--address", "10.9.0.1\ndhcp-script=/bin/sh"), "is not an IPv4 address."),
        ((*DHCP, "--address", "127.0.0.1"), "no machine reaches the agent at 127.0.0.1"),
        ((*DHCP, "--address", "10.9.0.150"), "the agent's own address 10.9.0.150 lies in it"),
        ((*AT, *DHCP, "--range", "10.9.0.100"), "is not START,END or START,END,LEASE"),
        ((*AT, *DHCP, "--range", "10.9.0.100,ten"), "--range: 'ten' is not an IPv4 address."),
        ((*AT, *DHCP, "--range", "10.9.0.200,10.9.0.100"), "10.9.0.200 comes after 10.9.0.100"),
        ((*AT, *DHCP, "--range", "10.9.0.100,10.9.0.200,soon"), "is not a lease time"),
        ((*AT, *DHCP, "--range", "10.9.0.100,10.9.0.200,90s"), "is not a lease time of two minutes or more"),
        ((*AT, *DHCP, "--range", "10.9.0.100,10.9.0.200,1h\nport=53"), "is not a lease time"),
        ((*AT, "--range", "10.9.0.100,10.9.0.200"), "name the interface with --interface"),
        ((*AT, *DHCP, "--interface", "eth1\nenable-tftp"), "is not the name of a network interface."),
        ((*AT, *DHCP, "--interface", "eth*"), "is not the name of a network interface."),
        ((*AT, *DHCP, "--subnet", "10.9.0.0/25"), "--range: 10.9.0.200 lies outside the subnet 10.9.0.0/25."),
        ((*AT, *DHCP, "--subnet", "10.9.0.0/24", "--router", "10.8.0.1"), "--router: 10.8.0.1 lies outside"),
        ((*AT, *DHCP, "--subnet", "10.9.0.0"), "--subnet: '10.9.0.0' is not a subnet"),
        ((*AT, *DHCP, "--router", "fe80::1"), "--router: 'fe80::1' is not an IPv4 address."),
        ((*AT, *DHCP, "--dns", "1.1.1.1,"), "--dns: '' is not an IPv4 address."),
        ((*AT, "--proxy", "10.9.0.7/24"), "--proxy: '10.9.0.7/24' is not a subnet"),
        ((*AT, "--proxy", "10.9.0.0/24\n"), "is not a subnet"),
        ((*AT, "--proxy", "10.9.0.0/24", "--router", "10.9.0.1"), "what the other DHCP server says"),
        ((*AT, *DHCP, "--http-port", "70000"), "--http-port"),
    ],
)
def test_it_refuses_with_one_sentence(arguments, says):
    said = config(*arguments, code=2)
    assert says in said
    assert "Traceback" not in said


@pytest.mark.parametrize("url", ["http://10.9.0.1/a,b", 'http://10.9.0.1/"', "http://10.9.0.1/#x"])
def test_an_advertised_address_that_would_act_in_the_file_is_refused(url, monkeypatch):
    monkeypatch.setenv("PUREBOOT_AGENT__ADVERTISE_URL", url)
    assert "cannot carry" in config(*DHCP, code=2)
