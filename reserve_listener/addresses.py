"""What a host of a URL says about itself, without asking DNS. A leaf that everybody may use."""

from __future__ import annotations

import ipaddress


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as, if it is one: without brackets and zone, IPv4 in IPv6 as IPv4."""
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address."""
    address = ip_address(host)
    return host.lower().removesuffix(".") == "localhost" if address is None else address.is_loopback
