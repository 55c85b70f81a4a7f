"""The simulated platform: endpoint and HTTP API on one port, a WebSocket server, pushes to a random open connection.

As on the platform, a push goes to one connection, never to all; after an answer other than 200, or none in time, it is repeated
on schedule; and if nobody is connected, an attempt is wasted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from starlette.applications import Starlette

from reserve_listener.lark import frames
from reserve_listener.simulator.administrator import Administrator
from reserve_listener.simulator.connection import SERVICE_ID
from reserve_listener.simulator.endpoint import Endpoint
from reserve_listener.simulator.estate import Estate
from reserve_listener.simulator.events import APP_ID as APP_ID  # noqa: PLC0414
from reserve_listener.simulator.faults import Faults
from reserve_listener.simulator.gateway import Gateway
from reserve_listener.simulator.http import HttpServer
from reserve_listener.simulator.messages import Group
from reserve_listener.simulator.openapi.app import OpenApi
from reserve_listener.simulator.pusher import Pusher
from reserve_listener.simulator.pushes import Ledger
from reserve_listener.simulator.signal import Signal
from reserve_listener.simulator.watcher import Watcher

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from reserve_listener.simulator.connection import Connection
    from reserve_listener.simulator.openapi import Call, Unstated
    from reserve_listener.simulator.pushes import Push

APP_SECRET: Final = "simulated0secret0simulated0secret"  # noqa: S105  # opens nothing but this simulator
RETRY_DELAYS: Final = (15.0, 300.0, 3600.0, 21600.0)
CLIENT_CONFIG: Final = {
    "ReconnectCount": -1,
    "ReconnectInterval": 120,
    "ReconnectNonce": 30,
    "PingInterval": 120,
}
TICK: Final = 0.005
"""Seconds between two looks at the clock: the precision of timeouts, retries and timed faults."""


class Simulator:
    """`async with Simulator(…) as simulator`: a platform at `simulator.domain`.

    `faults` may be changed at any time. `client_config` goes out with each URL and each pong (None: the platform's
    usual one, `{}`: none at all) and may be changed too. `retry_delays` (seconds after a failed attempt, as many as
    there are retries) and `answer_timeout` (seconds) are multiplied by `time_scale`; with a small scale give a
    longer `answer_timeout`. `port` is the endpoint's, 0 takes a free one. `OSError` when it is in use.

    The API answers from `estate` (None: 40 rooms), and `admin` changes it. `clock` tells the time of both in seconds:
    `Date`, the lives of tokens, the rate limits, whose minutes are multiplied by `time_scale`, too, and when events were made.
    """

    def __init__(
        self,
        *,
        app_id: str = APP_ID,
        app_secret: str = APP_SECRET,
        faults: Faults | None = None,
        client_config: dict[str, int] | None = None,
        retry_delays: Sequence[float] = RETRY_DELAYS,
        time_scale: float = 1.0,
        answer_timeout: float = 3.0,
        port: int = 0,
        seed: int | None = None,
        watcher: Watcher | None = None,
        estate: Estate | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app_id = app_id
        self.app_secret = app_secret
        self._faults = faults or Faults()
        self.client_config = dict(CLIENT_CONFIG) if client_config is None else client_config
        self.endpoint_called_at: list[float] = []
        """When the endpoint was called, in the loop's time."""
        self.connects = 0
        """Connections so far."""
        self.app_pings = 0
        """App-level pings so far, answered or not."""
        self._garbled = 0
        self._watcher = watcher or Watcher()
        self._signal = Signal()
        self._last_drop = 0.0
        self._stack = contextlib.AsyncExitStack()
        chance = random.Random(seed)  # noqa: S311  # secrets do not come from here
        self._gateway = Gateway(
            faults=self._faults,
            random=chance,
            on_message=self._received,
            on_open=self._opened,
            on_close=self._closed,
        )
        self._ledger = Ledger(
            answer_timeout=answer_timeout * time_scale,
            retry_delays=[delay * time_scale for delay in retry_delays],
        )
        self._pusher = Pusher(
            gateway=self._gateway,
            ledger=self._ledger,
            faults=self._faults,
            random=chance,
            signal=self._signal,
            watcher=self._watcher,
        )
        endpoint = Endpoint(
            app_id=app_id,
            app_secret=app_secret,
            faults=self._faults,
            issue=self._gateway.issue,
            client_config=lambda: self.client_config,
            on_call=self._endpoint_called,
            on_answer=self._watcher.endpoint_answered,
        )
        self.estate = estate or Estate()
        """What the API answers from; changed by `admin`."""
        self.admin = Administrator(self.estate, app_id=app_id, push=self._pusher.push, clock=clock)
        self.group = Group(lambda: self.domain, clock, self._signal.fire)
        """The group that bots and the app post to."""
        self._api = OpenApi(
            app_id=app_id,
            app_secret=app_secret,
            estate=self.estate,
            group=self.group,
            faults=self._faults,
            connections=lambda: self.connections,
            on_change=self.admin.tell,
            on_call=lambda _: self._signal.fire(),
            on_answer=self._api_answered,
            clock=clock,
            scale=time_scale,
        )
        self._http = HttpServer(
            Starlette(routes=[*endpoint.routes, *self._api.routes, *self.group.routes]), port=port
        )

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._gateway)
            await stack.enter_async_context(self._http)
            clock = asyncio.create_task(self._keep_time(), name="simulator-clock")
            stack.push_async_callback(_end, clock)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def faults(self) -> Faults:
        """The faults in force. Change this object; do not replace it."""
        return self._faults

    @property
    def domain(self) -> str:
        """The domain to configure a client with, e.g. `http://127.0.0.1:7070`."""
        return self._http.url

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._gateway.open())

    @property
    def endpoint_calls(self) -> int:
        """How many requests the endpoint has had, answered or not."""
        return len(self.endpoint_called_at)

    @property
    def calls(self) -> list[Call]:
        """The calls of the API so far, in order."""
        return self._api.calls

    @property
    def permissions(self) -> set[str]:
        """What the app may do. Change this set; do not replace it. Writing limits needs `vc:room`."""
        return self._api.permissions

    @property
    def unstated(self) -> Unstated:
        """How the API does what the documentation leaves open. Change this object; do not replace it."""
        return self._api.unstated

    def expire_tokens(self) -> None:
        """Make all tokens given out so far invalid."""
        self._api.tokens.expire()

    @property
    def acknowledged(self) -> set[str]:
        """The ids of the events that were answered 200 in time."""
        return self._pusher.acknowledged

    @property
    def answers(self) -> Counter[int | None]:
        """How many attempts there were, by the code of the answer; None: no answer in time."""
        return self._pusher.answers

    @property
    def unexpected(self) -> int:
        """How many messages answered nothing: too late, repeated, not a frame, or of an unknown kind."""
        return self._garbled + self._pusher.unexpected

    @property
    def unanswered(self) -> int:
        """How many attempts are waiting for their answer."""
        return self._ledger.unanswered

    @property
    def to_retry(self) -> int:
        """How many pushes are waiting for their next attempt."""
        return self._ledger.to_retry

    async def until(self, condition: Callable[[], bool], timeout: float | None = 5.0) -> None:  # noqa: ASYNC109
        """Return once this condition on the simulator's state holds; `TimeoutError` after `timeout` seconds.

        None waits for as long as it takes, which is for people at a terminal, not for tests.
        """
        await self._signal.until(condition, timeout)

    async def connected(self, timeout: float | None = 5.0, *, count: int = 1) -> None:  # noqa: ASYNC109
        """Return once at least `count` connections are open; `TimeoutError`."""
        await self.until(lambda: self.connections >= count, timeout)

    async def disconnected(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Return once no connection is open; `TimeoutError`."""
        await self.until(lambda: self.connections == 0, timeout)

    def push(
        self,
        envelope: dict[str, Any] | bytes,
        *,
        message_id: str | None = None,
        type: str = frames.EVENT,  # noqa: A002  # the header's name
        parts: int = 1,
        part_order: Sequence[int] | None = None,
        repeat_parts: bool = False,
        retry: bool = True,
    ) -> Push:
        """Push an event (bytes go as they are) to a random open connection, at once and without waiting.

        `parts`: how many pieces to split the payload into. `part_order` (which pieces, in which order; some may be missing) and
        `repeat_parts` (each twice) apply to the first attempt. `retry=False`: one attempt only. `ValueError` if a message with
        this id is on its way.
        """
        return self._pusher.push(
            envelope,
            message_id=message_id,
            type=type,
            parts=parts,
            part_order=part_order,
            repeat_parts=repeat_parts,
            retry=retry,
        )

    async def push_many(
        self, envelopes: Iterable[dict[str, Any] | bytes], *, in_flight: int = 64, retry: bool = True
    ) -> list[Push]:
        """Push them all, with at most `in_flight` waiting for an answer at a time.

        Returns when each has had its first outcome, which takes at most `answer_timeout` for each.
        """
        slots = asyncio.Semaphore(in_flight)
        pushes = []
        for envelope in envelopes:
            await slots.acquire()
            pushes.append(self._pusher.push(envelope, retry=retry, first_outcome=slots.release))
        for _ in range(in_flight):
            await slots.acquire()
        return pushes

    def send_raw(self, message: bytes) -> None:
        """Send a message as it is to all open connections."""
        for connection in self._gateway.open():
            connection.write([message])

    def send_control(self, type: str = frames.PONG, payload: bytes = b"") -> None:  # noqa: A002
        """Send a control frame to all open connections, e.g. a pong whose payload is a new ClientConfig."""
        self.send_raw(_control(type, payload))

    async def drop(self, code: int = 1001, reason: str = "", *, abort: bool = False) -> None:
        """Close all connections with this code, or reset them without a close frame. Returns once they are gone."""
        dropped = self._gateway.open()
        if abort:
            self.abort()
        async with asyncio.TaskGroup() as closing:
            for connection in self._gateway.open():
                closing.create_task(connection.close(code, reason), name="simulator-close")
        await self.until(lambda: not any(each in self._gateway.connections for each in dropped))

    def abort(self) -> None:
        """Reset all connections, without a close frame and without waiting."""
        for connection in self._gateway.open():
            connection.abort()

    def stall_open(self) -> None:
        """Make the connections that are open now half-open for good; later ones work. Compare `Faults.stall`."""
        for connection in self._gateway.open():
            connection.stall()

    async def _keep_time(self) -> None:
        loop = asyncio.get_running_loop()
        self._last_drop = loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            for connection in self._gateway.open():
                connection.tick(now)
            self._pusher.tick(now)
            self._drop_in_time(now)

    def _drop_in_time(self, now: float) -> None:
        if not self.faults.drop_every:
            self._last_drop = now
        elif now - self._last_drop >= self.faults.drop_every:
            self._last_drop = now
            self.abort()

    def _received(self, connection: Connection, message: bytes | str) -> None:
        try:
            frame = frames.decode(message if isinstance(message, bytes) else message.encode())
        except frames.FrameError:
            self._garbled += 1
            return
        if frame.method == frames.DATA:
            self._pusher.answered(frame)
        elif frames.headers_of(frame).get(frames.TYPE) == frames.PING:
            self._pinged(connection)
        else:
            self._garbled += 1

    def _pinged(self, connection: Connection) -> None:
        self.app_pings += 1
        if not self.faults.no_app_pong:
            payload = msgspec.json.encode(self.client_config) if self.client_config else b""
            connection.write([_control(frames.PONG, payload)])
        self._signal.fire()

    def _opened(self, _connection: Connection) -> None:
        self.connects += 1
        self._watcher.connected(self.connections)
        self._signal.fire()

    def _closed(self, connection: Connection) -> None:
        self._pusher.lost(connection)
        self._watcher.disconnected(self.connections, connection.close_code)
        self._signal.fire()

    def _api_answered(self, call: Call) -> None:
        self._watcher.api_answered(call)
        self._signal.fire()

    def _endpoint_called(self) -> None:
        self.endpoint_called_at.append(asyncio.get_running_loop().time())
        self._signal.fire()


def _control(kind: str, payload: bytes) -> bytes:
    return frames.encode(
        frames.new(service=SERVICE_ID, method=frames.CONTROL, headers={frames.TYPE: kind}, payload=payload)
    )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
