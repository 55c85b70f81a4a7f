"""Telling systemd how it goes: the datagrams of sd_notify(3), by hand."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST: Final = 1_000
"""Characters of an assignment: systemd reads 4,096 bytes of a datagram, and a character takes up to four."""


class Notifier:
    """Sends to `$NOTIFY_SOCKET`; without one every call does nothing. Never blocks and never raises."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        watchdog = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(watchdog) / 1e6 if watchdog.isdigit() and ours else None
        """Seconds within which systemd wants a sign of life; None when it does not."""

    @property
    def active(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    def send(self, *assignments: str) -> None:
        """One datagram, e.g. `send("READY=1", "STATUS=connected")`. Each is one assignment, whatever its text holds."""
        if self._socket is None:
            return
        try:
            lines = [visible(assignment, LONGEST) for assignment in assignments]
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return  # systemd restarts a unit that stays silent; there is nobody else to tell

    def status(self, text: str) -> None:
        """The one line that `systemctl status` shows."""
        self.send(f"STATUS={text}")

    def reloading(self) -> None:
        """A reload begins; `send("READY=1")` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def extend(self, within_s: float) -> None:
        """What is under way, the start or the stop, may take so long from now."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}")

    def stopping(self, within_s: float) -> None:
        """The stop begins and may take so long."""
        self.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
