"""The long connection, through `lark_oapi.ws.Client`: the one place that knows the SDK client's private names.

The SDK connects (address, handshake, its headers); everything after the handshake is ours, since its own loops can be
alive and connected to nothing for ever (endpoint call without timeout, pongs never checked, 1 MiB frames). The names
touched are listed in `TOUCHED`; `tests/transports/long_connection/test_sdk.py` fails loudly when a new version moves one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from websockets.exceptions import ConnectionClosed

from reserve_listener.config import certificates
from reserve_listener.lark import frames
from reserve_listener.net import proxies
from reserve_listener.net.reaching import Reaching, Step
from reserve_listener.transports.long_connection import endpoint, sdk
from reserve_listener.transports.long_connection.failures import ConnectionLostError
from reserve_listener.transports.long_connection.frame_handler import FrameHandler
from reserve_listener.transports.long_connection.tunnel import for_websockets
from reserve_listener.transports.long_connection.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.protocols import Accept
    from reserve_listener.transports.long_connection.timing import Timing

TOUCHED: Final = (
    "_connect",
    "_get_conn_url",
    "_receive_message_loop",
    "_configure",
    "_conn",
    "_service_id",
    "_cache",
)
MODULE_NAMES: Final = ("loop", "_ws_connect_kwargs", "LogLevel")

HANDSHAKE_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0
STAGGER_S: Final = 0.25
"""A name's next address is tried after so long, beside the first (RFC 8305, 5)."""
PROBE_TIMEOUT_S: Final = 5.0
UNANSWERED_PINGS: Final = 2
"""So many of our own pings without a pong mean that the peer is gone."""

log = structlog.get_logger("connection")


class LarkSettings(Protocol):
    """What a connection needs of `[lark]`."""

    @property
    def app_id(self) -> str:
        """`cli_…`."""

    @property
    def domain(self) -> str:
        """The platform's address, without a path."""

    @property
    def endpoint_timeout(self) -> float:
        """Seconds."""

    @property
    def liveness_timeout(self) -> float:
        """Seconds within which a dead peer is found."""


def build_dispatcher(handle: Callable[[bytes], None]) -> Any:
    """The SDK's dispatcher with our handler registered the SDK's way, for each type that the daemon takes.

    The handler turns the typed event back into JSON. The daemon does not go through it, since the typed model drops
    unknown keys: raw bytes reach intake first, and the dispatcher's registry says which types are ours. With an
    unmodified SDK client the handler yields the same event (`tests/transports/long_connection/test_contract.py`).
    """
    lark = sdk.load()

    def on_event(event: Any) -> None:
        handle(lark.json.marshal(event).encode())

    return (
        lark.dispatcher.builder("", "")
        .register_p2_vc_reserve_config_updated_v1(on_event)
        .register_p2_vc_room_created_v1(on_event)
        .register_p2_vc_room_updated_v1(on_event)
        .register_p2_vc_room_deleted_v1(on_event)
        .register_p2_vc_room_level_created_v1(on_event)
        .register_p2_vc_room_level_updated_v1(on_event)
        .register_p2_vc_room_level_deleted_v1(on_event)
        .build()
    )


def is_registered(dispatcher: Any) -> Callable[[str], bool]:
    """Whether the dispatcher has a handler for a key such as `p2.vc.reserve_config.updated_v1`."""
    registry = dispatcher._processorMap  # noqa: SLF001  # there is no public way to ask
    return lambda key: key in registry


