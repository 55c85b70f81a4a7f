"""The verdict at the top of every page, in the page's words.

The daemon gives its reasons in English, for commands and scripts. The page says what they mean for facility managers, and keeps
the daemon's own words for whoever is on call.
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
OF_DELIVERIES: Final = frozenset({"down", "misconfigured", "failing", "disabled", "dead_letters"})
GAP: Final = "gap"
SILENT: Final = "silent"


@dataclass(frozen=True)
class Trouble:
    """One thing that is not well."""

    reason: str
    since: Time | None
    hint: str
    said: str
    """In the daemon's own words."""
    kind: str = ""

    @property
    def is_of_deliveries(self) -> bool:
        """Whether the page of sinks and dead letters says more about it."""
        return self.kind in OF_DELIVERIES


@dataclass(frozen=True)
class Verdict:
    """`status`: ok, degraded, failing or unknown."""

    status: str
    word: str
    since: Time | None
    detail: str
    troubles: tuple[Trouble, ...]

    @property
    def is_store_silent(self) -> bool:
        """Whether what the store holds is not known."""
        return any(trouble.kind == SILENT for trouble in self.troubles)


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
    may_be_lost = any(trouble.kind in (GAP, SILENT) for trouble in troubles)
    detail = words["nothing_lost"] if status.status == "degraded" and not may_be_lost else ""
    since = troubles[0].since if troubles else None
    return Verdict(status.status, words[status.status], since, detail, troubles)


def _trouble(reason: Reason, status: Status, words: Words, times: Times) -> Trouble:
    kind, name = _kind(reason, status)
    said = reason.reason if reason.hint is None else f"{reason.reason} ({reason.hint})"
    since = times.told(reason.since)
    if f"{kind}_reason" not in words:
        return Trouble(reason.reason, since, reason.hint or "", said)
    if kind == "dead_letters":
        told = counted(words, "dead_letters_reason", status.dead_letters)
        return Trouble(told, since, words["dead_letters_hint"], said, kind)
    reconciles = status.reconcile is not None and status.reconcile.state != "off"
    hint = words["gap_hint_by_hand" if kind == GAP and not reconciles else f"{kind}_hint"]
    return Trouble(fill(words[f"{kind}_reason"], name), since, fill(hint, name), said, kind)


def _kind(reason: Reason, status: Status) -> tuple[str, str]:
    """Which words are for it, and the name that goes into them."""
    if reason.part == "store":
        return _of_store(reason, status), ""
    if reason.part.startswith(SINK):
        name = reason.part.removeprefix(SINK)
        return next((sink.state for sink in status.sinks if sink.name == name), ""), name
    return reason.part, ""


def _of_store(reason: Reason, status: Status) -> str:
    """There may be two: it takes nothing, and it is nearly full. What does not tell its size is silent."""
    if status.problem is not None and status.problem in reason.reason:
        return "problem"
    return SILENT if status.store.size_mb is None else "filling"


def counted(words: Words, key: str, number: int) -> str:
    """A number of things, in the singular if it is one."""
    return fill(words[f"{key}_1" if number == 1 else key], f"{number:,}")
