"""What a site's DHCP has to say so that its machines boot from the agent.

Every value a person gives is read into a type that can hold no line of a configuration file; what is wrong raises
SettingsError with one sentence.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address
from urllib.parse import urlsplit

from pureboot.core.errors import SettingsError

TFTP_PORT = 69
"""The only one firmware asks; DHCP has no field for another."""

LEASE = "1h"
_LIKELY_PREFIX = 24  # of a LAN whose subnet nobody names
_SHORTEST_LEASE = 120  # seconds; dnsmasq takes no shorter one
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Firmware:
    """A kind of firmware: its numbers in DHCP option 93, and the loader it runs, content of `bootloaders`.

    The arm64 loader lies beside the others, not in a folder: iPXE 2.0 looks for `autoexec.ipxe` where it came from.
    """

    tag: str
    what: str
    architectures: tuple[int, ...]
    loader: str
    by_http: bool = False


BIOS = Firmware("bios", "BIOS", (0,), "undionly.kpxe")
FIRMWARE = (
    BIOS,
    Firmware("uefi", "UEFI, x86-64", (7, 9), "snponly.efi"),
    Firmware("uefi-arm64", "UEFI, arm64", (11,), "snponly-arm64.efi"),
    Firmware("http", "UEFI HTTP boot, x86-64", (16,), "snponly.efi", by_http=True),
    Firmware("http-arm64", "UEFI HTTP boot, arm64", (19,), "snponly-arm64.efi", by_http=True),
)


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where a site's machines find its agent. `url` has no slash at its end. `tftp_port`: 0, it serves no TFTP."""

    address: IPv4Address
    url: str
    tftp_port: int = TFTP_PORT


@dataclass(frozen=True, slots=True)
class Leases:
    """dnsmasq is the DHCP server of the machines' LAN.

    `router_advertisements`: iPXE of 2019 waits 16 s for one before it asks for its script.
    """

    start: IPv4Address
    end: IPv4Address
    interface: str
    lease: str = LEASE
    subnet: IPv4Network | None = None
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    router_advertisements: bool = False


@dataclass(frozen=True, slots=True)
class Proxy:
    """proxyDHCP: another server gives out the addresses, dnsmasq only says where to boot from."""

    subnet: IPv4Network
    interface: str = ""


# What people write


def ipv4(text: str, option: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise SettingsError(f"{option}: {text!r} is not an IPv4 address.") from None


def network(text: str, option: str) -> IPv4Network:
    try:
        if "/" not in text:
            raise ValueError
        return IPv4Network(text)
    except ValueError:
        raise SettingsError(f"{option}: {text!r} is not a subnet; write it as 192.168.1.0/24.") from None


def interface(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}", text):
        raise SettingsError(f"--interface: {text!r} is not the name of a network interface.")
    return text


def lease(text: str) -> str:
    found = re.fullmatch(r"([1-9][0-9]{0,7})([smhdw]?)", text)
    if text != "infinite" and not (found and int(found[1]) * _UNITS[found[2]] >= _SHORTEST_LEASE):
        raise SettingsError(f"--range: {text!r} is not a lease time of two minutes or more; write it as 1h.")
    return text


def leases(
    range_: str,
    *,
    interface_name: str,
    subnet: str = "",
    router: str = "",
    dns: str = "",
    router_advertisements: bool = False,
) -> Leases:
    """`range_` is START,END or START,END,LEASE; `dns` addresses with commas between them."""
    parts = range_.split(",")
    if len(parts) not in (2, 3):
        raise SettingsError(f"--range: {range_!r} is not START,END or START,END,LEASE.")
    if not interface_name:
        raise SettingsError("A DHCP server must know its LAN: name the interface with --interface.")
    return Leases(
        start=ipv4(parts[0], "--range"),
        end=ipv4(parts[1], "--range"),
        interface=interface(interface_name),
        lease=lease(parts[2]) if len(parts) == 3 else LEASE,
        subnet=network(subnet, "--subnet") if subnet else None,
        router=ipv4(router, "--router") if router else None,
        dns=tuple(ipv4(each, "--dns") for each in dns.split(",")) if dns else (),
        router_advertisements=router_advertisements,
    )


def agent_address(
    address: str, http_port: int | None, *, advertise_url: str, port: int, tftp_port: int
) -> AgentAddress:
    """`address` and `http_port` as they were given, empty and None where not; the rest are the agent's settings."""
    advertised = advertise_url.rstrip("/")
    host = address or _host_of(advertised)
    if not host:
        raise SettingsError(
            "The agent's address on the machines' LAN is not known: name it with --address.",
            hint="An advertise_url with an IP address in the agent's settings tells it too.",
        )
    where = ipv4(host, "--address")
    if where.is_unspecified or where.is_loopback or where.is_multicast:
        raise SettingsError(f"--address: no machine reaches the agent at {where}.")
    if advertised and not address and http_port is None:
        return AgentAddress(where, _plain_url(advertised), tftp_port)
    if not (http_port or port):
        raise SettingsError("The agent takes any free HTTP port: say with --http-port which one it has.")
    return AgentAddress(where, f"http://{where}:{http_port or port}", tftp_port)


def _host_of(url: str) -> str:
    """Its host, if that is an address: DHCP has no field for the name of a TFTP server that all firmware reads."""
    try:
        host = urlsplit(url).hostname or ""
        return host if host and ip_address(host).version == 4 else ""
    except ValueError:
        return ""


def _plain_url(url: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.:/_~%-]+", url):
        raise SettingsError(f"advertise_url: {url!r} has characters that a DHCP configuration cannot carry.")
    return url


def check(agent: AgentAddress, service: Leases) -> None:
    """Raises SettingsError for what does not fit together."""
    if service.start > service.end:
        raise SettingsError(f"--range: {service.start} comes after {service.end}.")
    if service.start <= agent.address <= service.end:
        raise SettingsError(f"--range: the agent's own address {agent.address} lies in it, and would be given away.")
    if service.subnet is None:
        return
    for what, address in (("--range", service.start), ("--range", service.end), ("--router", service.router)):
        if address is not None and address not in service.subnet:
            raise SettingsError(f"{what}: {address} lies outside the subnet {service.subnet}.")


def doubts(agent: AgentAddress, service: Leases) -> list[str]:
    """What fits together in few networks only, for whoever runs it to look at."""
    if service.subnet is not None:
        if agent.address in service.subnet:
            return []
        return [f"the agent's address {agent.address} lies outside the subnet {service.subnet} of its machines."]
    likely = IPv4Network(f"{agent.address}/{_LIKELY_PREFIX}", strict=False)
    if service.start in likely and service.end in likely:
        return []
    return [
        f"--range: {service.start} to {service.end} lies outside {likely}, the network of the agent's address as it "
        "mostly is. If the LAN is a larger one, name it with --subnet."
    ]
