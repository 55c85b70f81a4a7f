"""The paths of the API, and what is asked of the daemon behind them.

What must stay true: a mistake in a request is the asker's (4xx, with a sentence), a defect is ours (500, and a line with its
traceback in the log); a request that names nothing does nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, unquote

import msgspec
import structlog
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Route

from reserve_listener.clock import moment_ms
from reserve_listener.errors import NotFoundError, ReserveListenerError, StoreError
from reserve_listener.model import EventQuery
from reserve_listener.web.answers import (
    Changed,
    Comparison,
    Count,
    ReconcileRequest,
    Reconciling,
    Reconnecting,
    SampleResult,
    Selection,
    Status,
)
from reserve_listener.web.replies import problem, refused, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from starlette.responses import Response
    from starlette.types import Scope

BODY_BYTES: Final = 1024 * 1024
"""Some 25,000 event ids; who means more gives a filter."""

BODY_TIMEOUT_S: Final = 10.0

T = TypeVar("T")

log = structlog.get_logger("control")


class Actions(Protocol):
    """What the daemon does for people. Raises `ReserveListenerError` for what it refuses."""

    async def status(self) -> Status:
        """How it is. Bounded in time, also while the store hangs."""

    async def operate(self, operation: str, selected: Sequence[EventQuery]) -> int:
        """`retry`, `drop` or `replay` what one of these matches; how many deliveries it concerned."""

    async def switch_sink(self, name: str, *, on: bool) -> bool:
        """Enable or disable a sink; whether that changed anything."""

    async def test_sink(self, name: str) -> SampleResult:
        """Send a sample event to a sink."""

    async def reconnect(self) -> str:
        """Connect anew, at once; what the connection did when asked."""

    async def reconcile(self, scope_ids: Sequence[str] | None, *, dry_run: bool) -> Reconciling:
        """Compare these rooms and levels, or all (None), with the platform. Does not wait for the result."""

    def comparison(self, comparison_id: str, after: int) -> Comparison:
        """How far that is, and what it found from that difference on."""


class Parameter(NamedTuple):
    """Something in a query, such as a filter."""

    name: str
    text: str
    kind: str = "string"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One thing that can be asked for. `handle` gives the answer, or its JSON. It raises `HTTPException` and `ReserveListenerError` for what it refuses."""

    method: str
    path: str
    summary: str
    handle: Callable[[Request], Awaitable[msgspec.Struct | bytes]]
    answer: type[msgspec.Struct]
    query: Sequence[Parameter] = ()
    body: type[msgspec.Struct] | None = None
    is_local: bool = False
    """On the control socket alone."""

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET"


def make_app(actions: Actions) -> Starlette:
    """All there is to ask, for this machine's user."""
    return Starlette(routes=list(map(route, endpoints(actions))), exception_handlers={HTTPException: refused})


def endpoints(actions: Actions) -> list[Endpoint]:
    """The API over these actions."""

    async def status(_request: Request) -> msgspec.Struct:
        return await actions.status()

    async def reconnect(_request: Request) -> msgspec.Struct:
        return Reconnecting(status="reconnecting", was=await actions.reconnect())

    return [
        Endpoint(
            method="GET",
            path="/status",
            summary="The daemon's state, and the reasons.",
            handle=status,
            answer=Status,
        ),
        *_operations(actions),
        *_switches(actions),
        Endpoint(
            method="POST",
            path="/reconnect",
            summary="Reconnect to the platform at once.",
            handle=reconnect,
            answer=Reconnecting,
        ),
        *_reconciling(actions),
    ]


def _operations(actions: Actions) -> Iterator[Endpoint]:
    def operation(name: str) -> Callable[[Request], Awaitable[msgspec.Struct]]:
        async def operate(request: Request) -> msgspec.Struct:
            selection = await _read(request, Selection)
            if selection == Selection():
                raise HTTPException(400, 'nothing is selected: give a filter, event_ids or "all": true')
            return Count(count=await actions.operate(name, list(_filters(selection))))

        return operate

    for name, path, summary in (
        ("retry", "/dead-letters/retry", "Deliver dead letters as if their events had just arrived."),
        ("drop", "/dead-letters/drop", "Drop dead letters for good; their events stay in the store."),
        ("replay", "/events/replay", "Deliver stored events again."),
    ):
        yield Endpoint(
            method="POST",
            path=path,
            summary=summary,
            handle=operation(name),
            answer=Count,
            body=Selection,
            is_local=name == "replay",
        )


