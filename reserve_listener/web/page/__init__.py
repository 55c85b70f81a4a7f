"""The page: what the daemon has heard and how it is, for people.

Its routes go beside those of the API, in the same app, behind `access.Guard`: `Host`, headers and the token are seen to when
a request comes here. It is written on the server and works without a script (`assets/app.js` makes it live); forms are `POST`s
outside `/api/`, where Guard lets the cookie of who is signed in count, and there are none without a token.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from reserve_listener.web.page.forms import Forms
from reserve_listener.web.page.frame import Frame
from reserve_listener.web.page.rendering import ASSETS, asset, templates
from reserve_listener.web.page.session import Sessions
from reserve_listener.web.page.views import Views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import Scope

    from reserve_listener.web.site import Site

KEPT: Final = {"cache-control": "public, max-age=31536000, immutable"}
"""Their address changes with what is in them."""


class Page:
    """What the site asks of the page. Made in a thread: it compiles its templates."""

    public: Sequence[str] = ("/login", "/assets/")
    """Beginnings of paths that are open to everybody although there is a token: the login, styles and scripts."""

    def __init__(self, site: Site) -> None:
        self._has_token = site.access.has_token
        self._sessions = Sessions(site.access, site.public_url)
        self._frame = frame = Frame(site, self._sessions, templates())
        self._views = Views(site, frame)
        self._forms = Forms(site, self._sessions, frame)

    def routes(self) -> Sequence[BaseRoute]:
        """What it serves."""
        views, forms = self._views, self._forms
        shown = [
            Route("/", views.feed),
            Route("/scopes", views.places),
            Route("/scopes/{scope_id:path}", views.place),
            Route("/deliveries", views.deliveries),
            *(Route(f"/assets/{name}", _kept(asset(name), kind)) for name, kind in ASSETS.items()),
        ]
        if not self._has_token:
            return shown
        return [
            *shown,
            Route("/login", forms.login),
            Route("/login", forms.sign_in, methods=["POST"]),
            Route("/logout", forms.sign_out, methods=["POST"]),
            Route("/dead-letters", forms.dead_letters, methods=["POST"]),
            Route("/sinks", forms.sinks, methods=["POST"]),
        ]

    def is_signed_in(self, scope: Scope) -> bool:
        """Whether a request comes from a browser that has shown the token before (by its cookie)."""
        return self._sessions.of(scope) is not None

    def lost(self, scope: Scope, status: HTTPStatus, detail: str) -> Response | None:
        """What a browser gets where there is no page, or none for it. None: whoever asks is no browser."""
        return self._frame.lost(Request(scope), status, detail) if _is_browser(scope) else None

    def sign_in(self, scope: Scope) -> Response | None:
        """What a browser gets that has not: the way to the login. None: whoever asks is no browser."""
        if not _is_browser(scope):
            return None
        asked = scope["query_string"].decode("latin-1")
        wanted = f"{scope['path']}?{asked}" if asked else scope["path"]
        path = urlencode({"next": wanted}, errors="replace") if scope["method"] == "GET" else ""
        return RedirectResponse(f"/login?{path}", HTTPStatus.SEE_OTHER, {"cache-control": "no-store"})


def _is_browser(scope: Scope) -> bool:
    """Whether a person looks at the answer."""
    return not scope["path"].startswith("/api/") and "text/html" in Headers(scope=scope).get("accept", "")


def _kept(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:
        return Response(content, headers=KEPT, media_type=kind)

    return answer
