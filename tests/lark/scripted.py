"""A platform whose API answers what a test says: for what the simulator never would."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from reserve_listener.config import LarkConfig
from reserve_listener.lark.api.caller import TOKEN_PATH
from reserve_listener.lark.api.client import Client
from reserve_listener.lark.api.pace import MINUTE_S
from reserve_listener.simulator import HttpServer
from tests.lark.waiting import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

APP_ID, SECRET = "cli_5a1e7c0ffee5a1e7", "s3cr3t-of-the-app"
DATE = "Thu, 26 Nov 2026 08:00:00 GMT"
DATE_MS = 1_795_680_000_000


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: Any


@dataclass
class Platform:
    """`answers` by path: what comes next, in order; the last one for ever. An answer is a response, its data, or makes one."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    tokens: int = 0
    url: str = ""

    def of(self, path: str) -> list[Asked]:
        """The requests for this path."""
        return [each for each in self.asked if each.path == path]

    async def serve(self, request: Request) -> Response:
        """The next answer."""
        body = await request.body()
        asked = Asked(
            request.method,
            request.url.path,
            dict(request.query_params),
            dict(request.headers),
            json.loads(body) if body else None,
        )
        self.asked.append(asked)
        waiting = self.answers.get(asked.path)
        if waiting is None:
            return self._unscripted(asked)
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if callable(answer) and not isinstance(answer, Response):
            answer = answer(asked)
            if inspect.isawaitable(answer):
                answer = await answer
        return answer if isinstance(answer, Response) else ok(**answer)

    def _unscripted(self, asked: Asked) -> Response:
        if asked.path == TOKEN_PATH:
            self.tokens += 1
            return told(
                {"code": 0, "msg": "ok", "tenant_access_token": f"t-number{self.tokens}", "expire": 7200}
            )
        return told({"code": 121004, "msg": "data not exist"}, status=404)


def told(content: Any, *, status: int = 200, **headers: str) -> Response:
    """An answer of this content, with a date."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(content), status, {"date": DATE, **named}, "application/json")


def ok(**data: Any) -> Response:
    """A success with this data."""
    return told({"code": 0, "msg": "success", "data": data})


def refused(code: int, message: str = "why", *, status: int = 400, **headers: str) -> Response:
    """A refusal."""
    return told({"code": code, "msg": message}, status=status, **headers)


@dataclass
class World:
    """A client, whom it asks, and its clock; `hidden` is what the log was told to mask, and instead of what."""

    client: Client
    platform: Platform
    clock: Clock
    hidden: list[tuple[str, str]]


@contextlib.asynccontextmanager
async def world(
    *, requests_per_minute: int = 80, domain: str | None = None, **lark: Any
) -> AsyncIterator[World]:
    """A client with a platform of its own, whose answers are to be scripted."""
    platform, clock, hidden = Platform(), Clock(), []
    routes = [Route("/{path:path}", platform.serve, methods=["GET", "POST"])]
    async with HttpServer(Starlette(routes=routes)) as server:
        platform.url = server.url
        config = LarkConfig(app_id=APP_ID, domain=domain or server.url, **{"app_secret": SECRET, **lark})
        client = Client(
            config,
            requests_per_minute=requests_per_minute,
            hide=lambda secret, instead_of: hidden.append((secret, instead_of)),
            clock=clock,
            sleep=clock.sleep,
        )
        clock.now_s += math.ceil(MINUTE_S / requests_per_minute)  # the first call need not wait
        try:
            yield World(client, platform, clock, hidden)
        finally:
            await client.close()
