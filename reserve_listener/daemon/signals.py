"""What people ask of a running daemon by signals."""

from __future__ import annotations

import asyncio
import os
import signal
from enum import Enum

import structlog

log = structlog.get_logger("daemon")


class Hangup(Enum):
    """What SIGHUP means. It is settled before anything is loaded, since it may come at once."""

    IGNORED = "ignored"
    """It was when the process was started, by nohup(1): so it stays."""
    STOP = "stop"
    """The terminal that the daemon runs in is gone."""
    RELOAD = "reload"

    @classmethod
    def of_this_start(cls) -> Hangup:
        """To be asked before anybody sets a handler."""
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            return cls.IGNORED
        return cls.STOP if has_terminal() else cls.RELOAD

    def prepare(self) -> None:
        """Until the daemon hears signals, a reload has nothing to do; unhandled it would end the process."""
        if self is Hangup.RELOAD:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)


class Signals:
    """What was asked for so far.

    The first SIGTERM or SIGINT asks for a clean stop, the second for an immediate one; what was answered is kept either
    way. SIGHUP reloads, except when it says that the terminal the daemon runs in is gone: then it stops.
    """

    def __init__(self, hangup: Hangup) -> None:
        self._hangup = hangup
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.reload = asyncio.Event()

    def install(self) -> None:
        """Hear them on the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_stop, number)
        if self._hangup is Hangup.STOP:
            loop.add_signal_handler(signal.SIGHUP, self.ask_stop, signal.SIGHUP)
        elif self._hangup is Hangup.RELOAD:
            loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def ask_stop(self, number: int) -> None:
        """One signal to stop."""
        log.info("daemon.signal", signal=signal.Signals(number).name)
        (self.now if self.stop.is_set() else self.stop).set()


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
