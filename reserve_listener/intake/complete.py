"""An event says what changed: compared with what is known of its scope, and sealed. Pure.

What must stay true: the changes of a scope's events, applied one after the other, lead from its first configuration to the
one that is known; a late push turns nothing back; and a body is only added to, never written anew.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from reserve_listener.intake.changes import Change, Config, config_of, diff, merge
from reserve_listener.intake.directory import Directory
from reserve_listener.intake.summary import summarise
from reserve_listener.model import Completed, IncomingEvent, Known

if TYPE_CHECKING:
    from reserve_listener.protocols import Complete

END: Final = b"}}"
"""`data` is the last attribute of a body, and never empty (`normalize`): what is said of it goes in before this."""


class _Body(msgspec.Struct, gc=False):
    data: dict[str, Any]


class Telling(NamedTuple):
    """In which language, and with whose names."""

    language: str
    directory: Directory


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_config = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def completing(language: str, directory: Directory | None = None) -> Complete:
    """The function for sentences in this language, with the names of that directory: those that it has at the time."""
    return partial(complete, language=language, directory=directory or Directory())


def complete(
    event: IncomingEvent, previous: Known | None, *, language: str, directory: Directory
) -> Completed | None:
    """See `protocols.Complete`; None of an event that cannot be read."""
    if event.body is None:
        return None
    told = config_of(_decode_body(event.body).data)
    telling = Telling(language, directory)
    if previous is None:
        return seal(event, told, None, telling, revision=1, created_ms=event.created_ms)
    if is_late(event.created_ms, previous):
        return seal(event, told, None, telling, revision=None, created_ms=previous.created_ms)
    return _compared(event, told, previous, telling)


def is_late(created_ms: int | None, previous: Known) -> bool:
    """Whether what is known rests on something newer."""
    return created_ms is not None and previous.created_ms is not None and created_ms < previous.created_ms


def _compared(event: IncomingEvent, told: Config, previous: Known, telling: Telling) -> Completed:
    before = _decode_config(previous.config)
    return seal(
        event,
        merge(before, told),
        diff(before, told),
        telling,
        revision=previous.revision + 1,
        created_ms=previous.created_ms if event.created_ms is None else event.created_ms,
    )


def seal(
    event: IncomingEvent,
    after: Config,
    changes: list[Change] | None,
    telling: Telling,
    *,
    revision: int | None,
    created_ms: int | None,
) -> Completed:
    """The event with what is to be said of it; `revision` is None if it was superseded."""
    summary = summarise(changes, after, telling.language, telling.directory.people)
    said = _named(event, telling.directory)
    if revision is not None:
        said["revision"] = revision
    said |= {"changes": changes, "summary": summary}
    if revision is None:
        said["superseded"] = True
    if event.origin is not None:
        said["origin"] = event.origin
    paths = tuple([str(change["path"]) for change in changes]) if changes is not None else None
    return Completed(
        body=_sealed(event.body or b"", said),
        revision=revision,
        created_ms=created_ms,
        config=_encode(after).decode(),
        changes=None if changes is None else _encode(changes).decode(),
        paths=() if revision is None else paths,
        summary=summary,
    )


def _named(event: IncomingEvent, directory: Directory) -> dict[str, Any]:
    """What of the scope's names is known; the rest is left out."""
    scope = event.scope
    if scope is None:
        return {}
    names = {
        "scope_name": directory.name(scope.scope_type, scope.scope_id),
        "scope_path": directory.path(scope.scope_type, scope.scope_id),
    }
    return {key: value for key, value in names.items() if value is not None}


def _sealed(body: bytes, said: dict[str, Any]) -> bytes:
    if not body.endswith(END):
        raise ValueError("the body does not end with its data")
    return b"%b,%b}" % (body[: -len(END)], _encode(said)[1:])
