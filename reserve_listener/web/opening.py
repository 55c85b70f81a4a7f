"""What `[status] listen` answers while the store is being opened, which takes as long as its server is away.

Nobody is to take a daemon that waits for one that hangs, and restart it: `/livez` is 200 as it is later, when the store fails.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount

from reserve_listener.clock import now_ms, rfc3339
from reserve_listener.web import health
from reserve_listener.web.access import with_headers
from reserve_listener.web.answers import Check
from reserve_listener.web.replies import problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send


class Opening:
    """See `web.health.Probes`."""

    def __init__(self) -> None:
        self._since = rfc3339(now_ms())

    def live(self) -> Mapping[str, Check]:
        """The loop, which answers this. What opens the store does not wait for anything without end."""
        return {"loop": Check(status=health.OK)}

    def ready(self) -> Mapping[str, Check]:
        """No event is taken yet."""
        return {"store": Check(status=health.FAILING, since=self._since, reason="it is being opened")}


def make_app() -> ASGIApp:
    """The app. Loads what it needs, so not on the loop."""
    return with_headers(Starlette(routes=[*health.routes(Opening()), Mount("/", _not_yet)]))


async def _not_yet(scope: Scope, receive: Receive, send: Send) -> None:
    answer = problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the daemon is starting: it waits for its store; its log says why",
        {"retry-after": "5"},
    )
    await answer(scope, receive, send)
