"""Which room or level a person means, and what to say when nothing is known of it."""

from typing import TYPE_CHECKING

import typer

from reserve_listener.cli.filters import MORE_THAN_ONE, some_of, unshortened
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reserve_listener.protocols.store import Directory, StoreReader

PATH = " / "
"""Between the names of levels."""


def scope_id_of(reader: "StoreReader", text: str, *, unknown_too: bool = False) -> str:
    """The id of the room or level that a person means: by its id, its name, or an unambiguous beginning of either.

    One that the store does not know is an error. With `unknown_too` it is a warning, and the text itself, as an id.
    """
    from reserve_listener.intake import directory as naming

    start = unshortened(text)
    heard = reader.ids_that_begin("scope", start, limit=MORE_THAN_ONE)
    if heard == [start]:
        return start
    directory = reader.directory()
    places = list(directory.places.values())
    ids = [place.scope_id for place in places if place.scope_id.startswith(start)]
    if start in ids:
        return start
    exactly, begin_so = naming.called(places, text)
    if exactly:
        return _only(directory, text, (place.scope_id for place in exactly), "the name of several")
    begin_so = begin_so or naming.called(places, start)[1]
    found = [*heard, *ids, *(place.scope_id for place in begin_so)]
    if found:
        return _only(directory, start, found, "the beginning of several names or IDs")
    if not unknown_too:
        raise nothing_known(reader, text)
    typer.echo(f"warning: {visible(str(nothing_known(reader, text)))}", err=True)
    return text


def _only(directory: "Directory", text: str, found: "Iterable[str]", what: str) -> str:
    first, *others = ids = list(dict.fromkeys(found))
    if others:
        shown = some_of([_label(directory, scope_id) for scope_id in ids])
        raise ReserveListenerError(f'"{text}" is {what}: {shown}. Give more of it, or the ID.')
    return first


def _label(directory: "Directory", scope_id: str) -> str:
    name = called(directory, "room", scope_id) or called(directory, "level", scope_id)
    return f"{name} ({scope_id})" if name else scope_id


def called(directory: "Directory", scope_type: str, scope_id: str) -> str | None:
    """The name with those of the levels above it, as far as they are known."""
    name = directory.name(scope_type, scope_id)
    return None if name is None else PATH.join([*(directory.path(scope_type, scope_id) or ()), name])


def nothing_known(reader: "StoreReader", text: str) -> ReserveListenerError:
    """Why there is nothing to show."""
    if reader.is_rebuilding():
        return ReserveListenerError(
            f"nothing is known of {text} yet: the daemon is still going through the events of the older store."
        )
    return ReserveListenerError(
        f"nothing is known of {text}. `scopes list` shows the known rooms and levels."
    )


def mention_rebuilding(reader: "StoreReader") -> None:
    """What is shown is not all."""
    if reader.is_rebuilding():
        typer.echo(
            "note: the daemon is still computing the history of the older store; there is more to come",
            err=True,
        )
