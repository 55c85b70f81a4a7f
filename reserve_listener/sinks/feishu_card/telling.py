"""What a card tells of an event or alert: names, sentence, before and after, times. Pure.

What must stay true: nothing here raises, whatever stands in the event; and each text that comes out is one line of a
bounded length, in which a foreign name neither notifies anybody nor is read as markup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from reserve_listener.clock import zone_of
from reserve_listener.intake import words as intake_words
from reserve_listener.intake.changes import IDS, config_of
from reserve_listener.intake.summary import summarise
from reserve_listener.intake.terms import BY_PATH, as_it_is
from reserve_listener.intake.words import fill
from reserve_listener.model import LONGEST_NAME
from reserve_listener.sinks.feishu_card import meaning
from reserve_listener.sinks.feishu_card.words import LANGUAGES
from reserve_listener.text import page_of, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reserve_listener.intake.changes import Change
    from reserve_listener.sinks.feishu_card.words import CardWords

LONGEST_PATH: Final = 120
LONGEST_SENTENCE: Final = 300
EMPTY: Final = '""'
"""A text with nothing in it. The platform refuses a cell without any."""
LONGEST_CELL: Final = 80
"""A value in a table: on a telephone some four lines of its column."""
LONGEST_DETAIL: Final = 1_000
LONGEST_URL: Final = 1_000
"""A longer one is left out: no browser and no platform promises to take it."""

STEP: Final = " › "  # noqa: RUF001  # the sign between levels

# A mention, as texts and Markdown have it. A card's plain text does not read it, but what falls back to text would.
_MENTION: Final = re.compile(r"<(?=\s*/?\s*(?:at|person)\b)|@(?=\s*_?(?:all|everyone|所有人))", re.IGNORECASE)
_WIDE: Final = {"<": "\N{FULLWIDTH LESS-THAN SIGN}", "@": "\N{FULLWIDTH COMMERCIAL AT}"}


@dataclass(frozen=True)
class Look:
    """How cards are told. `public_url`: where the page is, for links."""

    language: Literal["en", "zh"]
    public_url: str | None
    told_in: Literal["en", "zh"] | None = None
    """The language of the events' own summaries, which name people."""

    @property
    def words(self) -> CardWords:
        """In the language."""
        return LANGUAGES[self.language]

    @property
    def page(self) -> str | None:
        """The page with all changes."""
        url = None if self.public_url is None else f"{self.public_url.rstrip('/')}/"
        return url if url is None or len(url) <= LONGEST_URL else None

    def page_of(self, scope_id: str) -> str | None:
        """The page of a room or level; of an id that no address can hold, the page with all."""
        if self.page is None or not scope_id:
            return self.page
        url = f"{self.page.rstrip('/')}{page_of(scope_id)}"
        return url if len(url) <= LONGEST_URL else self.page


@dataclass(frozen=True)
class Row:
    """One limit before and after."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Told:
    """One event. `kinds`: what is special about it, in words, for tags."""

    scope: tuple[str, str]
    """Type and id."""
    name: str
    path: tuple[str, ...]
    kinds: tuple[str, ...]
    sentence: str
    rows: tuple[Row, ...]
    at: datetime | None
    note: str
    """The time, and what is to be said about it."""
    colour: str
    url: str | None


def told(body: Mapping[str, Any], look: Look) -> Told:
    """One event, as a sink received it."""
    data = mapping(body.get("data"))
    words = look.words
    scope_type, scope_id = _text(data.get("scope_type")), _text(data.get("scope_id") or body.get("subject"))
    changes = _changes(data.get("changes"))
    is_late, is_found = data.get("superseded") is True, data.get("origin") == "reconcile"
    is_first = changes is None and not is_late
    at = moment(body.get("time"))
    special = (
        (is_late, words.late),
        (is_found, words.found),
        (is_first, words.first),
        (scope_type == "level", words.level),
    )
    is_test = body.get("test") is True  # all else that it says is made up
    note = words.late_note if is_late else words.found_note if is_found and changes else "{}"
    return Told(
        scope=(scope_type, scope_id),
        name=plain(_text(data.get("scope_name")), LONGEST_NAME)
        or plain(
            words.unnamed["level" if scope_type == "level" else "room"].format(scope_id or "?"), LONGEST_NAME
        ),
        path=_path(data.get("scope_path")),
        kinds=(words.test,) if is_test else tuple(kind for is_so, kind in special if is_so),
        sentence=_sentence(data, changes, look),
        rows=tuple(_row(change, look) for change in changes or ()),
        at=at,
        note="" if at is None else note.format(local(at)),
        colour=meaning.NO_EFFECT if is_late else meaning.NEWS if changes is None else meaning.colour(changes),
        url=look.page_of(scope_id),
    )


def plain(text: str, longest: int) -> str:
    """A foreign text as one line that notifies nobody, cut at so many characters."""
    return _MENTION.sub(lambda found: _WIDE[found[0]], visible(text, longest))


def mapping(value: Any) -> Mapping[str, Any]:
    """An object, as JSON has it; anything else is an empty one."""
    return value if isinstance(value, dict) else {}


def moment(text: Any) -> datetime | None:
    """RFC 3339, on the clock of this machine; None: it is none."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def local(at: datetime) -> str:
    """`2026-11-26 14:07:03 UTC+8`."""
    return f"{at:%Y-%m-%d %H:%M:%S} {zone_of(at)}"


