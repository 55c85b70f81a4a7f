"""Who sent a push: the peer itself, or whom proxies that are trusted say they speak for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reserve_listener.net.addresses import ip_address, read_peer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reserve_listener.net.addresses import Address, Network


def sender(peer: str, forwarded: Iterable[str], trusted: Iterable[Network]) -> Address | None:
    """`forwarded`: the values of all X-Forwarded-For lines, in order; None when nobody can say who it was.

    Each proxy appends whom it heard, so the list is read from the right, for as long as the one who wrote an entry is
    trusted. Anybody can write what stands further left. An entry that is no address names nobody: neither the proxy
    before it nor the client behind it may pass for the sender then.
    """
    trusted = tuple(trusted)
    entries = [entry for line in forwarded for part in line.split(",") if (entry := part.strip())]
    found = ip_address(peer)
    while entries and is_in(found, trusted):
        found = read_peer(entries.pop())
    return found


def is_in(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether one of the networks holds the address; nobody (None) is in none."""
    return address is not None and any(address in network for network in networks)
