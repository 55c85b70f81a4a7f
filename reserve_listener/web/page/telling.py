"""What the store knows, as the page's templates show it: places by name, changes in sentences, times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from reserve_listener.intake.summary import limits, summarise
from reserve_listener.text import page_of
from reserve_listener.web.page.limits import Limits
from reserve_listener.web.page.times import Times
from reserve_listener.web.page.words import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reserve_listener.model import HistoryEntry, KnownPlace, KnownScope, Scope
    from reserve_listener.protocols.store import Directory
    from reserve_listener.web.page.limits import Difference
    from reserve_listener.web.page.times import Time

LEVEL = "level"


@dataclass(frozen=True)
class Place:
    """A room or level. `name` stands in for one that is not known when `named` is false."""

    scope_type: str
    scope_id: str
    name: str
    named: bool
    names: tuple[str, ...]
    """From the top, its own last."""
    url: str
    gone: bool
    tenant: str | None = None

    @property
    def path(self) -> str:
        """Where it is."""
        return " › ".join(self.names[:-1])  # noqa: RUF001  # the sign between levels

    @property
    def is_level(self) -> bool:
        """Whether it is no room."""
        return self.scope_type == LEVEL


@dataclass(frozen=True)
class Entry:
    """A change in the feed or a history."""

    seq: int
    event_id: str
    place: Place
    at: Time
    received: Time
    revision: int | None
    summary: str
    differences: Sequence[Difference]
    first: bool
    found: bool


@dataclass(frozen=True)
class Row:
    """A room or level in the list of all."""

    place: Place
    summary: str | None
    changed: Time | None


class Teller:
    """For one page in one language. `several`: whether tenants have to be told apart."""

    def __init__(self, language: str, names: Directory, now_ms: int, *, several: bool = False) -> None:
        self.language = language
        self.words = LANGUAGES[language]
        self.times = Times(self.words, now_ms)
        self._names = names
        self._several = several
        self.limits = Limits(self.words, language, names.people)

    def place(self, scope_type: str, scope_id: str, tenant: str | None = None) -> Place:
        """A room or level by its present name."""
        name = self._names.name(scope_type, scope_id)
        unnamed = self.words[f"unnamed_{LEVEL if scope_type == LEVEL else 'room'}"]
        return Place(
            scope_type=scope_type,
            scope_id=scope_id,
            name=unnamed if name is None else name,
            named=name is not None,
            names=(*(self._names.path(scope_type, scope_id) or ()), unnamed if name is None else name),
            url=page_of(scope_id),
            gone=self._names.is_gone(scope_type, scope_id),
            tenant=tenant if self._several else None,
        )

    def of(self, scope: Scope) -> Place:
        """The same of a scope."""
        return self.place(scope.scope_type, scope.scope_id, scope.tenant_key)

    def entry(self, entry: HistoryEntry, most: int) -> Entry:
        """A change, with at most so many of those who came or went. A late one is told at the time when it came: it changed nothing at its own."""
        changes = None if entry.changes is None else _decoded(entry.changes)
        late = entry.revision is None
        at_ms = entry.received_ms if late or entry.created_ms is None else entry.created_ms
        return Entry(
            seq=entry.seq,
            event_id=entry.event_id,
            place=self.of(entry.scope),
            at=self.time(at_ms),
            received=self.time(entry.received_ms),
            revision=entry.revision,
            summary=summarise(changes, _decoded(entry.config), self.language, self._names.people),
            differences=self.limits.differences(changes, most=most),
            first=changes is None and not late,
            found=entry.origin is not None,
        )

    def days(self, entries: Iterable[HistoryEntry], *, most: int) -> list[tuple[str, str, list[Entry]]]:
        """Changes in the order that they have, under the day (and its zone) at which they happened."""
        found: list[tuple[str, str, list[Entry]]] = []
        for entry in (self.entry(one, most) for one in entries):
            if not found or found[-1][:2] != (entry.at.day, entry.at.zone):
                found.append((entry.at.day, entry.at.zone, []))
            found[-1][2].append(entry)
        return found

    def row(self, known: KnownScope) -> Row:
        """A room or level whose limits are known."""
        changed_ms = known.known.created_ms or known.received_ms
        return Row(
            self.of(known.scope),
            limits(_decoded(known.known.config), self.language),
            self.time(changed_ms) if known.known.revision else None,
        )

    def time(self, ms: int) -> Time:
        """A moment."""
        found = self.times.at(ms)
        assert found is not None  # noqa: S101  # only of None there is none
        return found


class Estate:
    """All rooms and levels that are known by name, to search in and to walk down."""

    def __init__(self, names: Directory) -> None:
        self._names = names
        self._places = list(names.places.values())  # a copy: others go on adding

    def like(self, text: str) -> set[tuple[str, str]]:
        """Those whose name or id has this in it, and all that is below such a level."""
        wanted = text.casefold()
        found = {
            (one.scope_type, one.scope_id)
            for one in self._places
            if wanted in one.scope_id.casefold() or wanted in (one.name or "").casefold()
        }
        return found | self.below(scope_id for scope_type, scope_id in found if scope_type == LEVEL)

    def below(self, levels: Iterable[str]) -> set[tuple[str, str]]:
        """All that is in these levels, and they themselves."""
        inside: dict[str, list[KnownPlace]] = {}
        for one in self._places:
            inside.setdefault(one.parent or "", []).append(one)
        found: set[tuple[str, str]] = set()
        waiting = list(levels)
        while waiting:
            level = waiting.pop()
            if (LEVEL, level) not in found:
                found.add((LEVEL, level))
                for one in inside.get(level, ()):
                    if one.scope_type == LEVEL:
                        waiting.append(one.scope_id)
                    else:
                        found.add((one.scope_type, one.scope_id))
        return found

    def directly_in(self, level: str) -> Iterator[tuple[str, str]]:
        """What is in a level and in none between."""
        return ((one.scope_type, one.scope_id) for one in self._places if one.parent == level)

    def levels(self) -> list[tuple[str, str]]:
        """Id and path of each level that has a name, by path."""
        found = [
            (one.scope_id, " › ".join([*(self._names.path(LEVEL, one.scope_id) or ()), one.name]))  # noqa: RUF001  # as above
            for one in self._places
            if one.scope_type == LEVEL and one.name is not None and one.gone_ms is None
        ]
        return sorted(found, key=lambda level: level[1].casefold())

    def keys(self) -> set[tuple[str, str]]:
        """All of them."""
        return {(one.scope_type, one.scope_id) for one in self._places}


def _decoded(text: str) -> Any:
    return msgspec.json.decode(text)
