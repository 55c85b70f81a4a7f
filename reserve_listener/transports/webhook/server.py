"""The webhook: pushes come as `POST {path}`, and are answered after their commit.

What must stay true: 200 only for a verdict that is committed (or for an event that is not ours, which a second push would
not make ours); never 500 for the sender's mistake; whoever sends slowly, much, or nonsense costs a bounded amount and keeps
nobody else from being answered in time.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from reserve_listener.model import Verdict
from reserve_listener.net.asgi_connection import NO_REQUEST, Limits
from reserve_listener.net.asgi_server import NO_HANDSHAKE, AsgiServer
from reserve_listener.net.sockets import bound
from reserve_listener.observability.throttle import Throttle
from reserve_listener.transports.webhook.bodies import BODY_BYTES, Bodies, too_large
from reserve_listener.transports.webhook.push import (
    Challenge,
    Credentials,
    Payload,
    PushRefusedError,
    open_push,
)
from reserve_listener.transports.webhook.sender import is_in, sender

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from reserve_listener.net.addresses import Address, Network
    from reserve_listener.protocols import Accept

TLS_COSTS: Final = 4
"""With TLS each connection has buffers of up to 600 KB, so there may be so many times fewer: 250, 150 MB at the worst."""

CLOSE_TIMEOUT_S: Final = 5.0
TOLD_EVERY_S: Final = 1.0
REMINDED_EVERY_S: Final = 3_600.0
"""Of what stays wrong until a person mends it, push after push."""

IN_THREAD_BYTES: Final = 256 * 1024
"""A larger body is opened in a thread, as parsing and decrypting it would hold up the loop; one at a time, as it takes
several times its size."""

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
        limits: Limits | None = None,
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
        self._bodies = Bodies()
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="webhook-open")
        limits = limits or Limits()
        if tls is not None:
            limits = replace(limits, connections=max(1, limits.connections // TLS_COSTS))
        self._server = AsgiServer(self._app, tls=tls, limits=limits, tell=self._tell_ended)

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
        self._opener.shutdown(wait=False, cancel_futures=True)

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
            # Whoever is refused asks anew: a flood on one connection would be answered for ever otherwise.
            answer = _json(refusal.status, refusal.public, close=True)
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
        with self._bodies.one() as body:
            opened = await self._open(await body.read(request.stream()), dict(request.headers))
            if isinstance(opened, Challenge):
                who = _text_of(self._client(request))
                self._throttle.tell("challenge", log.info, "webhook.challenge", client=who)
                return JSONResponse({"challenge": opened.text})
            self._compare(opened.app_id)
            return _json(*ANSWERS[await self._verdict(opened.raw)])

    async def _verdict(self, raw: bytes) -> Verdict:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        # Done already: the sender has gone.
        self._accept(raw, lambda found: None if verdict.done() else verdict.set_result(found))
        return await verdict

    def _tell_ended(self, reason: str, client: str) -> None:
        write = log.debug if reason in USUAL else log.warning
        self._throttle.tell(reason, write, "webhook.dropped", reason=reason, client=client)

    def _compare(self, app_id: str | None) -> None:
        """Taken it is all the same: key and token, not the name, say whose it is."""
        if app_id not in (None, self._app_id):
            self._reminders.tell(
                "other app",
                log.warning,
                "webhook.other_app",
                app_id=app_id,
                configured=self._app_id,
                hint="pushes come from an app other than lark.app_id: correct lark.app_id, or this webhook's"
                " address in that app's developer console",
            )

    def _check(self, request: Request) -> None:
        """What can be said before the body is read."""
        client = self._client(request)
        if self._allowed_senders and not is_in(client, self._allowed_senders):
            raise PushRefusedError(403, "forbidden", "the sender is not in webhook.allowed_senders")
        if _path(request) != self._path:
            raise PushRefusedError(404, "not found", "the path is not webhook.path")
        if request.method != "POST":
            raise PushRefusedError(405, "method not allowed", "the method is not POST")
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise PushRefusedError(415, "unsupported media type", "the content type is not application/json")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > BODY_BYTES:
            raise too_large()

    async def _open(self, body: bytes, headers: dict[str, str]) -> Challenge | Payload:
        terms = {"now_s": self._now_s(), "freshness_s": self._freshness_s}
        if len(body) > IN_THREAD_BYTES:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._opener, partial(open_push, body, headers, self._credentials, **terms)
            )
        return open_push(body, headers, self._credentials, **terms)

    def _client(self, request: Request) -> Address | None:
        peer = request.client.host if request.client else ""
        return sender(peer, request.headers.getlist("x-forwarded-for"), self._trusted_proxies)


USUAL: Final = frozenset({NO_REQUEST, NO_HANDSHAKE})
"""What balancers do that only look whether a port is open, and scanners all day long."""

PROBES: Final = frozenset({"GET", "HEAD"})
"""How balancers ask whether the webhook is there. It says no more than that, so anybody may ask."""

ANSWERS: Final = {
    Verdict.STORED: (200, "ok"),
    Verdict.DUPLICATE: (200, "ok"),
    Verdict.SUPERSEDED: (200, "ok"),
    Verdict.UNREADABLE: (200, "ok"),
    Verdict.OTHER_TYPE: (200, "ok"),
    Verdict.OVERLOADED: (503, "busy"),
    Verdict.FAILED: (500, "failed"),
}
"""An event of another type is none of our business, and a second push would not change that."""


def _json(status: int, text: str, *, close: bool = False) -> JSONResponse:
    headers = {"connection": "close"} if close else {}
    if status == 405:  # noqa: PLR2004  # RFC 9110, 15.5.6
        headers["allow"] = "POST, GET, HEAD"
    return JSONResponse({"msg": text}, status_code=status, headers=headers)


def _path(request: Request) -> str:
    """As it was asked for, also in the absolute form (RFC 9112, 3.2.2). Never by way of Host, which anybody may write."""
    target: str = request.scope["path"]
    scheme, mark, rest = target.partition("://")
    return f"/{rest.partition('/')[2]}" if mark and scheme.lower() in ("http", "https") else target


def _text_of(address: Address | None) -> str:
    return "unknown" if address is None else str(address)
