"""The simulator for a person: tells what happens line by line, makes events at a rate, takes keys for faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import termios
import tty
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.simulator.events import LEVEL, realistic_events
from reserve_listener.simulator.faults import garbage
from reserve_listener.simulator.watcher import Watcher
from reserve_listener.simulator.webhook import WebhookPlatform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reserve_listener.simulator.platform import Simulator
    from reserve_listener.simulator.pushes import Attempt, Push

KEYS: Final = """\
Keys: Enter or e  push an event        2  duplicates on/off
      d  drop the connections          o  wrong order on/off
      s  stall (half-open) on/off      p  events in parts on/off
      r  refuse the secret on/off      g  send a frame of garbage
      q  quit                          ?  these keys"""

AUTH_FAILED: Final = 514
PARTS: Final = 3
SWITCHES: Final[dict[str, tuple[str, float, float]]] = {
    "s": ("stall", True, False),
    "r": ("endpoint_code", AUTH_FAILED, 0),
    "2": ("duplicate", True, False),
    "o": ("reorder", True, False),
    "p": ("split", PARTS, 1),
}
"""Fault by key: its name, its value when on, its value when off."""

_OK: Final = 200


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the console does by itself: `rate` events a second (0: none), the end after `events` of them."""

    rate: float = 0.5
    events: int | None = None
    seed: int | None = None


class Console(Watcher):
    """Give it to `Simulator(watcher=…)`, then `await console.run(simulator)`; `say` prints one line."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._print = say
        self._random = random.Random(plan.seed)  # noqa: S311  # no secrets come from here
        self._stop = asyncio.Event()
        self._pushed = 0
        self._open: set[Push] = set()
        self._simulator: Simulator | WebhookPlatform
        self._events: Iterator[dict[str, Any]]

    async def run(self, simulator: Simulator | WebhookPlatform) -> None:
        """Return when told to stop (SIGINT, SIGTERM, q) or when the planned events are over."""
        self._simulator = simulator
        self._events = realistic_events(self._random, app_id=simulator.app_id)
        keys = sys.stdin.isatty()
        with _signals(self._stop.set), _keyboard(self._pressed) if keys else contextlib.nullcontext():
            self._say(_greeting(simulator))
            if keys:
                self._say(f"{KEYS}\n")
            async with asyncio.TaskGroup() as tasks:
                side = [
                    tasks.create_task(self._push_at_rate(), name="simulate-rate"),
                    tasks.create_task(self._stop_when_done(), name="simulate-end"),
                ]
                await self._stop.wait()
                for task in side:
                    task.cancel()

    def stop(self) -> None:
        """Have `run` return."""
        self._stop.set()

    # What happens

    def endpoint_answered(self, code: int) -> None:
        """Tell of an answer of the endpoint."""
        self._tell(
            "endpoint: a client was told where to connect" if code == 0 else f"endpoint: refused, {code}"
        )

    def connected(self, connections: int) -> None:
        """Tell of a new connection, or of an address that has answered."""
        webhook = isinstance(getattr(self, "_simulator", None), WebhookPlatform)
        self._tell("the challenge was answered" if webhook else f"connected ({connections} open)")

    def disconnected(self, connections: int, code: int | None) -> None:
        """Tell of a connection that has ended."""
        self._tell(f"disconnected, code {code} ({connections} open)")

    def concluded(self, push: Push, attempt: Attempt, again_in: float | None) -> None:
        """Tell how an attempt has ended."""
        if again_in is None:
            self._open.discard(push)
        outcome = f"{attempt.code} in {attempt.elapsed * 1000:.0f} ms" if attempt.code else "no answer"
        if again_in is not None:
            outcome += f", again in {again_in:g} s"
        elif attempt.code != _OK:
            outcome += ", given up"
        number = len(push.attempts)
        self._tell(f"{_named(push)}  {outcome}" + (f"  (attempt {number})" if number > 1 else ""))

    def _say(self, line: str) -> None:
        try:
            self._print(line)
        except BrokenPipeError:
            # Nobody reads any more (`… | head`). Without the redirection Python complains once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.stop()

    def _tell(self, line: str) -> None:
        self._say(f"{datetime.now().astimezone():%H:%M:%S}  {line}")

    # What the console does

    async def _push_at_rate(self) -> None:
        if self._plan.rate <= 0:
            return
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._enough:
            if not self._simulator.connections:
                await self._simulator.connected(timeout=None)
                due = loop.time()
            # With `reorder` one event waits for the next to overtake it: they come in pairs.
            pair = 2 if self._simulator.faults.reorder else 1
            for _ in range(pair):
                self._push()
            due += pair / self._plan.rate
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _stop_when_done(self) -> None:
        if self._plan.events is not None:
            await self._simulator.until(lambda: self._enough and not self._open, timeout=None)
            self._stop.set()

    @property
    def _enough(self) -> bool:
        return self._plan.events is not None and self._pushed >= self._plan.events

    def _push(self) -> None:
        if self._enough:
            return
        self._pushed += 1
        push = self._simulator.push(next(self._events))
        self._open |= {each for each in (push, push.copy) if each is not None and not each.settled}

    def _pressed(self, key: str) -> None:
        actions: dict[str, Callable[[], None]] = {
            "\n": self._push,
            "\r": self._push,
            "e": self._push,
            "d": self._simulator.abort,
            "g": lambda: self._simulator.send_raw(garbage(self._random)),
            "q": self.stop,
            "?": lambda: self._say(KEYS),
        }
        if key in actions:
            actions[key]()
        elif key in SWITCHES:
            self._switch(*SWITCHES[key])

    def _switch(self, fault: str, on: float, off: float) -> None:
        faults = self._simulator.faults
        value = on if getattr(faults, fault) == off else off
        setattr(faults, fault, value)
        self._tell(f"{fault}: {'off' if value == off else 'on' if value is True else value}")


def _greeting(simulator: Simulator | WebhookPlatform) -> str:
    if isinstance(simulator, WebhookPlatform):
        return f"A Feishu platform pushes to {simulator.domain}, once that answers a challenge. Its app is {simulator.app_id}.\n"
    return f"""\
A Feishu platform is simulated at {simulator.domain}. For a daemon to connect to it, its configuration says:

[lark]
domain = "{simulator.domain}"
app_id = "{simulator.app_id}"
app_secret = "{simulator.app_secret}"

[store]
url = "sqlite:///simulated-events.db"
"""


def _named(push: Push) -> str:
    """The event's id and the start of its scope's."""
    event = msgspec.json.decode(push.payload)["event"]
    kind = "level" if event["scope_type"] == LEVEL else "room"
    return f"{push.event_id}  {kind} {event['scope_id'][:12]}…"


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _keyboard(pressed: Callable[[str], None]) -> Iterator[None]:
    """Hand on each key of the terminal at stdin as it is pressed; the terminal is as before afterwards."""
    terminal = sys.stdin.fileno()
    if not _in_foreground(terminal):
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        keys = os.read(terminal, 64)
        if not keys:  # the terminal has gone; without this the loop would spin
            loop.remove_reader(terminal)
        for key in keys.decode(errors="ignore"):
            pressed(key)

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _in_foreground(terminal: int) -> bool:
    """Whether the terminal may be set up: a job in the background would be stopped (SIGTTOU) for trying."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True  # a terminal that controls no session has no background
