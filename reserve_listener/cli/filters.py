"""The filters that several commands share."""

# No `from __future__ import annotations`: Typer reads the types when they run.
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reserve_listener.model import EventQuery
    from reserve_listener.protocols.store import StoreReader

SinkOption = Annotated[str | None, typer.Option("--sink", metavar="NAME", help="Only this sink.")]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="Only this room or level: its name or scope_id, or an unambiguous beginning of either.",
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only what was stored at this time or later: 45s, 30m, 2h or 7d ago, or 2026-11-22T08:00 (local time;"
        " with a zone: 2026-11-22T08:00Z).",
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="WHEN", help="Only what was stored before this time; format as for --since."
    ),
]
EventOption = Annotated[
    str | None,
    typer.Option(
        "--event-id", metavar="ID", help="Only this event: its ID, or an unambiguous beginning of it."
    ),
]

MORE_THAN_ONE = 3


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The filters as a person gave them."""

    sink: str | None = None
    scope: str | None = None
    since: str | None = None
    until: str | None = None
    event_ids: tuple[str, ...] = ()

    def filters(self, store: str, *, unknown_scope: bool = False) -> "list[EventQuery]":
        """One for each event that is named, or one for all. Looks ids up in the store of this URL.

        A time that cannot be read is an error of usage (exit 2). A sink, room or level that the store never knew is an
        error, and so is what several have for a name or beginning: something other than what was meant would match.
        `unknown_scope`: such a room or level is only a warning.
        """
        from msgspec.structs import replace

        from reserve_listener.cli.known import scope_id_of
        from reserve_listener.model import EventQuery
        from reserve_listener.store import open_reader

        since_ms, until_ms = moment(self.since, "--since"), moment(self.until, "--until")
        with open_reader(store) as reader:
            require_sink(reader, self.sink)
            scope_id = (
                scope_id_of(reader, self.scope, unknown_too=unknown_scope) if self.scope is not None else None
            )
            one = EventQuery(sink=self.sink, scope_id=scope_id, since_ms=since_ms, until_ms=until_ms)
            ids = dict.fromkeys(event_id_of(reader, event_id) for event_id in self.event_ids)
        return [replace(one, event_id=event_id) for event_id in ids] or [one]


def require_sink(reader: "StoreReader", name: str | None) -> None:
    """An error for a sink that the store never knew: nothing would match, silently."""
    names = [sink.name for sink in reader.sinks()]
    if name is not None and name not in names:
        raise ReserveListenerError(f'the store has no sink "{name}"; it has {", ".join(names) or "none"}.')


def event_id_of(reader: "StoreReader", text: str) -> str:
    """The id of the event that begins so; the text itself when none does, which then matches nothing."""
    start = unshortened(text)
    found = reader.ids_that_begin("event", start, limit=MORE_THAN_ONE)
    if len(found) > 1:
        raise ReserveListenerError(
            f'"{start}" is the beginning of several IDs ({some_of(found)}). Type more of the one you mean.'
        )
    return found[0] if found else text


def unshortened(text: str) -> str:
    """An id as it stands on a terminal, where it may end in dots. Nothing at all is an error of usage.

    It would be the beginning of everything, and it is what a script gives whose variable is not set.
    """
    start = text.removesuffix("…").removesuffix("...")
    if not start.strip():
        raise typer.BadParameter("an ID or a name is empty")
    return start


def some_of(found: "Sequence[str]") -> str:
    """The first of several."""
    more = " and more" if len(found) >= MORE_THAN_ONE else ""
    return ", ".join(found[: MORE_THAN_ONE - 1]) + more


def described(asked: Asked) -> "Iterator[str]":
    """What the filters match, piece by piece: `of the sink booking`."""
    for words, value in (
        ("of the sink", asked.sink),
        ("of", asked.scope),
        ("stored since", _ago(asked.since)),
        ("stored before", _ago(asked.until)),
    ):
        if value:
            yield f"{words} {value}"


def _ago(when: str | None) -> str | None:
    """A span ends in its unit: `2h ago`. A time stays as it was given."""
    return f"{when} ago" if when and when[-1] in "smhd" else when


def moment(text: str | None, option: str) -> int | None:
    """A time that a person gave, in milliseconds; one that cannot be read is an error of usage."""
    from reserve_listener.clock import moment_ms

    try:
        return None if text is None else moment_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
