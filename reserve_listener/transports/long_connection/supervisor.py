"""Keeping the long connection: connecting, connected, lost, waiting (until), connecting, and so on.

What must stay true: there is a connection, or a next attempt at a known time; each change of state is one log line.
Nothing is final, except the platform's refusal of an app that this store has never seen connected. Tenacity does the
waiting; cancelling the task interrupts it at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
import tenacity

from reserve_listener.errors import RefusedAtStartError, StoreError
from reserve_listener.model import State
from reserve_listener.transports.long_connection.failures import ConnectionLostError, Failure, Kind, classify
from reserve_listener.transports.long_connection.timing import Timing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STABLE_S: Final = 60.0
"""A connection that lasted so long sets the backoff back to its beginning."""

JITTER: Final = 0.2

ATTEMPT_TIMEOUT_S: Final = 30.0
"""An attempt as a whole, but for the call of the endpoint, whose timeout is configured: twice what handshake and closing may take."""

STORE_TIMEOUT_S: Final = 5.0
"""How long the store may take to note a connection; meanwhile nobody looks whether it is lost."""

log = structlog.get_logger("connection")


class _AskedAnewError(ConnectionLostError):
    """Nothing was wrong: a person asked for a new connection."""


class Connection(Protocol):
    """A transport that is opened, lost and closed; see `transports.long_connection`."""

    timing: Timing
    last_frame_s: float | None
    """When something was last read from it, on the monotonic clock."""

    async def open(self) -> None:
        """Connect, or raise what `classify` understands. Bounded in time."""

    async def wait_lost(self) -> ConnectionLostError:
        """Why the connection ended, once it has. Safe to cancel."""

    def stop_receiving(self) -> None:
        """Leave what arrives from now on unanswered."""

    async def probe(self) -> None:
        """Find out within seconds whether the peer is there; if not, the connection is lost. Does not raise."""

    async def flush(self) -> None:
        """Send the answers that are ready. Bounded in time."""

    async def close(self) -> None:
        """Give everything back. Does not raise; bounded in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Seconds: full jitter from `base_s` to `cap_s`; `refused_s` while somebody has to mend something."""

    base_s: float = 1.0
    cap_s: float = 60.0
    refused_s: float = 300.0


class Supervisor:
    """Owns the connection. `connect` makes a new one, not yet open, for each attempt; it may raise `ConfigError`."""

    def __init__(
        self,
        connect: Callable[[Timing], Awaitable[Connection]],
        *,
        backoff: Backoff,
        app_known: Callable[[], Awaitable[bool]],
        on_connected: Callable[[], Awaitable[None]],
        on_state: Callable[[State], None] = lambda _state: None,
        refused_hint: str | None = None,
        attempt_timeout_s: float = ATTEMPT_TIMEOUT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = State("starting", clock())
        self._connect = connect
        self._backoff = backoff
        self._app_known = app_known
        self._on_connected = on_connected
        self._on_state = on_state
        self._refused_hint = refused_hint
        self._attempt_timeout_s = attempt_timeout_s
        self._hurry = asyncio.Event()
        self._renew = asyncio.Event()
        self._last_frame_s: float | None = None
        self._probe: asyncio.Task[None] | None = None
        self._sleep = sleep
        self._jitter = jitter
        self._clock = clock
        self._timing = Timing()
        self._current: Connection | None = None
        self._was_connected = False
        """The store may have failed to note it: after a connection nothing is final."""

    async def run(self) -> None:
        """For ever, until cancelled. Raises `RefusedAtStartError` for an app that was never connected."""
        while True:
            retrying = tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception(_may_pass),
                wait=self._wait,
                sleep=self._pause,
                before_sleep=self._announce,
                reraise=True,
            )
            failure: Failure = await retrying(self._session)
            await self._first_retry(failure)

    def on_resume(self) -> None:
        """The machine was asleep: look at the connection now, or try at once."""
        self._hurry.set()
        if self._current is not None and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._current.probe(), name="connection-probe")

    def reconnect(self) -> bool:
        """A person asks: try at once, or make the connection anew. What is unanswered then is pushed again."""
        self._hurry.set()
        self._renew.set()
        return True

    @property
    def last_frame_s(self) -> float | None:
        """See `protocols.Transport`."""
        if self._current is not None and self._current.last_frame_s is not None:
            self._last_frame_s = self._current.last_frame_s
        return self._last_frame_s

    def stop_accepting(self) -> None:
        """Stop hearing: what arrives now is pushed again. The connection stays up for answers."""
        if self._current is not None:
            self._current.stop_receiving()

    async def close(self) -> None:
        """Send the answers that are ready and close."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        if self._current is not None:
            await self._current.flush()
            await self._current.close()
            self._current = None

    # -- one attempt --------------------------------------------------------------------------------------------------------

    async def _session(self) -> Failure:
        """Connect and stay until the connection is lost. Returns when it had been stable, else raises."""
        self._become("connecting")
        try:
            async with asyncio.timeout(self._attempt_timeout_s) as deadline:
                connection = await self._opened()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            # Its steps have deadlines of their own; this one is for what has none, such as a disk that hangs.
            raise TimeoutError(f"the attempt took longer than {self._attempt_timeout_s:g} s") from error
        self._current = connection
        try:
            return await self._stay(connection)
        except Exception:
            # Not when cancelled: then `close` sends the last answers over it.
            await self._discard(connection)
            raise

    async def _opened(self) -> Connection:
        connection = await self._connect(self._timing)
        try:
            await connection.open()
        except BaseException as error:
            await connection.close()
            self._timing = connection.timing  # the endpoint may have answered before the handshake failed
            if isinstance(error, Exception):
                await self._judge(classify(error))
            raise
        return connection

    async def _stay(self, connection: Connection) -> Failure:
        connected_at = self._clock()
        self._was_connected = True
        self._renew.clear()
        self._become("connected", change="connected")
        log.info("connection.connected", ping_interval_s=connection.timing.ping_interval_s)
        await self._tell_connected()
        lost = await self._end_of(connection)
        lasted_s = self._clock() - connected_at
        self._timing = connection.timing
        failure = classify(lost)
        asked = isinstance(lost, _AskedAnewError)
        change = "requested" if asked else "closed" if failure.by_server else "lost"
        self._become("lost", reason=failure.reason, change=change)
        tell = log.info if asked else log.warning
        tell("connection.lost", reason=failure.reason, lasted_s=round(lasted_s, 1))
        if lasted_s < STABLE_S and not asked:
            raise lost
        await self._discard(connection)
        return failure

    async def _end_of(self, connection: Connection) -> ConnectionLostError:
        """Why it is over. Asked for a new one, its last answers are sent first."""
        lost = asyncio.create_task(connection.wait_lost(), name="connection-lost")
        renew = asyncio.create_task(self._renew.wait(), name="connection-renew")
        try:
            await asyncio.wait([lost, renew], return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                return lost.result()
            connection.stop_receiving()
            await connection.flush()
            return _AskedAnewError("a new connection was requested", by_server=False)
        finally:
            for task in (lost, renew):
                task.cancel()
            await asyncio.gather(lost, renew, return_exceptions=True)

    async def _discard(self, connection: Connection) -> None:
        self._last_frame_s = self.last_frame_s
        self._current = None
        await connection.close()

    async def _tell_connected(self) -> None:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._on_connected()
        except (StoreError, TimeoutError) as error:
            # A failing store must not cost the connection: pushes are answered 500 meanwhile.
            log.error("connection.not_recorded", error=str(error) or "the store does not answer")

    async def _judge(self, failure: Failure) -> None:
        if failure.kind is Kind.REFUSED_CREDENTIALS and not await self._known():
            raise RefusedAtStartError(
                f"the platform refuses this app: {failure.reason}. {failure.hint or ''}".rstrip()
            )

    async def _known(self) -> bool:
        if self._was_connected:
            return True
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                return await self._app_known()
        except (StoreError, TimeoutError) as error:  # nobody knows: then nothing is final
            log.error("connection.not_recorded", error=str(error) or "the store does not answer")
            return True

    # -- waiting ------------------------------------------------------------------------------------------------------------

    def _wait(self, retry: tenacity.RetryCallState) -> float:
        """Seconds until the next attempt; tenacity asks after each failure."""
        error = _error_of(retry)
        failure = classify(error)
        if failure.kind is not Kind.PASSING:
            delay_s = self._backoff.refused_s * (1 + JITTER * (2 * self._jitter() - 1))
        elif isinstance(error, ConnectionLostError) and retry.attempt_number == 1:
            # At once after a loss of our own. One that is lost again before it was stable counts as a failure.
            delay_s = self._timing.reconnect_nonce_s * self._jitter() if failure.by_server else 0.0
        else:
            ceiling_s = min(
                self._backoff.cap_s, self._backoff.base_s * 2.0 ** min(retry.attempt_number - 1, 60)
            )
            delay_s = ceiling_s * self._jitter()
            if not isinstance(error, ConnectionLostError):
                # The platform's interval is for attempts that fail; two hiccups of a link must not cost a minute.
                delay_s = max(delay_s, min(self._timing.reconnect_interval_s, self._backoff.cap_s))
        wished_s = min(failure.retry_after_s or 0.0, max(self._backoff.refused_s, self._backoff.cap_s))
        return max(delay_s, wished_s)

    def _announce(self, retry: tenacity.RetryCallState) -> None:
        error = _error_of(retry)
        failure = classify(error)
        delay_s = retry.next_action.sleep if retry.next_action is not None else 0.0
        hints = [failure.hint, self._refused_hint if failure.kind is Kind.REFUSED_CREDENTIALS else None]
        hint = "; ".join(filter(None, hints)) or None
        change = "failed" if failure.kind is Kind.PASSING else "refused"
        self._become(
            "waiting",
            until=self._clock() + delay_s,
            reason=failure.reason,
            hint=hint,
            change=None if isinstance(error, ConnectionLostError) else change,  # that it was lost counts
        )
        tell = log.warning if failure.kind is Kind.PASSING else log.error
        facts: dict[str, Any] = {"hint": hint} if hint else {}
        tell(
            "connection.waiting",
            reason=failure.reason,
            attempt=retry.attempt_number,
            delay_s=round(delay_s, 2),
            **facts,
        )

    async def _first_retry(self, failure: Failure) -> None:
        """After a stable connection: at once, or spread by the server's nonce when the server closed it."""
        if failure.by_server:
            delay_s = self._timing.reconnect_nonce_s * self._jitter()
            self._become("waiting", until=self._clock() + delay_s, reason=failure.reason)
            log.info("connection.waiting", reason=failure.reason, attempt=0, delay_s=round(delay_s, 2))
            await self._pause(delay_s)

    async def _pause(self, delay_s: float) -> None:
        """Sleep, unless the machine wakes up meanwhile."""
        self._hurry.clear()

        async def sleep() -> None:
            await self._sleep(delay_s)

        either = [
            asyncio.create_task(sleep(), name="connection-backoff"),
            asyncio.create_task(self._hurry.wait(), name="connection-hurry"),
        ]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in either:
                each.cancel()
            await asyncio.gather(*either, return_exceptions=True)

    def _become(
        self,
        name: str,
        *,
        until: float | None = None,
        reason: str | None = None,
        hint: str | None = None,
        change: str | None = None,
    ) -> None:
        self.state = State(name, self._clock(), until, reason, hint, change)
        self._on_state(self.state)
        if name == "connecting":
            log.info("connection.connecting")


def _may_pass(error: BaseException) -> bool:
    # Tenacity also catches BaseException: a cancellation must go through.
    return isinstance(error, Exception) and not isinstance(error, RefusedAtStartError)


def _error_of(retry: tenacity.RetryCallState) -> BaseException:
    error = retry.outcome.exception() if retry.outcome is not None else None
    return error if error is not None else RuntimeError("no outcome")
