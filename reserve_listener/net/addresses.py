"""Addresses and networks, read the same way wherever the project meets them, without asking DNS. A leaf."""

from __future__ import annotations

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAPPED_BITS: Final = 96
"""What an IPv4 address has in front of it when it is written as one of IPv6 (`::ffff:192.0.2.1`)."""

HIGHEST_PORT: Final = 65_535


def ip_address(host: str) -> Address | None:
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


def read_peer(text: str) -> Address | None:
    """An address with a port that may follow: `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        well_formed = bracket and ":" in host and "[" not in host
        return ip_address(host) if well_formed and (not port or _is_port(port)) else None
    host, colon, port = text.rpartition(":")
    if colon and ":" not in host:
        return ip_address(host) if _is_port(colon + port) else None
    return None if text.endswith("]") else ip_address(text)


def _is_port(text: str) -> bool:
    digits = text.removeprefix(":")
    return text != digits and digits.isascii() and digits.isdigit() and int(digits[:6]) <= HIGHEST_PORT


def read_network(text: str) -> Network:
    """A network, or an address as a network of one. Raises `ValueError`. A mapped one is a network of IPv4."""
    network = ipaddress.ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - MAPPED_BITS))
