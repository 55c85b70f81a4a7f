"""Slows down whoever guesses tokens, at the login and in the header of the API alike.

What must stay true: only wrong tokens are counted and refused. If the right token were refused as well, a handful of addresses,
or anybody behind the same proxy, could lock out those who have it. The token's length is what stops guessers. Memory is bounded.
A program that keeps sending an old token is not guessing.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from reserve_listener.net.addresses import ip_address

TRIES: Final = 5
"""Wrong tokens within `WINDOW_S` from one address; a person needs two or three."""
TRIES_OF_ALL: Final = 100
"""And from all addresses together."""
WINDOW_S: Final = 60.0
ADDRESSES: Final = 1_000
"""That are remembered; the one that failed first is forgotten."""
OWN_BITS: Final = 64
"""Of an IPv6 address: whoever has one has all that begin like it."""


@dataclass
class _Failures:
    times: deque[float] = field(default_factory=lambda: deque(maxlen=TRIES))
    last: bytes = b""


class Guesses:
    """Counts wrong tokens, by address and in all."""

    def __init__(self) -> None:
        self._by_address: dict[str, _Failures] = {}
        self._all: deque[float] = deque(maxlen=TRIES_OF_ALL)

    def wait_s(self, address: str) -> float:
        """How long this address has to wait; 0: it may try."""
        now = time.monotonic()
        own = self._by_address.get(_group(address))
        full = [times for times in (self._all, own and own.times) if times and len(times) == times.maxlen]
        return max([0.0, *(times[0] + WINDOW_S - now for times in full)])

    def failed(self, address: str, token: bytes) -> None:
        """This wrong token came from there."""
        group = _group(address)
        own = self._by_address.pop(group, None) or _Failures()
        self._by_address[group] = own
        if len(self._by_address) > ADDRESSES:
            self._by_address.pop(next(iter(self._by_address)))
        digest = blake2b(token, digest_size=16).digest()
        if digest != own.last:
            own.last = digest
            for times in (own.times, self._all):
                times.append(time.monotonic())

    def succeeded(self, address: str) -> None:
        """It was the right one: what went before were slips."""
        self._by_address.pop(_group(address), None)


def _group(address: str) -> str:
    found = ip_address(address)
    if found is None or found.version == 4:  # noqa: PLR2004  # IPv4
        return address
    return found.packed[: OWN_BITS // 8].hex()