def _switches(actions: Actions) -> Iterator[Endpoint]:
    def switch(*, on: bool) -> Callable[[Request], Awaitable[msgspec.Struct]]:
        async def switched(request: Request) -> msgspec.Struct:
            changed = await actions.switch_sink(request.path_params["name"], on=on)
            return Changed(changed=changed, status="enabled" if on else "disabled")

        return switched

    async def test(request: Request) -> msgspec.Struct:
        return await actions.test_sink(request.path_params["name"])

    for path, summary, handle, answer in (
        ("enable", "Resume sending to a sink.", switch(on=True), Changed),
        ("disable", "Stop sending to a sink: its deliveries wait.", switch(on=False), Changed),
        ("test", "Send a sample event to a sink.", test, SampleResult),
    ):
        yield Endpoint(
            method="POST",
            path=f"/sinks/{{name}}/{path}",
            summary=summary,
            handle=handle,
            answer=answer,
            is_local=path == "test",
        )


def _reconciling(actions: Actions) -> Iterator[Endpoint]:
    async def reconcile(request: Request) -> msgspec.Struct:
        asked = await _read(request, ReconcileRequest)
        scope_ids = [*asked.scopes, *([] if asked.scope is None else [asked.scope])]
        if not scope_ids and not asked.all:
            raise HTTPException(400, 'nothing is selected: give a scope, scopes or "all": true')
        return await actions.reconcile(scope_ids or None, dry_run=asked.dry_run)

    async def comparison(request: Request) -> msgspec.Struct:
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdecimal()):
            raise HTTPException(400, "after: not a whole number")
        return actions.comparison(request.path_params["id"], int(after[:18]))

    yield Endpoint(
        method="POST",
        path="/reconcile",
        summary="Compare limits with the platform's.",
        handle=reconcile,
        answer=Reconciling,
        body=ReconcileRequest,
    )
    yield Endpoint(
        method="GET",
        path="/reconcile/{id}",
        summary="Its progress, and the differences found.",
        handle=comparison,
        answer=Comparison,
        query=(Parameter("after", "How many differences are known already.", kind="integer"),),
    )


def route(endpoint: Endpoint) -> Route:
    """An endpoint as Starlette has it."""

    async def answered(request: Request) -> Response:
        try:
            _require_known(request, endpoint)
            return reply(await endpoint.handle(request))
        except (HTTPException, ClientDisconnect):
            raise
        except ReserveListenerError as error:
            return problem(status_of(error), str(error))
        except Exception as error:  # whatever it is, who asks is told, and the log has it whole
            log.error("control.failed", path=request.url.path, error=str(error), exc_info=error)
            detail = f"a bug in the daemon ({type(error).__name__}); see its log for details"
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)

    return _Route(f"/api/v1{endpoint.path}", answered, methods=[endpoint.method])


class _Route(Route):
    """Takes the path apart before it is decoded: an id is whatever it is, and may have a slash in it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `Route`."""
        sent: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        match, found = super().matches({**scope, "path": sent.decode("latin-1")})
        if match is not Match.NONE:
            found["path_params"] = {name: unquote(value) for name, value in found["path_params"].items()}
        return match, found


def _require_known(request: Request, endpoint: Endpoint) -> None:
    """A filter with a typing error would let everything through, silently."""
    known = [each.name for each in endpoint.query]
    if unknown := [name for name in request.query_params if name not in known]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise HTTPException(400, f"{unknown[0][:50]}: there is no such parameter; {has}")


def status_of(error: ReserveListenerError) -> HTTPStatus:
    """What an error of the daemon's is over HTTP, in the API and on the page."""
    if isinstance(error, NotFoundError):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, StoreError) else HTTPStatus.CONFLICT


async def body_of(request: Request, most: int = BODY_BYTES) -> bytes:
    """What a request brings, within a time and a size. Raises `HTTPException`."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise HTTPException(413, f"the body exceeds {most} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    return bytes(body)


async def _read(request: Request, kind: type[T]) -> T:
    body = await body_of(request)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"the body cannot be read: {error}") from None


def _filters(selection: Selection) -> Iterator[EventQuery]:
    """One for each event that is named, or one for all."""
    filters = EventQuery(
        sink=selection.sink,
        scope_id=selection.scope,
        since_ms=moment("since", selection.since),
        until_ms=moment("until", selection.until),
    )
    if not selection.event_ids:
        yield filters
    for event_id in dict.fromkeys(selection.event_ids):
        yield replace(filters, event_id=event_id)


def moment(key: str, text: str | None) -> int | None:
    """A time in a request, in milliseconds. Raises `HTTPException`."""
    try:
        return None if text is None else moment_ms(text)
    except ValueError as error:
        raise HTTPException(400, f"{key}: {error}") from None
