"""Is it well: the line on top of every page, in the page's words.

The daemon gives its reasons in English, for commands and scripts. The page says what they mean to whoever looks after rooms,
and keeps the daemon's own words for whoever is on call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reserve_listener.intake.words import fill

if TYPE_CHECKING:
    from reserve_listener.web.answers import Reason, Status
    from reserve_listener.web.page.times import Time, Times
    from reserve_listener.web.page.words import Words

OK: Final = "ok"
SINK: Final = "sink "


@dataclass(frozen=True)
class Trouble:
    """One thing that is not well."""

    reason: str
    since: Time | None
    hint: str
    said: str
    """In the daemon's own words."""


@dataclass(frozen=True)
class Verdict:
    """`status`: ok, degraded, failing or unknown."""

    status: str
    word: str
    since: Time | None
    detail: str
    troubles: tuple[Trouble, ...]


def verdict(status: Status | None, words: Words, times: Times) -> Verdict:
    """None: the daemon could not say."""
    if status is None or status.status not in words:
        return Verdict("unknown", words["unknown"], None, "", ())
    troubles = tuple(_trouble(reason, status, words, times) for reason in status.reasons)
    if status.status == OK:
        connection = status.connection
        since = times.told(connection.since if connection else None)
        listens = connection is not None and connection.state == "listening"
        detail = words["ok_detail_webhook" if listens else "ok_detail"]
        return Verdict(OK, words[OK], since, detail, troubles)
    detail = words["nothing_lost"] if status.status == "degraded" else ""
    since = troubles[0].since if troubles else None
    return Verdict(status.status, words[status.status], since, detail, troubles)


def _trouble(reason: Reason, status: Status, words: Words, times: Times) -> Trouble:
    kind, name = _kind(reason, status)
    said = reason.reason if reason.hint is None else f"{reason.reason} ({reason.hint})"
    since = times.told(reason.since)
    if f"{kind}_reason" not in words:
        return Trouble(reason.reason, since, reason.hint or "", said)
    if kind == "dead_letters":
        return Trouble(
            counted(words, "dead_letters_reason", status.dead_letters),
            since,
            words["dead_letters_hint"],
            said,
        )
    return Trouble(fill(words[f"{kind}_reason"], name), since, fill(words[f"{kind}_hint"], name), said)


def _kind(reason: Reason, status: Status) -> tuple[str, str]:
    """Which words are for it, and the name that goes into them."""
    if reason.part == "store":
        return ("problem" if status.problem is not None else "filling"), ""
    if reason.part.startswith(SINK):
        name = reason.part.removeprefix(SINK)
        return next((sink.state for sink in status.sinks if sink.name == name), ""), name
    return reason.part, ""


def counted(words: Words, key: str, number: int) -> str:
    """A number of things, in the singular if it is one."""
    return fill(words[f"{key}_1" if number == 1 else key], f"{number:,}")
