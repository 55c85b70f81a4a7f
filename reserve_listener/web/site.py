"""All that `[status] listen` serves, as one ASGI app: health, the API, the page."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from reserve_listener.web import api, health, metrics, openapi
from reserve_listener.web.access import Guard
from reserve_listener.web.listings import Lookups
from reserve_listener.web.page import Page
from reserve_listener.web.replies import problem, refusal, refused, reply
from reserve_listener.web.stream import Changes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from reserve_listener.protocols.store import Directory
    from reserve_listener.web.access import Access
    from reserve_listener.web.api import Actions, Endpoint
    from reserve_listener.web.health import Probes
    from reserve_listener.web.metrics import Metrics
    from reserve_listener.web.reads import Reads

log = structlog.get_logger("status")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What its parts build on."""

    access: Access
    actions: Actions
    probes: Probes
    metrics: Metrics
    reads: Reads
    directory: Directory
    streams: int = 1_000
    """How many may listen to changes at the same time."""
    language: str = "en"
    """Of who names none that we have: `lark.language`."""
    public_url: str | None = None
    """What links to the page begin with, where they leave it; None: not known."""


def make_app(site: Site) -> ASGIApp:
    """The app. Loads what it needs: some 0.1 s, so not on the loop."""
    page = Page(site)
    served = [each for each in _endpoints(site) if each.is_read or site.access.has_token]
    described = msgspec.json.encode(openapi.document(served, has_token=site.access.has_token))
    changes = Changes(site.reads, site.directory, language=site.language, most=site.streams)

    async def lost(request: Request, error: Exception) -> Response:
        """A person gets a page, a program a problem."""
        return page.lost(request.scope, *refusal(error)) or await refused(request, error)

    async def failed(request: Request, error: Exception) -> Response:
        answer = await _failed(request, error)
        return page.lost(request.scope, HTTPStatus.INTERNAL_SERVER_ERROR, "") or answer

    async def description(_request: Request) -> Response:
        return reply(described)

    app = Starlette(
        routes=[
            *health.routes(site.probes),
            metrics.route(site.metrics),
            *map(api.route, served),
            Route("/api/v1/stream", changes, methods=["GET"]),
            Route("/api/v1/openapi.json", description),
            *page.routes(),
        ],
        exception_handlers={HTTPException: lost, Exception: failed},
    )
    return Guard(app, site.access, page)


def _endpoints(site: Site) -> list[Endpoint]:
    lookups = Lookups(
        reads=site.reads, actions=site.actions, directory=site.directory, language=site.language
    )
    shared = [each for each in api.endpoints(site.actions) if not each.is_local]
    return [*shared, *lookups.endpoints()]


async def _failed(request: Request, error: Exception) -> Response:
    """A defect of ours, outside the API."""
    log.error("status.failed", path=request.url.path, error=str(error), exc_info=error)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"a bug in the daemon ({type(error).__name__}); see its log"
    )
