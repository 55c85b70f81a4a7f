"""Addresses as people and proxies write them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest

from reserve_listener.net import addresses
from reserve_listener.transports.webhook.sender import sender


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        *(
            (text, None)
            for text in ("", "unknown", "_hidden", "192.0.2.1:", "192.0.2.1:x", "192.0.2.1:65536")
        ),
        *(
            (text, None)
            for text in ("[192.0.2.1]", "[2001:db8::1", "[2001:db8::1]443", "[2001:db8::1]:", "[]")
        ),
        *(
            (text, None)
            for text in ("192.0.2.1:" + "9" * 5_000, "192.0.2.1:\u0661", "192.0.2.1 x", '"192.0.2.1"')
        ),
    ],
)
def test_a_peer_is_read_with_and_without_its_port(text: str, address: str | None) -> None:
    """Both families, bare, in brackets, mapped; what is none of it is nobody."""
    assert addresses.read_peer(text) == (None if address is None else ip_address(address))


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", IPv4Network("192.0.2.0/24")),
        ("::ffff:192.0.2.0/120", IPv4Network("192.0.2.0/24")),
        ("::ffff:192.0.2.7", IPv4Network("192.0.2.7/32")),
        ("::ffff:0:0/96", IPv4Network("0.0.0.0/0")),
        ("2001:db8::/32", IPv6Network("2001:db8::/32")),
        ("::/0", IPv6Network("::/0")),
    ],
)
def test_a_mapped_network_is_one_of_ipv4(text: str, network: IPv4Network | IPv6Network) -> None:
    """Senders are compared as IPv4, so networks must be."""
    assert addresses.read_network(text) == network


@pytest.mark.parametrize(
    ("lines", "who"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7:51000"], "203.0.113.7"),
        (["[2001:db8::7]:51000"], "2001:db8::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        (["203.0.113.7", "198.51.100.1"], "198.51.100.1"),
        (["203.0.113.7, 198.51.100.1", "10.0.0.2:80, ::ffff:10.0.0.3"], "198.51.100.1"),
        (["203.0.113.7,, ", ""], "203.0.113.7"),
        (["203.0.113.7, unknown"], None),
        (["203.0.113.7, unknown, 10.0.0.2"], None),
        (["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        ([], "127.0.0.1"),
    ],
)
def test_the_sender_is_read_from_the_right(lines: list[str], who: str | None) -> None:
    """All lines are one list; what a trusted proxy wrote that is no address names nobody, and nobody passes for it."""
    trusted = [ip_network("127.0.0.1"), ip_network("10.0.0.0/8")]
    assert sender("127.0.0.1", lines, trusted) == (None if who is None else ip_address(who))
    assert sender("198.51.100.9", lines, trusted) == ip_address("198.51.100.9")
