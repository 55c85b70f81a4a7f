"""The few calls of the platform's HTTP API that the daemon and its commands make: a tenant token, and who is connected."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

TOKEN_PATH: Final = "/open-apis/auth/v3/tenant_access_token/internal"  # noqa: S105  # a path
CONNECTIONS_PATH: Final = "/open-apis/event/v1/connection"
TOKEN_LIFE_S: Final = 7200
WRONG_APP: Final = 10003
WRONG_SECRET: Final = 10014
NO_TOKEN: Final = 99991661
INVALID_TOKEN: Final = 99991663


class OpenApi:
    """Answers with the platform's codes. `connections` tells how many clients are connected."""

    def __init__(self, *, app_id: str, app_secret: str, connections: Callable[[], int]) -> None:
        self._app_id = app_id
        self._app_secret = app_secret
        self._connections = connections
        self._token = f"t-{secrets.token_hex(16)}"  # the same for as long as it lives, as the platform does
        self.routes = [
            Route(TOKEN_PATH, self._give_token, methods=["POST"]),
            Route(CONNECTIONS_PATH, self._count, methods=["GET"]),
        ]

    async def _give_token(self, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=dict[str, Any])
        except msgspec.DecodeError:
            asked = {}
        if asked.get("app_id") != self._app_id:
            return _answer(WRONG_APP, "invalid param")
        if not hmac.compare_digest(str(asked.get("app_secret")).encode(), self._app_secret.encode()):
            return _answer(WRONG_SECRET, "app secret invalid")
        return _answer(0, "ok", tenant_access_token=self._token, expire=TOKEN_LIFE_S)

    async def _count(self, request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if not given:
            return _answer(NO_TOKEN, "Missing access token for authorization.", status=400)
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return _answer(INVALID_TOKEN, "Invalid access token for authorization.", status=400)
        return _answer(0, "success", data={"online_instance_cnt": self._connections()})


def _answer(code: int, message: str, *, status: int = 200, **more: Any) -> Response:
    content = msgspec.json.encode({"code": code, "msg": message, **more})
    return Response(content, status_code=status, media_type="application/json")
