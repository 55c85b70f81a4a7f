"""What people ask of a running daemon by signals."""

from __future__ import annotations

import asyncio
import os
import signal

import structlog

log = structlog.get_logger("daemon")


class Signals:
    """What was asked for so far.

    The first SIGTERM or SIGINT asks for a clean stop, the second for an immediate one; what was answered is kept either
    way. SIGHUP reloads, except when it says that the terminal the daemon runs in is gone: then it stops.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.reload = asyncio.Event()

    def install(self) -> None:
        """Hear them on the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_stop, number)
        if has_terminal():
            loop.add_signal_handler(signal.SIGHUP, self.ask_stop, signal.SIGHUP)
        else:
            loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def ask_stop(self, number: int) -> None:
        """One signal to stop."""
        log.info("daemon.signal", signal=signal.Signals(number).name)
        (self.now if self.stop.is_set() else self.stop).set()


def ignore_early_reload() -> None:
    """Until the daemon hears signals, a reload has nothing to do; unhandled it would end the process."""
    if not has_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
