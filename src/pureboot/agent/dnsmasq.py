"""A dnsmasq configuration that points a site's machines at its agent."""

from ipaddress import IPv4Address

from pureboot.agent.dhcp import BIOS, FIRMWARE, TFTP_PORT, AgentAddress, Firmware, Leases, Proxy, check


def render(agent: AgentAddress, service: Leases | Proxy) -> str:
    """The whole file. Raises SettingsError where what was said does not fit together."""
    if isinstance(service, Leases):
        check(agent, service)
        body = [*_lease_lines(service), *_match_lines(), *_boot_lines(agent)]
    else:
        body = [*_proxy_lines(service), *_match_lines(), *_boot_lines(agent, proxy=True)]
    return "\n".join([*_head(agent), *body, ""])


def _head(agent: AgentAddress) -> list[str]:
    loaders = dict.fromkeys(each.loader for each in FIRMWARE)
    return [
        "# DHCP for the machines of a PureBoot site, made by `pureboot agent dnsmasq-config`.",
        f"# The agent: {agent.url}, TFTP at {agent.address}.",
        "#",
        "# Save it as /etc/dnsmasq.d/pureboot.conf, look it over with `dnsmasq --test`, restart dnsmasq.",
        "# The loaders have to be at central; its sites fetch them: pureboot content import-ipxe",
        f"# They are {', '.join(loaders)}",
        "",
        "# No DNS.",
        "port=0",
        "log-dhcp",
    ]


def _lease_lines(service: Leases) -> list[str]:
    mask = [str(service.subnet.netmask)] if service.subnet else []
    lines = [
        "",
        "# This is the only DHCP server of this LAN.",
        f"interface={service.interface}",
        "bind-dynamic",
        "dhcp-authoritative",
        # Seen with sixteen machines at once: eleven gave up after 17 s without an offer.
        "# Else dnsmasq pings each address before it offers it, for 3 s in which it answers nobody: a site that powers",
        "# on at once would not get its leases in time.",
        "no-ping",
        f"dhcp-range={','.join([str(service.start), str(service.end), *mask, service.lease])}",
        # Without a value dnsmasq would name itself as the router, or as the DNS server.
        f"dhcp-option=option:router{_values(service.router)}",
        f"dhcp-option=option:dns-server{_values(*service.dns)}",
    ]
    if not service.router_advertisements:
        return lines
    return [
        *lines,
        "",
        "# iPXE of 2019 waits 16 s for an IPv6 router's word. This host gives it, and is nobody's router (lifetime 0).",
        "# The interface needs an IPv6 address of its own beside the link-local one, such as fd00::1/64.",
        "enable-ra",
        f"ra-param={service.interface},0,0",
        f"dhcp-range=::,constructor:{service.interface},ra-only",
    ]


def _values(*addresses: IPv4Address | None) -> str:
    return "".join(f",{address}" for address in addresses if address is not None)


def _proxy_lines(service: Proxy) -> list[str]:
    return [
        "",
        "# Another server gives out the addresses; this one only adds where to boot from (proxyDHCP).",
        *([f"interface={service.interface}", "bind-dynamic"] if service.interface else []),
        f"dhcp-range={service.subnet.network_address},proxy,{service.subnet.netmask}",
        # A proxy answers none but these.
        "dhcp-pxe-vendor=PXEClient,HTTPClient",
    ]


def _match_lines() -> list[str]:
    return [
        "",
        "# iPXE says so: by its user class, or by its own option 175.",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:ipxe,175",
        "",
        "# Firmware says what it can run: option 93.",
        *(f"dhcp-match=set:{each.tag},option:client-arch,{n}" for each in FIRMWARE for n in each.architectures),
    ]


def _boot_lines(agent: AgentAddress, *, proxy: bool = False) -> list[str]:
    lines = _script_lines(agent)
    for each in FIRMWARE:
        lines += ["", f"# {each.what}"]
        if each.by_http:
            lines += _http_lines(agent, each)
        elif agent.tftp_port and proxy and each is not BIOS:
            # UEFI asks a proxy again, on port 4011, and there dnsmasq answers from its menu: the one fitting entry.
            lines += [f"pxe-service=tag:!ipxe,{n},PureBoot,{each.loader},{agent.address}" for n in each.architectures]
        elif agent.tftp_port:
            lines += [f"dhcp-boot=tag:{each.tag},tag:!ipxe,{each.loader},,{agent.address}"]
        else:
            lines += ["# Nothing: the agent serves no TFTP (tftp_port = 0)."]
    return lines


def _script_lines(agent: AgentAddress) -> list[str]:
    # The address is the loader's server, of no use to a URL; but iPXE takes a proxy's offer only with one in it.
    lines = ["", "# What iPXE runs.", f"dhcp-boot=tag:ipxe,{agent.url}/boot.ipxe,,{agent.address}"]
    if agent.tftp_port in (0, TFTP_PORT):
        return lines
    return [
        *lines,
        "",
        f"# ATTENTION: the agent serves TFTP on port {agent.tftp_port}, and firmware asks only on {TFTP_PORT}. Below,",
        f"# everything but HTTP boot stays without its loader, unless that host redirects UDP {TFTP_PORT} to it.",
    ]


def _http_lines(agent: AgentAddress, firmware: Firmware) -> list[str]:
    # Firmware takes an offer for HTTP boot only with this class in it.
    return [
        f"dhcp-option-force=tag:{firmware.tag},tag:!ipxe,option:vendor-class,HTTPClient",
        f"dhcp-boot=tag:{firmware.tag},tag:!ipxe,{agent.url}/files/bootloaders/{firmware.loader},,{agent.address}",
    ]
