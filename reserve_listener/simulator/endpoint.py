"""`POST /callback/ws/endpoint`: tells a client with the right credentials where to connect.

The answers are the platform's: `{"code", "msg", "data": {"URL", "ClientConfig"}}`, with HTTP 200 even for a refusal.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from reserve_listener.simulator.faults import Faults

PATH: Final = "/callback/ws/endpoint"
OK: Final = 200
AUTH_FAILED: Final = 514
NO_CREDENTIAL: Final = 1000040344
INVALID_APP_ID: Final = 1000040346


class Endpoint:
    """Checks the credentials and hands out URLs.

    `issue` makes a URL with a ticket; `client_config` returns the ClientConfig to send along (empty: none); `on_call` is called
    for each request as it arrives, `on_answer` with the code of the answer (0: a URL), or its HTTP status if that is not 200.
    """

    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str,
        faults: Faults,
        issue: Callable[[], str],
        client_config: Callable[[], dict[str, int]],
        on_call: Callable[[], None],
        on_answer: Callable[[int], None],
    ) -> None:
        self._app_id = app_id
        self._app_secret = app_secret
        self._faults = faults
        self._issue = issue
        self._client_config = client_config
        self._on_call = on_call
        self._on_answer = on_answer
        self.routes = [Route(PATH, self._answer, methods=["POST"])]

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        self._on_call()
        if self._faults.endpoint_stall:
            await asyncio.sleep(self._faults.endpoint_stall)
        faults = self._faults
        code, content = self._content(body)
        self._on_answer(code if faults.endpoint_status == OK else faults.endpoint_status)
        return Response(
            content if faults.endpoint_body is None else faults.endpoint_body,
            status_code=faults.endpoint_status,
            headers=faults.endpoint_headers,
            media_type="application/json",
        )

    def _content(self, body: bytes) -> tuple[int, bytes]:
        faults = self._faults
        code, msg = self._verdict(body)
        if faults.endpoint_status != OK or faults.endpoint_code:
            code, msg = faults.endpoint_code or faults.endpoint_status, faults.endpoint_msg
        content: dict[str, Any] = {"code": code, "msg": msg}
        if code == 0 and faults.endpoint_body is None:
            content["data"] = {"URL": self._issue()}
            if config := self._client_config():
                content["data"]["ClientConfig"] = config
        return code, msgspec.json.encode(content)

    def _verdict(self, body: bytes) -> tuple[int, str]:
        try:
            credentials = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            return NO_CREDENTIAL, "no credential"
        app_id, secret = credentials.get("AppID"), credentials.get("AppSecret")
        if not (isinstance(app_id, str) and isinstance(secret, str) and app_id and secret):
            return NO_CREDENTIAL, "no credential"
        if app_id != self._app_id:
            return INVALID_APP_ID, "invalid app_id"
        if not hmac.compare_digest(secret.encode(), self._app_secret.encode()):
            return AUTH_FAILED, "authentication failed"
        return 0, ""
