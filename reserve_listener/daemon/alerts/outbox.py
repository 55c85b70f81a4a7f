"""Alerts on their way to one sink, in order, past the store.

What must stay true: a sink that hangs or is down delays only its own alerts; whatever a sink does, each attempt and each alert
comes to an end; and the queue is bounded, in favour of new alerts.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from reserve_listener.clock import now_ms
from reserve_listener.daemon.alerts.conditions import SinkNow
from reserve_listener.daemon.alerts.event import delivery_of
from reserve_listener.delivery.retry import RetryPolicy, retry_delay_s
from reserve_listener.errors import MisconfiguredSinkError, PermanentDeliveryError, SinkGoneError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.daemon.alerts.journal import Alert, Key
    from reserve_listener.model import Delivery

WAITING: Final = 64
"""Alerts that wait for a sink: more than there are in a bad day. Beyond it the oldest is dropped."""

ATTEMPT_S: Final = 60.0
"""Sinks give up by themselves, http after 10 s; this is for one that does not."""

GIVEN_UP_MS: Final = 24 * 3600 * 1000
"""An alert of yesterday wakes nobody."""

POLICY: Final = RetryPolicy(base_s=1.0, cap_s=60.0)
"""A sink that is up again has its alerts within a minute."""

DOWN: Final = 3
"""After so many failures in a row the sink is down: others are told."""

MARKS: Final = 20
"""Of an alert, the latest: one that is told every four hours fires for three days then."""
LONGEST_MARK: Final = 200
"""Ids of messages have some 40 characters; a sink may not fill the memory of alerts."""

ABSENT_S: Final = 1.0
"""How long to wait for a sink that a reload is exchanging."""

log = structlog.get_logger("alerts")


class Tell(Protocol):
    """Hands a sink an alert, and the marks that it gave for it: see `delivery.aside`."""

    async def __call__(self, alert: Delivery, marks: Sequence[str], /, *, timeout_s: float) -> Sequence[str]:
        """Its marks now. Raises what the sink raises, or `TimeoutError`."""


class Outbox:
    """Carries alerts by what `find` gives (None: the sink is not there now). `told` is called with each that needs no more attempts.

    `marks` are those that the sink has given, of each alert until its end; they are kept up to date here.
    """

    def __init__(
        self,
        name: str,
        find: Callable[[], Tell | None],
        *,
        app_id: str,
        told: Callable[[str, Alert], None],
        marks: dict[Key, tuple[str, ...]] | None = None,
        redact: Callable[[str], str] = str,
        attempt_s: float = ATTEMPT_S,
        now_ms: Callable[[], int] = now_ms,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._find = find
        self._app_id = app_id
        self._told = told
        self._marks = {} if marks is None else marks
        self._redact = redact
        self._attempt_s = attempt_s
        self._now_ms = now_ms
        self._sleep = sleep
        self._jitter = jitter
        self._waiting: deque[Alert] = deque()
        self._come = asyncio.Event()
        self._failures = 0
        self._is_proven = False
        self._error: str | None = None
        self._since_ms: int | None = None

    def put(self, alert: Alert) -> None:
        """Send this, too. Of an alert that lasts and waits only the newest is of use."""
        self._waiting = deque(one for one in self._waiting if not _is_repeat(one, alert))
        self._waiting.append(alert)
        while len(self._waiting) > WAITING:
            self._drop(self._waiting.popleft(), f"more than {WAITING} alerts wait for this sink")
        self._come.set()

    @property
    def state(self) -> SinkNow:
        """How the sink does, by the alerts that it was to carry."""
        if self._failures < DOWN:
            return SinkNow(state="ok", is_proven=self._is_proven)
        return SinkNow(state="down", since_ms=self._since_ms, error=self._error)

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything that the sink has not got yet."""
        return bool(self._waiting)

    async def run(self) -> None:
        """For ever, until cancelled. What waits then is told after the next start."""
        while True:
            while not self._waiting:
                self._come.clear()
                await self._come.wait()
            alert = self._waiting[0]
            if (tell := self._find()) is None:
                if not self._is_too_old(alert):
                    await self._sleep(ABSENT_S)
                continue
            await self._carry(tell, alert)

    async def _carry(self, tell: Tell, alert: Alert) -> None:
        delivery = delivery_of(alert, self._app_id, self._failures)
        try:
            marks = await tell(delivery, self._marks.get(alert.key, ()), timeout_s=self._attempt_s)
            self._marks[alert.key] = _bounded(marks)
        except TimeoutError:
            await self._failed(alert, TimeoutError(f"no answer within {self._attempt_s:g} s"))
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything
            await self._failed(alert, error)
        else:
            self._failures, self._error, self._since_ms, self._is_proven = 0, None, None, True
            self._done(alert)

    async def _failed(self, alert: Alert, error: Exception) -> None:
        self._failures += 1
        self._error = self._redact(str(error) or type(error).__name__)
        self._since_ms = self._since_ms or self._now_ms()
        if isinstance(error, (PermanentDeliveryError, SinkGoneError)):
            self._failures = max(self._failures, DOWN)
            self._drop(alert, self._error)
            return
        if isinstance(error, MisconfiguredSinkError):
            self._failures = max(self._failures, DOWN)
        if self._is_too_old(alert):
            return
        delay_s = retry_delay_s(POLICY, error, attempts=self._failures, jitter=self._jitter())
        log.warning(
            "alert.retry", sink=self.name, alert=alert.alert, state=alert.state, error=self._error,
            attempt=self._failures, delay_s=round(delay_s, 3),
        )  # fmt: skip
        await self._sleep(delay_s)

    def _is_too_old(self, alert: Alert) -> bool:
        if self._now_ms() - alert.told_ms <= GIVEN_UP_MS:
            return False
        self._drop(alert, "given up after a day")
        return True

    def _drop(self, alert: Alert, why: str) -> None:
        log.error("alert.not_delivered", sink=self.name, alert=alert.alert, state=alert.state, error=why)
        self._done(alert)

    def _done(self, alert: Alert) -> None:
        if self._waiting and self._waiting[0] is alert:
            self._waiting.popleft()
        if not alert.is_firing or not self._marks.get(alert.key):
            self._marks.pop(alert.key, None)
        self._told(self.name, alert)


def _bounded(marks: Sequence[str] | None) -> tuple[str, ...]:
    """What a sink, maybe a plugin's, wants to be kept."""
    return tuple(mark for mark in marks or () if isinstance(mark, str) and len(mark) <= LONGEST_MARK)[-MARKS:]


def _is_repeat(earlier: Alert, later: Alert) -> bool:
    """Whether both tell the same alert, the later one later."""
    return (earlier.key, earlier.state, earlier.since_ms) == (later.key, later.state, later.since_ms)
