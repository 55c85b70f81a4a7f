"""The frame of every page: the visitor and the language, the verdict at the top, the words; and a page as an answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.responses import Response

from reserve_listener import __version__
from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.intake.words import fill
from reserve_listener.web.page import errors, pictures
from reserve_listener.web.page.session import Sessions, cookies
from reserve_listener.web.page.telling import Teller
from reserve_listener.web.page.verdict import counted, verdict
from reserve_listener.web.page.words import CHINESE, LANGUAGES, preferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from reserve_listener.protocols.store import StoreReader
    from reserve_listener.web.answers import Attempt, Status
    from reserve_listener.web.page.rendering import Templates
    from reserve_listener.web.page.words import Words
    from reserve_listener.web.site import Site

LANGUAGE_COOKIE: Final = "reserve_listener_language"
YEAR_S: Final = 365 * 86_400
ATTEMPTS_SHOWN: Final = 10
LONGEST_NUMBER: Final = 9

Values = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """Who asks, and in which language."""

    request: Request
    language: str
    session: str | None
    status: Status | None
    now_ms: int

    def teller(self, site: Site, reader: StoreReader | None = None) -> Teller:
        """Says what is known, in that language."""
        several = reader is not None and reader.has_several_tenants()
        return Teller(self.language, site.directory, self.now_ms, several=several)


class Frame:
    """The same for all pages of a site."""

    def __init__(self, site: Site, sessions: Sessions, templates: Templates) -> None:
        self._site = site
        self._sessions = sessions
        self._templates = templates

    async def asked(self, request: Request) -> Asked:
        """Who asks, and how the daemon is."""
        try:
            status = await self._site.actions.status()
        except StoreError:
            status = None
        session = self._sessions.of(request.scope)
        return Asked(request, self._language(request), session, status, now_ms())

    def stranger(self, request: Request) -> Asked:
        """Who has not shown the token, and is told nothing."""
        return Asked(request, self._language(request), None, None, now_ms())

    def lost(self, request: Request, status: HTTPStatus, detail: str) -> Response:
        """Where there is no page, or none can be shown. It tells nothing of the daemon: whoever asks may not have signed in."""
        asked = self.stranger(request)
        words = LANGUAGES[asked.language]
        title, text = {
            HTTPStatus.NOT_FOUND: (words["no_page"], words["no_page_detail"]),
            HTTPStatus.METHOD_NOT_ALLOWED: (words["no_page"], words["no_page_detail"]),
            HTTPStatus.MISDIRECTED_REQUEST: (words["wrong_host"], words["wrong_host_detail"]),
            HTTPStatus.INTERNAL_SERVER_ERROR: (words["error"], words["bug_detail"]),
        }.get(status, (words["error"], detail))
        back = status != HTTPStatus.MISDIRECTED_REQUEST  # under this name nothing else is there, either
        html = self.written(asked, "lost", {"title": title, "text": text, "back": back})
        return self.answer(asked, html, status)

    def _language(self, request: Request) -> str:
        given = request.query_params.get("lang", "")
        kept = cookies(request.scope).get(LANGUAGE_COOKIE, "")
        return next((one for one in (given, kept) if one in LANGUAGES), None) or preferred(
            request.headers.get("accept-language", ""), self._site.language
        )

    async def shown(self, asked: Asked, look: Callable[[StoreReader], tuple[str, Values]]) -> Response:
        """A page of what is looked up, and written, in one of `Reads`' threads."""

        def write(reader: StoreReader) -> tuple[str, bytes]:
            name, values = look(reader)
            return name, self.written(asked, name, values)

        try:
            name, html = await self._site.reads.ask(write)
        except StoreError:
            html = self.written(asked, "unread", {})
            return self.answer(asked, html, HTTPStatus.SERVICE_UNAVAILABLE)
        return self.answer(asked, html, HTTPStatus.NOT_FOUND if name == "not_found" else HTTPStatus.OK)

    def written(self, asked: Asked, name: str, values: Values) -> bytes:
        """A page with all that stands around it."""
        teller = asked.teller(self._site)
        words = teller.words
        done = asked.request.query_params
        other = next(one for one in LANGUAGES if one != asked.language)
        is_form = asked.request.method == "POST"
        here = "/deliveries" if is_form and name != "login" else quote(asked.request.scope["path"])
        around: Values = {
            "name": name,
            "language": asked.language,
            "words": words,
            "say": lambda key, *given: fill(words[key], *given),
            "count": lambda key, number: counted(words, key, number),
            "error": partial(errors.told, words=words),
            "times": teller.times,
            "verdict": verdict(asked.status, words, teller.times),
            "status": asked.status,
            "breaks": pictures.breaks(asked.status, teller.times),
            "attempts": _attempts(asked.status),
            "now": teller.time(asked.now_ms),
            "form": None if asked.session is None else self._sessions.word(asked.session),
            "has_token": self._site.access.has_token,
            "version": __version__,
            "other": other,
            "other_words": LANGUAGES[other],
            "here": here,
            "switch": _switched(asked.request, other),
            "around": partial(_around, words),
            "done": _done(done.get("done", ""), done.get("count", "")),
            "filters": None,
        }
        return self._templates.render(name, around | values)

    def answer(self, asked: Asked, html: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
        """The page as an answer; a language that was chosen is remembered."""
        answer = Response(
            html, status, {"cache-control": "no-store", "vary": "Accept-Language, Cookie"}, "text/html"
        )
        if asked.request.query_params.get("lang") == asked.language:
            answer.set_cookie(
                LANGUAGE_COOKIE,
                asked.language,
                max_age=YEAR_S,
                samesite="strict",
                httponly=True,
                secure=self._sessions.is_secure(asked.request.scope),
            )
        return answer


def _around(words: Words, phrase: str, shown: Markup) -> Markup:
    """A phrase with a piece of HTML in it, with a blank where Chinese meets the figures in that."""
    before, _, after = phrase.partition("{}")
    blank = " " if words is CHINESE else ""
    return Markup("{}{}{}{}{}").format(
        before, blank if before else "", shown, blank if after else "", after
    )  # fixed


def _switched(request: Request, language: str) -> str:
    """The query of the same page in another language."""
    kept = [
        (key, value)
        for key, value in request.query_params.multi_items()
        if key not in ("lang", "done", "count")
    ]
    return urlencode([*kept, ("lang", language)], errors="replace")


def _attempts(status: Status | None) -> dict[str, list[tuple[str, Attempt]]]:
    """By sink, the last attempts that needed or were a retry, the newest first, each with its event."""
    found: dict[str, list[tuple[str, Attempt]]] = {}
    for failure in status.failures if status else ():
        found.setdefault(failure.sink, []).extend((failure.event_id, one) for one in failure.attempts)
    return {
        sink: sorted(attempts, key=lambda one: one[1].time, reverse=True)[:ATTEMPTS_SHOWN]
        for sink, attempts in found.items()
    }


def _done(what: str, count: str) -> tuple[str, str] | None:
    """What a form did, as the address says: a word of ours, and a number."""
    is_known = what in ("retry", "drop", "enable", "disable")
    return (what, count) if is_known and number(count) is not None else None


def number(text: str) -> int | None:
    """A number in an address; None: it is none that we wrote."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER else None
