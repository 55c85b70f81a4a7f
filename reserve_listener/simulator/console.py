"""The simulator for people: prints what happens line by line, sends events at a rate, takes keys for faults and changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.simulator.estate import ROOM, Place
from reserve_listener.simulator.events import realistic_events
from reserve_listener.simulator.faults import NO_PERMISSION, garbage
from reserve_listener.simulator.keyboard import keyboard, signals
from reserve_listener.simulator.watcher import Watcher
from reserve_listener.simulator.webhook import WebhookPlatform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reserve_listener.simulator.openapi import Call
    from reserve_listener.simulator.platform import Simulator
    from reserve_listener.simulator.pushes import Attempt, Push

KEYS: Final = """\
Keys: e, Enter  change a room's limits     d  drop the connections
      n  rename a room                     s  stall (half-open) on/off
      x  delete a room                     r  refuse the secret on/off
      E, N, X  the same without a push,    2  duplicates on/off
         as while the daemon is away       o  wrong order on/off
      q  quit                              p  events in parts on/off
      ?  these keys                        g  send a frame of garbage
  API t  refuse the tokens on/off          h  no answer on/off
      m  no vc:room:readonly on/off        k  cut off in the middle on/off
      4  429, too often, on/off            j  garbage on/off
      5  502, broken, on/off               l  slow on/off"""

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
API_KEYS: Final = {
    "t": "api-token",
    "m": NO_PERMISSION,
    "4": "api-too-often",
    "5": "api-broken",
    "h": "api-hang",
    "k": "api-cut",
    "j": "api-garbage",
    "l": "api-slow",
}
"""Faults of the API by key."""
NAMES: Final = ("珠峰", "Zenith", "会议室 A", "Boardroom", "昆仑", "Atrium")
"""New names for rooms, to which a number is added."""
API_LINE_AFTER_S: Final = 1.0
"""Clients ask about thousands of rooms, so all answers within a second make one line."""

_OK: Final = 200


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the console does by itself: `rate` events a second (0: none), and an end after `events` of them.

    Each time the last client has gone, it changes, renames and deletes this many rooms without telling anybody.
    """

    rate: float = 0.5
    events: int | None = None
    seed: int | None = None
    away_change: int = 0
    away_rename: int = 0
    away_delete: int = 0


