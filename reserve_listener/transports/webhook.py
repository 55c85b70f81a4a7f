"""The webhook: pushes come as `POST {path}`, and are answered after their commit.

What must stay true: 200 only for a verdict that is committed (or for an event that is not ours, which a second push would
not make ours); never 500 for the sender's mistake; whoever sends slowly, much, or nonsense costs a bounded amount and keeps
nobody else from being answered in time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from reserve_listener.asgi_server import AsgiServer
from reserve_listener.model import Verdict
from reserve_listener.sockets import bound
from reserve_listener.throttle import Throttle
from reserve_listener.transports.push import Challenge, Credentials, Payload, PushRefusedError, open_push
from reserve_listener.transports.sender import is_in, sender

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from reserve_listener.addresses import Address, Network
    from reserve_listener.protocols import Accept

BODY_BYTES: Final = 16 * 1024 * 1024
"""As on the long connection."""

WAITING_BYTES: Final = 64 * 1024 * 1024
"""What large bodies under way may take together; beyond it one is answered 503, and comes again."""

SMALL_BYTES: Final = 64 * 1024
"""So much of each body does not count: large ones, whoever sends them, must not keep the usual 2 kB from being taken."""

BODY_TIMEOUT_S: Final = 10.0
HEADER_TIMEOUT_S: Final = 10.0
KEEP_ALIVE_S: Final = 75
CONNECTIONS: Final = 1_000
CLOSE_TIMEOUT_S: Final = 5.0
TOLD_EVERY_S: Final = 1.0
REMINDED_EVERY_S: Final = 3_600.0
"""Of what stays wrong until a person mends it, push after push."""

IN_THREAD_BYTES: Final = 256 * 1024
"""A larger body is opened in a thread: parsing and decrypting it would hold up the loop."""

log = structlog.get_logger("webhook")


class Webhook:
    """Listens on `host`, `port` (0: any free one) from `open` to `close`; `accept` gets what the platform sent."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        path: str,
        app_id: str,
        accept: Accept,
        credentials: Credentials,
        freshness_s: float,
        tls: ssl.SSLContext | None = None,
        trusted_proxies: Sequence[Network] = (),
        allowed_senders: Sequence[Network] = (),
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = port
        self._host = host
        self._path = path
        self._app_id = app_id
        self._accept = accept
        self._credentials = credentials
        self._freshness_s = freshness_s
        self._trusted_proxies = tuple(trusted_proxies)
        self._allowed_senders = tuple(allowed_senders)
        self._now_s = now_s
        self._throttle = Throttle(TOLD_EVERY_S, clock)
        self._reminders = Throttle(REMINDED_EVERY_S, clock)
        self._receiving = True
        self._waiting_bytes = 0
        self._server = AsgiServer(self._app, protocol=_protocol_class(), tls=tls, keep_alive_s=KEEP_ALIVE_S)

    async def open(self) -> None:
        """Listen, on all addresses of the host. Raises `OSError`, e.g. when the port is taken."""
        listeners = await bound(self._host, self.port)
        self.port = listeners[0].getsockname()[1]
        await self._server.open(listeners)

    def stop_receiving(self) -> None:
        """Refuse pushes from now on: the platform pushes them again."""
        self._receiving = False

    async def close(self) -> None:
        """Answer what is under way, for a while, and end. Does not raise."""
        self._receiving = False
        self._server.stop_accepting()
        if busy := self._server.busy:
            await asyncio.wait(busy, timeout=CLOSE_TIMEOUT_S)
        await self._server.close()

    # -- one request --------------------------------------------------------------------------------------------------------

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except PushRefusedError as refusal:
            self._throttle.tell(
                str(refusal),  # constant texts, so there are few
                log.warning,
                "webhook.refused",
                status=refusal.status,
                reason=str(refusal),
                client=_text_of(self._client(request)),
            )
            # Before the body was read, what is left of it is nobody's business.
            answer = _json(refusal.status, refusal.public, close=refusal.status not in AFTER_THE_BODY)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  # ours and not the sender's: it shall push again
            told = f"{type(error).__name__}: {error}"[:200]  # no payload in a traceback
            self._throttle.tell("failed", log.error, "webhook.failed", error=told)
            answer = _json(500, "failed")
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> JSONResponse:
        is_probe = request.method in PROBES and _path(request) == self._path
        if not is_probe:
            self._check(request)
        if not self._receiving:
            return _json(503, "stopping", close=True)
        if is_probe:
            return _json(200, "ok")
        body = bytearray()
        try:
            await self._read(request, body)
            opened = await self._open(bytes(body), dict(request.headers))
            if isinstance(opened, Challenge):
                who = _text_of(self._client(request))
                self._throttle.tell("challenge", log.info, "webhook.challenge", client=who)
                return JSONResponse({"challenge": opened.text})
            self._compare(opened.app_id)
            return _json(*ANSWERS[await self._verdict(opened.raw)])
        finally:
            self._waiting_bytes -= _counted(body)

    async def _verdict(self, raw: bytes) -> Verdict:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        # Done already: the sender has gone.
        self._accept(raw, lambda found: None if verdict.done() else verdict.set_result(found))
        return await verdict

    def _compare(self, app_id: str | None) -> None:
        """Taken it is all the same: key and token, not the name, say whose it is."""
        if app_id not in (None, self._app_id):
            self._reminders.tell(
                "other app",
                log.warning,
                "webhook.other_app",
                app_id=app_id,
                configured=self._app_id,
                hint="pushes come from another app than lark.app_id names: correct lark.app_id, or this webhook's"
                " address in the developer console of that app",
            )

    def _check(self, request: Request) -> None:
        """What can be said before the body is read."""
        client = self._client(request)
        if self._allowed_senders and not is_in(client, self._allowed_senders):
            raise PushRefusedError(403, "forbidden", "the sender is none of webhook.allowed_senders")
        if _path(request) != self._path:
            raise PushRefusedError(404, "not found", "another path than webhook.path")
        if request.method != "POST":
            raise PushRefusedError(405, "method not allowed", "another method than POST")
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise PushRefusedError(
                415, "unsupported media type", "another content type than application/json"
            )
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > BODY_BYTES:
            raise _too_large()

    async def _read(self, request: Request, body: bytearray) -> None:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for piece in request.stream():
                    before = _counted(body)
                    body += piece
                    self._waiting_bytes += _counted(body) - before
                    if len(body) > BODY_BYTES:
                        raise _too_large()
                    if _counted(body) and self._waiting_bytes > WAITING_BYTES:
                        raise PushRefusedError(503, "busy", "too many large pushes at once")
        except TimeoutError:
            raise PushRefusedError(
                408, "timeout", f"the body did not come within {BODY_TIMEOUT_S:g} s"
            ) from None

    async def _open(self, body: bytes, headers: dict[str, str]) -> Challenge | Payload:
        terms = {"now_s": self._now_s(), "freshness_s": self._freshness_s}
        if len(body) > IN_THREAD_BYTES:
            return await asyncio.to_thread(open_push, body, headers, self._credentials, **terms)
        return open_push(body, headers, self._credentials, **terms)

    def _client(self, request: Request) -> Address | None:
        peer = request.client.host if request.client else ""
        return sender(peer, request.headers.getlist("x-forwarded-for"), self._trusted_proxies)


