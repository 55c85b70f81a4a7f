"""The API's front door: checks who asks, what they may do and how often; then answers, with headers and faults."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import secrets
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from reserve_listener.simulator.openapi import rates
from reserve_listener.simulator.openapi.answers import (
    INVALID_TOKEN,
    NO_TOKEN,
    WRONG_APP,
    WRONG_SECRET,
    RefusedError,
    no_permission,
)
from reserve_listener.simulator.openapi.calls import Call
from reserve_listener.simulator.openapi.forms import Unstated
from reserve_listener.simulator.openapi.places import USER_ID, Places
from reserve_listener.simulator.openapi.rates import Rate, Rates
from reserve_listener.simulator.openapi.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from reserve_listener.simulator.estate import Estate, Place
    from reserve_listener.simulator.faults import ApiFault, Faults
    from reserve_listener.simulator.messages import Group

PREFIX: Final = "/open-apis"
WRITE: Final = "vc:room"
READ: Final = "vc:room:readonly"
PEOPLE: Final = "contact:user.basic_profile:readonly"
MESSAGES: Final = ("im:message:send_as_bot", "im:message")
GRANTED: Final = frozenset({READ, PEOPLE, USER_ID, MESSAGES[0]})
"""What an app that only listens asks for."""
CALLS_KEPT: Final = 100_000
"""Nine surveys of 10,000 rooms. A simulator that runs for weeks must not grow."""
OK: Final = 200
JSON: Final = "application/json; charset=utf-8"
GATEWAY: Final = b"<html><head><title>%d</title></head><body><center>nginx</center></body></html>"


class Method(NamedTuple):
    """One call of the API. `permissions`: any one of them is enough; if empty, no token is needed either."""

    method: str
    path: str
    answer: Callable[[Call], dict[str, Any]]
    permissions: tuple[str, ...] = (WRITE, READ)
    rate: Rate = rates.ROOMS
    open: bool = False


class OpenApi:
    """Answers with the platform's codes.

    `connections` returns how many clients are connected. `on_change` is called with a place whose limits were written, `on_call`
    with each call as it comes, `on_answer` once its answer is made. `clock`: the time in seconds; `scale`: how long a minute of
    the rate limits lasts.
    """

    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str,
        estate: Estate,
        group: Group,
        faults: Faults,
        connections: Callable[[], int],
        on_change: Callable[[Place], object],
        on_call: Callable[[Call], None],
        on_answer: Callable[[Call], None],
        clock: Callable[[], float] = time.time,
        scale: float = 1.0,
    ) -> None:
        self.calls: list[Call] = []
        self.permissions = set(GRANTED)
        self.unstated = Unstated()
        self.tokens = Tokens(clock)
        self._app_id = app_id
        self._app_secret = app_secret
        self._group = group
        self._faults = faults
        self._connections = connections
        self._on_call = on_call
        self._on_answer = on_answer
        self._clock = clock
        self._rates = Rates(clock, scale=scale)
        self._places = Places(estate, self.unstated, granted=self._granted, on_change=on_change)
        self.routes = [self._route(method) for method in self._methods()]

    def _methods(self) -> list[Method]:
        places = self._places
        return [
            Method("POST", "/auth/v3/tenant_access_token/internal", self._give_token, (), Rate(), open=True),
            Method("GET", "/event/v1/connection", self._count, (), Rate()),
            Method("GET", "/vc/v1/room_levels", places.list_levels),
            Method("POST", "/vc/v1/room_levels/mget", places.mget_levels),
            Method("GET", "/vc/v1/room_levels/{id}", places.get_level),
            Method("GET", "/vc/v1/rooms", places.list_rooms),
            Method("POST", "/vc/v1/rooms/mget", places.mget_rooms),
            Method("GET", "/vc/v1/rooms/{id}", places.get_room),
            Method("GET", "/vc/v1/reserve_configs/reserve_scope", places.get_limits, rate=rates.LIMITS),
            Method("PATCH", "/vc/v1/reserve_configs/{id}", places.patch_limits, (WRITE,), rates.LIMITS),
            Method("POST", "/contact/v3/users/basic_batch", places.name_people, (PEOPLE,), rates.PEOPLE),
            Method("POST", "/im/v1/messages", self._group.create, MESSAGES, rates.MESSAGES),
            Method("PATCH", "/im/v1/messages/{id}", self._group.patch, MESSAGES, rates.MESSAGES),
        ]

    # -- two calls of its own -----------------------------------------------------------------------------------------------

    def _give_token(self, call: Call) -> dict[str, Any]:
        if call.content.get("app_id") != self._app_id:
            raise RefusedError(WRONG_APP, "invalid param", status=OK)
        given = str(call.content.get("app_secret")).encode()
        if not hmac.compare_digest(given, self._app_secret.encode()):
            raise RefusedError(WRONG_SECRET, "app secret invalid", status=OK)
        token, left = self.tokens.give()
        return {"tenant_access_token": token, "expire": left}

    def _count(self, _call: Call) -> dict[str, Any]:
        return {"online_instance_cnt": self._connections()}

    # -- every call ---------------------------------------------------------------------------------------------------------

    def _route(self, method: Method) -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._serve(method, request)

        return Route(PREFIX + method.path, endpoint, methods=[method.method])

    async def _serve(self, method: Method, request: Request) -> Response:
        body = await request.body()
        call = Call(
            at=self._clock(),
            method=request.method,
            path=request.url.path,
            query=dict(request.query_params),
            body=body,
            ids=dict(request.path_params),
            content=_content(body),
        )
        self._keep(call)
        self._on_call(call)
        fault = self._faults.of_call(call.path, call.query.get("scope_id"))
        response = self._response(method, call, request.headers.get("authorization", ""), fault)
        await self._hold_back(call, fault, request)
        response.headers.setdefault("Date", formatdate(self._clock(), usegmt=True))
        self._on_answer(call)
        return response

    def _keep(self, call: Call) -> None:
        if len(self.calls) >= CALLS_KEPT:
            del self.calls[: CALLS_KEPT // 2]
        self.calls.append(call)

    def _response(self, method: Method, call: Call, authorization: str, fault: ApiFault | None) -> Response:
        log_id, headers = _log_id(call), dict[str, str]()
        try:
            if fault is not None and fault.replaces:
                raise RefusedError(fault.code or 0, fault.msg, status=fault.status)
            content = self._answered(method, call, authorization)
            call.status = OK
        except RefusedError as refused:
            content = refused.content(log_id)
            headers = refused.headers
            call.status = refused.status
        call.code = content["code"]
        body = msgspec.json.encode(content)
        if fault is None:
            response = Response(body, call.status, headers, JSON)
        else:
            response = _spoilt(fault, call, body, headers)
        # In the platform's spelling, by which the SDK looks for it.
        response.raw_headers.append((b"X-Tt-Logid", log_id.encode()))
        return response

    def _answered(self, method: Method, call: Call, authorization: str) -> dict[str, Any]:
        if method.open:
            return {"code": 0, "msg": "ok", **method.answer(call)}
        self._admit(authorization)
        if method.permissions and not any(self._granted(each) for each in method.permissions):
            raise no_permission(self._app_id, method.permissions)
        self._rates.count(method.method + method.path, method.rate)
        return {"code": 0, "msg": "success", "data": method.answer(call)}

    def _admit(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or not token:
            raise RefusedError(NO_TOKEN, "Missing access token for authorization.")
        if not self.tokens.good(token):
            raise RefusedError(INVALID_TOKEN, "Invalid access token for authorization.")

    def _granted(self, permission: str) -> bool:
        return permission in self.permissions - self._faults.missing_permissions

    async def _hold_back(self, call: Call, fault: ApiFault | None, request: Request) -> None:
        """Wait for what has to happen between reading and answering."""
        if self._faults.before_answer is not None:
            waiting = self._faults.before_answer(call)
            if inspect.isawaitable(waiting):
                await waiting
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        if fault is not None and fault.hang:
            while (await request.receive())["type"] != "http.disconnect":
                pass


class Spoilt(Response):
    """Sends the first half of the answer; then the connection breaks."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """See Starlette."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


def _spoilt(fault: ApiFault, call: Call, body: bytes, headers: dict[str, str]) -> Response:
    kind = fault.content_type
    if fault.replaces and fault.code is None and fault.body is None:
        body, kind, call.code = GATEWAY % call.status, "text/html", None
    elif fault.body is not None or fault.hang or fault.cut:
        body, call.code = body if fault.body is None else fault.body, None
    response = Spoilt if fault.cut else Response
    return response(body, call.status, headers | fault.headers, kind)


def _log_id(call: Call) -> str:
    return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(call.at))}{secrets.token_hex(9).upper()}"


def _content(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