class LongConnection:
    """One connection from `open` to `close`. Made anew for each attempt, so nothing of an old one lingers."""

    def __init__(
        self,
        settings: LarkSettings,
        *,
        app_secret: str,
        proxy: str | None,
        dispatcher: Any,
        accept: Accept,
        timing: Timing,
    ) -> None:
        self.timing = timing
        self.last_frame_s: float | None = None
        self._settings = settings
        self._app_secret = app_secret
        self._proxy = proxy
        self._dispatcher = dispatcher
        self._handler = FrameHandler(accept, self._send, self._configure)
        self._lost: asyncio.Future[ConnectionLostError] = asyncio.get_running_loop().create_future()
        self._pinger: asyncio.Task[None] | None = None
        self._receiving = True
        self._client: Any = None
        self._wire: Wire | None = None

    async def open(self) -> None:
        """Connect, or raise what `failures.classify` understands. Takes at most both timeouts together."""
        place = await endpoint.fetch(
            domain=self._settings.domain,
            app_id=self._settings.app_id,
            app_secret=self._app_secret,
            timeout_s=self._settings.endpoint_timeout,
            proxy=self._proxy,
        )
        self._configure(dict(place.client_config))
        encrypted = place.url.startswith("wss:")
        # websockets' default, made in a thread: reading the certificates takes some 20 ms.
        tls = await asyncio.to_thread(certificates.trusted, ssl.create_default_context) if encrypted else None
        way = proxies.decide(place.url, setting=self._proxy, key="lark.proxy")
        self._client = self._make_client(place.url, tls, way)
        reaching = Reaching(place.url, proxy=way, setting=None)
        with reaching.explained():
            try:
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S + CLOSE_TIMEOUT_S):
                    await self._client._connect()  # noqa: SLF001  # see TOUCHED
            except Exception as error:
                reaching.step = self._step_of(error, way)
                raise
        self._pinger = asyncio.create_task(self._ping_loop(), name="connection-ping")
        self._pinger.add_done_callback(self._on_pinger_end)

    async def wait_lost(self) -> ConnectionLostError:
        """Why the connection ended, once it has."""
        return await asyncio.shield(self._lost)

    def stop_receiving(self) -> None:
        """Leave what arrives from now on unanswered: the platform pushes it again, to another client or later."""
        self._receiving = False

    async def probe(self) -> None:
        """Find out within seconds whether the peer is there; if not, the connection is lost."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await (await self._client._conn.ping())  # noqa: SLF001  # see TOUCHED
        except (TimeoutError, ConnectionClosed, OSError, RuntimeError):
            self._give_up("no answer after the machine woke up")

    async def flush(self) -> None:
        """Wait until the answers queued so far are on their way."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self._wire is not None and self._pinger is not None:  # it was open
                    await self._wire.flush()

    async def close(self) -> None:
        """Tear the client down whole: tasks, socket, the SDK's cache. Does not raise."""
        if self._pinger is not None:
            self._pinger.cancel()
            await asyncio.wait([self._pinger])
        if self._client is not None:
            await self._client.tear_down()

    def _step_of(self, error: Exception, way: proxies.Proxy | None) -> Step:
        """How far the library came: it makes the wire once TCP is connected, and connects the wire after TLS."""
        if self._wire is not None:
            return Step.WEBSOCKET if hasattr(self._wire, "transport") else Step.TLS
        to_proxy = isinstance(error, OSError) and not isinstance(error, TimeoutError)
        return Step.CONNECT if way is None or to_proxy else Step.PROXY

    # -- what the client and the frame handler call -------------------------------------------------------------------------

    def _make_client(self, url: str, tls: ssl.SSLContext | None, way: proxies.Proxy | None) -> Any:
        lark = sdk.load()
        lark.client.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]  # see MODULE_NAMES
        kwargs = {
            "create_connection": self._make_wire,
            "ssl": tls,
            "max_size": frames.MAX_FRAME_BYTES,
            "compression": None,
            "proxy": for_websockets(way),
            "happy_eyeballs_delay": STAGGER_S,
            "open_timeout": HANDSHAKE_TIMEOUT_S,
            # A third each for the wait, the missing pong and the close: a dead peer is found within the timeout.
            "close_timeout": min(CLOSE_TIMEOUT_S, self._settings.liveness_timeout / 3),
            "ping_interval": self._settings.liveness_timeout / 3,
            "ping_timeout": self._settings.liveness_timeout / 3,
        }
        lark.client._ws_connect_kwargs = lambda _headers=None: kwargs  # type: ignore[attr-defined]  # noqa: SLF001  # the SDK forces proxy=None and 1 MiB
        return _client_class()(self._settings.app_id, url, self._dispatcher, self._on_end)

    def _make_wire(self, *args: Any, **options: Any) -> Wire:
        self._wire = Wire(
            *args,
            on_message=self._on_message,
            on_error=self._on_end,
            keep_bounds=self._handler.keep_bounds,
            **options,
        )
        return self._wire

    def _on_message(self, message: bytes | str) -> None:
        self.last_frame_s = time.monotonic()
        if self._receiving:
            self._handler.handle(message)

    def _on_end(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_result(_lost(error))

    def _on_pinger_end(self, task: asyncio.Task[None]) -> None:
        """A pinger that dies takes the connection with it: without pings it would be one in name only."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._on_end(error)

    def _configure(self, config: dict[str, Any]) -> None:
        self.timing = self.timing.updated(config)

    def _send(self, message: bytes) -> None:
        if self._wire is not None:  # it is, since it was heard from
            self._wire.send_soon(message)

    def _give_up(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(ConnectionLostError(reason, by_server=False))

    # -- liveness -----------------------------------------------------------------------------------------------------------

    async def _ping_loop(self) -> None:
        service = int(self._client._service_id)  # noqa: SLF001  # see TOUCHED
        ping = frames.encode(
            frames.new(service=service, method=frames.CONTROL, headers={frames.TYPE: frames.PING})
        )
        unanswered, pongs = 0, self._handler.pongs
        while True:
            self._send(ping)
            await asyncio.sleep(self.timing.ping_interval_s)
            unanswered = unanswered + 1 if self._handler.pongs == pongs else 0
            pongs = self._handler.pongs
            if unanswered >= UNANSWERED_PINGS:
                self._give_up(f"{unanswered} pings without a pong, {self.timing.ping_interval_s:g} s each")


def _lost(error: Exception) -> ConnectionLostError:
    if isinstance(error, ConnectionLostError):
        return error
    if not isinstance(error, ConnectionClosed):
        return ConnectionLostError(f"{type(error).__name__}: {error}"[:200], by_server=False)
    if error.rcvd is not None and not (error.sent is not None and error.rcvd_then_sent is False):
        reason = f": {error.rcvd.reason[:200]}" if error.rcvd.reason else ""
        return ConnectionLostError(f"closed by the server, code {error.rcvd.code}{reason}", by_server=True)
    if error.sent is not None:
        return ConnectionLostError(
            f"closed by us, code {error.sent.code} {error.sent.reason}", by_server=False
        )
    return ConnectionLostError("the connection broke", by_server=False)


_classes: list[Any] = []


def _client_class() -> Any:
    """The subclass of the SDK's client, made once the SDK is loaded."""
    if not _classes:
        _classes.append(_subclass(sdk.load().client))
    return _classes[0]


def _subclass(module: Any) -> Any:  # noqa: C901  # a class body, not a branch
    class ListenerClient(module.Client):  # type: ignore[misc]  # the SDK has no types
        def __init__(
            self,
            app_id: str,
            url: str,
            dispatcher: Any,
            on_end: Callable[[Exception], None],
        ) -> None:
            # The secret stays with the endpoint call. At INFO the SDK logs the URL, which is a credential.
            super().__init__(
                app_id, "", log_level=module.LogLevel.WARNING, event_handler=dispatcher, auto_reconnect=False
            )
            self._url = url
            self._on_end = on_end
            self._receiver: asyncio.Task[None] | None = None

        def _get_conn_url(self) -> str:
            return self._url

        async def _receive_message_loop(self) -> None:
            """Started as a task by the SDK's `_connect`. Messages are taken by the wire: what comes here is the end."""
            self._receiver = asyncio.current_task()
            if self._receiver is not None:
                self._receiver.set_name("connection-receive")
            try:
                await self._conn.recv()
            except Exception as error:  # noqa: BLE001  # whatever it was, nothing is received any more: it must be known
                self._on_end(error)

        def _configure(self, conf: Any) -> None:
            """The SDK's own timing is not used; ours hears the endpoint's answer and the pongs itself."""

        async def tear_down(self) -> None:
            """Close and forget everything. `_disconnect` would take 10 s on a half-open socket, under the lock."""
            try:
                if self._conn is not None:
                    with contextlib.suppress(Exception):
                        async with asyncio.timeout(CLOSE_TIMEOUT_S):
                            await self._conn.close()
            finally:  # also when we are cancelled meanwhile
                if self._conn is not None:
                    self._conn.transport.abort()
                # Each discarded client would leak the task of its cache.
                tasks = [task for task in (self._receiver, self._cache._cron) if task is not None]  # noqa: SLF001  # see TOUCHED
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    return ListenerClient
