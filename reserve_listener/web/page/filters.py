"""What a person looks for in the feed: the fields of its form, as they stand in the address."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from reserve_listener.model import SECTIONS, ChangeQuery
from reserve_listener.web.page.times import day_begins_ms

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

    from reserve_listener.protocols.store import StoreReader
    from reserve_listener.web.page.telling import Estate

LONGEST: Final = 200
"""Characters of a field; an id has some 40."""

SHORTEST_EVENT: Final = 4
"""Characters with which an event is searched by its id; fewer are in many, and stand for a name being typed."""

OPEN: Final = "open"

Keys = frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The fields, as they came; an empty one matches everything."""

    q: str = ""
    type: str = ""
    level: str = ""
    kind: str = ""
    since: str = ""
    until: str = ""
    before: str = ""
    filter: str = ""
    """Whether the form is asked for: most never open it, and its fields cost a browser more than all changes."""

    @classmethod
    def of(cls, given: QueryParams) -> Filters:
        """What an address asks for. What is no value of a field counts as empty: it is a page, not an interface."""
        found = cls(**{field.name: given.get(field.name, "").strip()[:LONGEST] for field in fields(cls)})
        return replace(
            found,
            type=found.type if found.type in ("room", "level") else "",
            kind=found.kind if found.kind in SECTIONS else "",
            before=found.before if found.before.isascii() and found.before.isdecimal() else "",
            filter=OPEN if found.filter else "",
        )

    @property
    def is_narrowed(self) -> bool:
        """Whether the form says more than the search."""
        return any((self.type, self.level, self.kind, self.since, self.until))

    @property
    def is_open(self) -> bool:
        """Whether the form is shown."""
        return self.is_narrowed or bool(self.filter)

    @property
    def is_any(self) -> bool:
        """Whether anything is looked for."""
        return self.is_narrowed or bool(self.q)

    def query(self, places: Keys | None) -> ChangeQuery:
        """The same for the store. `places`: those that are meant; None: all."""
        return ChangeQuery(
            scopes=places,
            scope_type=self.type or None,
            section=self.kind or None,
            since_ms=day_begins_ms(self.since),
            until_ms=day_begins_ms(self.until, days_later=1),
            before_seq=min(int(self.before), 2**63 - 1) if self.before else None,
        )

    def found(self, estate: Estate, reader: StoreReader) -> Keys | None:
        """Rooms and levels that are searched for by name or id; None: there is no search."""
        if not self.q:
            return None
        found = estate.like(self.q)
        for scope_id in reader.ids_that_begin("scope", self.q, limit=100):
            found |= {(one.scope.scope_type, one.scope.scope_id) for one in reader.known_scopes(scope_id)}
        return frozenset(found)

    def places(self, estate: Estate, found: Keys | None) -> Keys | None:
        """Those of them that are in the level."""
        if not self.level:
            return found
        inside = frozenset(estate.below([self.level]))
        return inside if found is None else inside & found

    def url(self, **others: str) -> str:
        """The address of the feed with these filters, some of them other."""
        asked = replace(self, **others)
        given = {field.name: getattr(asked, field.name) for field in fields(asked)}
        text = urlencode({name: value for name, value in given.items() if value}, errors="replace")
        return f"/?{text}" if text else "/"