def span(times: Iterable[datetime | None], look: Look) -> str:
    """From the first to the last of them."""
    known = sorted(at for at in times if at is not None)
    if not known:
        return ""
    first, last = known[0], known[-1]
    if f"{first:%F %T}" == f"{last:%F %T}":
        return local(last)
    is_same_day = first.date() == last.date() and zone_of(first) == zone_of(last)
    end = f"{last:%H:%M:%S} {zone_of(last)}" if is_same_day else local(last)
    return look.words.span.format(f"{first:%Y-%m-%d %H:%M:%S}" if is_same_day else local(first), end)


# -- parts --------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _path(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    return tuple(plain(name, LONGEST_NAME) for name in names if isinstance(name, str) and name)


def _changes(value: Any) -> list[Change] | None:
    """What of it is written as changes are: the event may come from elsewhere, by a replay or another version."""
    return [change for change in value if _is_change(change)] if isinstance(value, list) else None


def _is_change(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return False
    lists = [value[side] for side in ("added", "removed") if side in value]
    if not lists:
        return True
    is_list = value["path"] in BY_PATH and BY_PATH[value["path"]].key in IDS
    return is_list and len(lists) == 2 and all(isinstance(entries, list) for entries in lists)  # noqa: PLR2004  # sides


def _sentence(data: Mapping[str, Any], changes: list[Change] | None, look: Look) -> str:
    config = config_of(dict(data))
    if (not config and not changes) or (look.told_in == look.language and _text(data.get("summary"))):
        return plain(_text(data.get("summary")), LONGEST_SENTENCE) or look.words.unreadable
    return plain(summarise(changes, config, look.language), LONGEST_SENTENCE)


def _row(change: Change, look: Look) -> Row:
    path, words = change["path"], intake_words.LANGUAGES[look.language]
    name = BY_PATH[path].heading(look.language) if path in BY_PATH else path
    if change.get("effective") is False:
        name = fill(words.moot, name)
    if "added" in change:
        before = _counted(words.removed, path, change["removed"], look)
        after = _counted(words.added, path, change["added"], look)
    else:
        before, after = (_value(change, side, look) for side in ("before", "after"))
    return Row(*(plain(text, LONGEST_CELL) or EMPTY for text in (name, before, after)))


def _counted(phrase: str, path: str, entries: list[Any], look: Look) -> str:
    if not entries:
        return look.words.nothing
    kind = intake_words.LANGUAGES[look.language].kinds[BY_PATH[path].key]
    return fill(phrase, fill(kind.one if len(entries) == 1 else kind.many, len(entries)))


def _value(change: Change, side: str, look: Look) -> str:
    if side not in change:
        return intake_words.LANGUAGES[look.language].not_set
    term = BY_PATH.get(change["path"])
    try:
        return as_it_is(change[side]) if term is None else term.show(change[side], look.language)
    except (RecursionError, TypeError, ValueError):
        return "…"
