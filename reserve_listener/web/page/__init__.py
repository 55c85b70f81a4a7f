"""The page: the seam at which it is built in.

Its routes go beside those of the API, in the same app, behind `access.Guard`: `Host`, headers and the token are seen to when
a request comes here. What it needs is in `Site`: `reads` (look into the store), `changes` (the stream), `actions`, `access`
(`is_token` for the login), `language` and `public_url`. Forms are to be `POST`s outside `/api/`, where Guard lets the cookie
of who is signed in count; `routes` must not have them unless `access.has_token`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import Scope

    from reserve_listener.web.site import Site


class Page:
    """What the site asks of the page."""

    public: Sequence[str] = ()
    """Beginnings of paths that are open to everybody although there is a token: the login, styles and scripts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> Sequence[BaseRoute]:
        """What it serves."""
        return ()

    def is_signed_in(self, scope: Scope) -> bool:  # noqa: ARG002  # what it is asked
        """Whether a request comes from a browser that has shown the token before (by its cookie)."""
        return False

    def sign_in(self, scope: Scope) -> Response | None:  # noqa: ARG002  # as above
        """What a browser gets that has not: the way to the login. None: whoever asks is no browser."""
        return None