class Console(Watcher):
    """Give it to `Simulator(watcher=…)`, then `await console.run(simulator)`; `say` prints one line."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._print = say
        self._random = random.Random(plan.seed)  # noqa: S311  # no secrets come from here
        self._stop = asyncio.Event()
        self._pushed = 0
        self._open: set[Push] = set()
        self._renamed = 0
        self._answered: Counter[str] = Counter()
        self._simulator: Simulator | WebhookPlatform
        self._events: Iterator[dict[str, Any]]

    async def run(self, simulator: Simulator | WebhookPlatform, api: Simulator) -> None:
        """Return when told to stop (SIGINT, SIGTERM, q), or after the planned events.

        `api` serves the API for the same estate; a `Simulator` does that itself.
        """
        self._simulator = simulator
        estate = simulator.estate
        self._events = realistic_events(
            self._random,
            app_id=simulator.app_id,
            estate=estate,
            rooms=len(estate.rooms),
            levels=len(estate.levels),
        )
        keys = sys.stdin.isatty()
        with signals(self._stop.set), keyboard(self._pressed) if keys else contextlib.nullcontext():
            self._say(_greeting(simulator, api))
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
        """Make `run` return."""
        self._stop.set()

    # What happens

    def endpoint_answered(self, code: int) -> None:
        """Print an answer of the endpoint."""
        self._tell(
            "endpoint: a client was told where to connect" if code == 0 else f"endpoint: refused, {code}"
        )

    def connected(self, connections: int) -> None:
        """Print a new connection, or an address that has answered."""
        webhook = isinstance(getattr(self, "_simulator", None), WebhookPlatform)
        self._tell("the challenge was answered" if webhook else f"connected ({connections} open)")

    def disconnected(self, connections: int, code: int | None) -> None:
        """Print the end of a connection."""
        self._tell(f"disconnected, code {code} ({connections} open)")
        if not connections and not self._stop.is_set():
            self._while_away()

    def concluded(self, push: Push, attempt: Attempt, again_in: float | None) -> None:
        """Print how an attempt ended."""
        if again_in is None:
            self._open.discard(push)
        outcome = f"{attempt.code} in {attempt.elapsed * 1000:.0f} ms" if attempt.code else "no answer"
        if again_in is not None:
            outcome += f", again in {again_in:g} s"
        elif attempt.code != _OK:
            outcome += ", given up"
        number = len(push.attempts)
        self._tell(f"{self._named(push)}  {outcome}" + (f"  (attempt {number})" if number > 1 else ""))

    def api_answered(self, call: Call) -> None:
        """Print a call of the API: at once if it was refused, otherwise together with others."""
        if call.code != 0:
            self._tell(f"API: {call.name}  {'spoilt' if call.code is None else f'refused, {call.code}'}")
            return
        if not self._answered:
            asyncio.get_running_loop().call_later(API_LINE_AFTER_S, self._tell_of_answers)
        self._answered[call.name] += 1

    def _tell_of_answers(self) -> None:
        told = ", ".join(f"{count} × {name}" for name, count in self._answered.items())  # noqa: RUF001
        self._answered.clear()
        self._tell(f"API: answered {told}")

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
            "E": self._change,
            "n": lambda: self._rename(push=True),
            "N": lambda: self._rename(push=False),
            "x": lambda: self._delete(push=True),
            "X": lambda: self._delete(push=False),
            "d": self._simulator.abort,
            "g": lambda: self._simulator.send_raw(garbage(self._random)),
            "q": self.stop,
            "?": lambda: self._say(KEYS),
        }
        if key in actions:
            actions[key]()
        elif key in SWITCHES:
            self._switch(*SWITCHES[key])
        elif key in API_KEYS:
            self._switch_api(API_KEYS[key])

    def _switch(self, fault: str, on: float, off: float) -> None:
        faults = self._simulator.faults
        value = on if getattr(faults, fault) == off else off
        setattr(faults, fault, value)
        self._tell(f"{fault}: {'off' if value == off else 'on' if value is True else value}")

    def _switch_api(self, name: str) -> None:
        self._tell(f"{name}: {'on' if self._simulator.faults.switch_api(name) else 'off'}")

    # Changes of rooms

    def _while_away(self) -> None:
        for change, times in (
            (self._change, self._plan.away_change),
            (lambda: self._rename(push=False), self._plan.away_rename),
            (lambda: self._delete(push=False), self._plan.away_delete),
        ):
            for _ in range(times):
                change()

    def _change(self) -> None:
        if room := self._some_room():
            before = room.limits
            self._simulator.admin.change_at_random(room, push=False)
            changed = ", ".join(name for name, section in room.limits.items() if section != before[name])
            self._tell(f"{_described(room)}  has other limits ({changed}) now; nobody is told")

    def _rename(self, *, push: bool) -> None:
        if room := self._some_room():
            self._renamed += 1
            name = f"{self._random.choice(NAMES)} {self._renamed}"
            self._tell(f"{_described(room)}  is called {name} now{'' if push else '; nobody is told'}")
            self._simulator.admin.rename(room, name, push=push)

    def _delete(self, *, push: bool) -> None:
        if room := self._some_room():
            self._tell(f"{_described(room)}  is deleted{'' if push else '; nobody is told'}")
            self._simulator.admin.remove(room, push=push)

    def _some_room(self) -> Place | None:
        rooms = self._simulator.estate.rooms
        if not rooms:
            self._tell("no room is left")
        return self._random.choice(rooms) if rooms else None

    def _named(self, push: Push) -> str:
        """The event's id and what it is about."""
        told = msgspec.json.decode(push.payload)
        place = self._simulator.estate.get(_about(told["event"]))
        return f"{push.event_id}  {_described(place) if place else told['header']['event_type']}"


def _about(event: dict[str, Any]) -> str:
    """The id of the room or level that an event is about."""
    told = event.get("room") or event.get("room_level") or event
    return str(told.get("scope_id") or told.get("room_id") or told["room_level_id"])


def _described(place: Place) -> str:
    return f"{'room' if place.scope_type == ROOM else 'level'} {place.name} ({place.id[:12]}…)"


def _greeting(simulator: Simulator | WebhookPlatform, api: Simulator) -> str:
    webhook = simulator is not api
    how = (
        f"pushes to {simulator.domain}, once that answers a challenge, and answers"
        if webhook
        else "is simulated"
    )
    estate = simulator.estate
    return f"""\
A Feishu platform {how} at {api.domain}. It has {len(estate.rooms)} rooms on {len(estate.levels)} levels.
To let a daemon {"ask" if webhook else "connect to"} it, put this into its configuration:

[lark]
domain = "{api.domain}"
app_id = "{api.app_id}"
app_secret = "{api.app_secret}"
{'transport = "webhook"' if webhook else ""}
[store]
url = "sqlite:///simulated-events.db"
"""