PROBES: Final = frozenset({"GET", "HEAD"})
"""How balancers ask whether the webhook is there. It says no more than that, so anybody may ask."""

AFTER_THE_BODY: Final = frozenset({400, 401})

ANSWERS: Final = {
    Verdict.STORED: (200, "ok"),
    Verdict.DUPLICATE: (200, "ok"),
    Verdict.UNREADABLE: (200, "ok"),
    Verdict.OTHER_TYPE: (200, "ok"),
    Verdict.OVERLOADED: (503, "busy"),
    Verdict.FAILED: (500, "failed"),
}
"""An event of another type is none of our business, and a second push would not change that."""


def _protocol_class() -> Any:  # noqa: C901  # a class body, not a branch
    """The protocol of uvicorn, with a deadline for headers, and room for a new connection at the cost of the idlest."""
    idle: dict[Any, None] = {}

    class Protocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            while len(self.connections) > CONNECTIONS and idle:
                oldest = next(iter(idle))
                del idle[oldest]
                self.connections.discard(oldest)
                oldest.transport.abort()
            idle[self] = None
            self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            idle.pop(self, None)
            self._forget_deadline()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_busy():
                idle.pop(self, None)
                self._forget_deadline()
            elif self._deadline is None:
                self._await_headers()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._is_busy() and not self.transport.is_closing():
                idle[self] = None

        def _is_busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _await_headers(self) -> None:
            self._deadline = self.loop.call_later(HEADER_TIMEOUT_S, self._too_slow)

        def _forget_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _too_slow(self) -> None:
            self._deadline = None
            if not self._is_busy():
                self.transport.abort()

    return Protocol


def _json(status: int, text: str, *, close: bool = False) -> JSONResponse:
    headers = {"connection": "close"} if close else {}
    if status == 405:  # noqa: PLR2004  # RFC 9110, 15.5.6
        headers["allow"] = "POST, GET, HEAD"
    return JSONResponse({"msg": text}, status_code=status, headers=headers)


def _counted(body: bytearray) -> int:
    return max(0, len(body) - SMALL_BYTES)


def _too_large() -> PushRefusedError:
    return PushRefusedError(413, "too large", f"the body exceeds {BODY_BYTES} bytes")


def _path(request: Request) -> str:
    """As it was asked for, also in the absolute form (RFC 9112, 3.2.2). Never by way of Host, which anybody may write."""
    target: str = request.scope["path"]
    scheme, mark, rest = target.partition("://")
    return f"/{rest.partition('/')[2]}" if mark and scheme.lower() in ("http", "https") else target


def _text_of(address: Address | None) -> str:
    return "unknown" if address is None else str(address)
