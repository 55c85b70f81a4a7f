"""The pages that do something: the login, and what can be done to dead letters and sinks.

What must stay true: nothing is done without the cookie and its form's CSRF token; dropping asks for confirmation; and afterwards
the browser is redirected to a page that can be reloaded without repeating the action.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

import structlog
from starlette.responses import RedirectResponse, Response

from reserve_listener.errors import ReserveListenerError
from reserve_listener.intake.words import fill
from reserve_listener.model import EventQuery
from reserve_listener.observability.throttle import Throttle
from reserve_listener.web.access import TOLD_EVERY_S
from reserve_listener.web.api import body_of, status_of
from reserve_listener.web.page.session import COOKIE, LASTS_S, Sessions, local_path
from reserve_listener.web.page.words import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from reserve_listener.web.page.frame import Frame, Values
    from reserve_listener.web.site import Site

BODY_BYTES: Final = 16 * 1024
"""Of a form: a token, or the names of one delivery."""
FIELDS: Final = 20

log = structlog.get_logger("status")


@dataclass(frozen=True)
class Refusal:
    """Why nothing was done: the key of a word, or a text of the daemon's."""

    status: HTTPStatus
    key: str | None = None
    text: str = ""


class Forms:
    """All of them, over one site."""

    def __init__(self, site: Site, sessions: Sessions, frame: Frame) -> None:
        self._site = site
        self._sessions = sessions
        self._frame = frame
        self._throttle = Throttle(TOLD_EVERY_S)

    # -- the login -----------------------------------------------------------------------------------------------------------

    async def login(self, request: Request) -> Response:
        """Ask for the token: `GET /login`."""
        return await self._login(request, {"next": local_path(request.query_params.get("next", "/"))})

    async def sign_in(self, request: Request) -> Response:
        """Take the token, and give the cookie: `POST /login`."""
        given = await _fields(request)
        client = str((request.scope.get("client") or ("unknown",))[0])
        asked: Values = {"next": local_path(given.get("next", "/"))}
        if not self._sessions.comes_from_here(request.scope):
            return await self._login(request, asked | {"problem": "stale_form"}, HTTPStatus.FORBIDDEN)
        trial = self._site.access.try_token(given.get("token", "").strip(), client)
        if trial.wait_s > 0:
            values = asked | {"wait_s": trial.wait_s}
            answer = await self._login(request, values, HTTPStatus.TOO_MANY_REQUESTS)
            answer.headers["retry-after"] = trial.retry_after
            return answer
        if not trial.is_right:
            self._throttle.tell("wrong_token", log.warning, "status.wrong_token", client=client)
            return await self._login(request, asked | {"problem": "wrong_token"}, HTTPStatus.FORBIDDEN)
        answer = RedirectResponse(asked["next"], HTTPStatus.SEE_OTHER)
        self._keep(request, answer, self._sessions.begin(), LASTS_S)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Forget the cookie: `POST /logout`."""
        given = await _fields(request)
        if not self._is_ours(request, given):
            return await self._refused(request, Refusal(HTTPStatus.FORBIDDEN, "stale_form"))
        answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        self._keep(request, answer, "", 0)
        return answer

    async def _login(self, request: Request, values: Values, status: HTTPStatus = HTTPStatus.OK) -> Response:
        asked = self._frame.stranger(request)
        wait = values.get("wait_s")
        words = LANGUAGES[asked.language]
        problem = words[values["problem"]] if "problem" in values else None
        if wait is not None:
            problem = fill(words["too_many"], asked.teller(self._site).times.span(math.ceil(wait) * 1000))
        html = self._frame.written(asked, "login", {"next": values["next"], "problem": problem})
        return self._frame.answer(asked, html, status)

    def _keep(self, request: Request, answer: Response, value: str, lasts_s: int) -> None:
        answer.headers["cache-control"] = "no-store"
        answer.set_cookie(
            COOKIE,
            value,
            max_age=lasts_s,
            httponly=True,
            samesite="strict",
            secure=self._sessions.is_secure(request.scope),
        )

    # -- what is done ---------------------------------------------------------------------------------------------------------

    async def dead_letters(self, request: Request) -> Response:
        """`POST /dead-letters`: retry or drop one (`sink`, `event_id`) or all (`all`)."""

        async def act(given: Mapping[str, str]) -> Response | int:
            one = EventQuery(sink=given.get("sink"), event_id=given.get("event_id"))
            is_all, is_one = given.get("all") == "1", bool(one.sink and one.event_id)
            if given.get("do") not in ("retry", "drop") or is_all == is_one:
                raise ReserveListenerError("the form does not say what to do, or with which delivery")
            if given["do"] == "drop" and given.get("sure") != "1":
                return await self._ask(request, given)
            return await self._site.actions.operate(given["do"], [EventQuery() if is_all else one])

        return await self._acted(request, act)

    async def sinks(self, request: Request) -> Response:
        """`POST /sinks`: enable or disable one."""

        async def act(given: Mapping[str, str]) -> int:
            if given.get("do") not in ("enable", "disable"):
                raise ReserveListenerError("the form does not say what to do")
            changed = await self._site.actions.switch_sink(given.get("sink", ""), on=given["do"] == "enable")
            return int(changed)

        return await self._acted(request, act)

    async def _acted(
        self, request: Request, act: Callable[[Mapping[str, str]], Awaitable[Response | int]]
    ) -> Response:
        given = await _fields(request)
        if not self._is_ours(request, given):
            return await self._refused(request, Refusal(HTTPStatus.FORBIDDEN, "stale_form"))
        try:
            done = await act(given)
        except ReserveListenerError as error:
            return await self._refused(request, Refusal(status_of(error), text=str(error)))
        if isinstance(done, Response):
            return done
        path = local_path(given.get("next", "/deliveries")).partition("?")[0]
        asked = urlencode({"done": given["do"], "count": done})
        return RedirectResponse(f"{path}?{asked}", HTTPStatus.SEE_OTHER, {"cache-control": "no-store"})

    async def _ask(self, request: Request, given: Mapping[str, str]) -> Response:
        """Whether to drop for good: the same form again, with one field more."""
        asked = await self._frame.asked(request)
        html = self._frame.written(asked, "drop", {"given": given})
        return self._frame.answer(asked, html)

    async def _refused(self, request: Request, refusal: Refusal) -> Response:
        asked = await self._frame.asked(request)
        text = refusal.text if refusal.key is None else LANGUAGES[asked.language][refusal.key]
        return self._frame.answer(asked, self._frame.written(asked, "error", {"text": text}), refusal.status)

    def _is_ours(self, request: Request, given: Mapping[str, str]) -> bool:
        return self._sessions.comes_from_here(request.scope) and self._sessions.is_own(
            self._sessions.of(request.scope), given.get("form", "")
        )


async def _fields(request: Request) -> dict[str, str]:
    """What a form brings; the first of each name counts."""
    body = (await body_of(request, BODY_BYTES)).decode("utf-8", "replace")
    try:
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        return {}
    return dict(reversed(pairs))
