"""Compares an event with what is known of its scope, adds what changed, and seals it. Pure.

What must stay true: the changes of a scope's events, applied in turn, lead from its first configuration to the known one; a
late push reverts nothing; and a body is only added to, never rewritten.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from reserve_listener.intake.changes import Change, Config, config_of, diff, merge
from reserve_listener.intake.directory import Directory
from reserve_listener.intake.summary import summarise
from reserve_listener.model import SECTIONS, Completed, IncomingEvent, Known

if TYPE_CHECKING:
    from reserve_listener.protocols import Complete

END: Final = b"}}"
"""`data` is the last attribute of a body and never empty (`normalize`), so additions to it go in before this."""

REMEMBERED: Final = 256
REMEMBERED_BYTES: Final = 4 * 1024
"""A bulk change moves many rooms from a few configurations to one, so results are kept rather than computed for each room: this
many, of inputs no larger than this (several times the usual). That is less than 8 MiB, whatever is pushed."""


class Telling(NamedTuple):
    """The language, and the directory with the names."""

    language: str
    directory: Directory


class _Any(msgspec.Struct, gc=False):
    data: dict[str, Any]


class _UsualData(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The sections as they stand in the body; an empty one is absent."""

    scope_id: Raw
    scope_type: Raw
    approve_config: Raw = Raw()
    time_config: Raw = Raw()
    reserve_scope_config: Raw = Raw()


class _Usual(msgspec.Struct, gc=False):
    data: _UsualData


class Comparison(msgspec.Struct, frozen=True, gc=False):
    """The result of a comparison: the same for all scopes with the same known state and the same news."""

    config: str
    changes: str | None
    paths: tuple[str, ...] | None
    summary: str
    said: bytes
    """`changes` and `summary` as JSON members of a body, without the braces."""


_decode_any = msgspec.json.Decoder(_Any).decode
_decode_usual = msgspec.json.Decoder(_Usual).decode
_decode = msgspec.json.Decoder().decode
_decode_config = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def completing(language: str, directory: Directory | None = None) -> Complete:
    """A function that writes sentences in this language, with the names that the directory has when it is called."""
    return _Completing(Telling(language, directory or Directory()))


class _Completing:
    """See `protocols.Complete`. For one thread only."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._people = telling.directory.people
        self._remembered = lru_cache(REMEMBERED)(self._compare_usual)

    def __call__(self, event: IncomingEvent, previous: Known | None) -> Completed | None:
        """None for an event that cannot be read."""
        if event.body is None:
            return None
        created_ms, directory = event.created_ms, self._telling.directory
        if previous is None:
            comparison = self._compared(None, event.body)
            return seal(event, comparison, directory, revision=1, created_ms=created_ms)
        if is_late(created_ms, previous):
            comparison = self._compared(None, event.body)
            return seal(event, comparison, directory, revision=None, created_ms=previous.created_ms)
        comparison = self._compared(previous.config, event.body)
        return seal(
            event,
            comparison,
            directory,
            revision=previous.revision + 1,
            created_ms=previous.created_ms if created_ms is None else created_ms,
        )

    def _compared(self, before: str | None, body: bytes) -> Comparison:
        if self._people is not self._telling.directory.people:  # somebody's name is another by now
            self._people = self._telling.directory.people
            self._remembered.cache_clear()
        try:
            data = _decode_usual(body).data
        except msgspec.ValidationError:  # more in it than the page has
            return self._compare(before, config_of(_decode_any(body).data))
        told = (bytes(data.approve_config), bytes(data.time_config), bytes(data.reserve_scope_config))
        if len(before or "") + sum(map(len, told)) > REMEMBERED_BYTES:
            return self._compare_usual(before, told)
        return self._remembered(before, told)

    def _compare_usual(self, before: str | None, sections: tuple[bytes, ...]) -> Comparison:
        told = {name: _decode(section) for name, section in zip(SECTIONS, sections, strict=True) if section}
        return self._compare(before, config_of(told))

    def _compare(self, before: str | None, told: Config) -> Comparison:
        if before is None:
            return in_words(told, None, self._telling)
        known = _decode_config(before)
        return in_words(merge(known, told), diff(known, told), self._telling)


def is_late(created_ms: int | None, previous: Known) -> bool:
    """Whether the known state comes from something newer."""
    return created_ms is not None and previous.created_ms is not None and created_ms < previous.created_ms


def in_words(after: Config, changes: list[Change] | None, telling: Telling) -> Comparison:
    """The result of a comparison, in words and as JSON."""
    summary = summarise(changes, after, telling.language, telling.directory.people)
    return Comparison(
        config=_encode(after).decode(),
        changes=None if changes is None else _encode(changes).decode(),
        paths=None if changes is None else tuple([str(change["path"]) for change in changes]),
        summary=summary,
        said=_members({"changes": changes, "summary": summary}),
    )


def seal(
    event: IncomingEvent,
    comparison: Comparison,
    directory: Directory,
    *,
    revision: int | None,
    created_ms: int | None,
) -> Completed:
    """The event with the additions; `revision` is None if it was superseded."""
    first, last = _named(event, directory), dict[str, Any]()
    if revision is None:
        last["superseded"] = True
    else:
        first["revision"] = revision
    if event.origin is not None:
        last["origin"] = event.origin
    return Completed(
        body=_sealed(event.body or b"", _members(first), comparison.said, _members(last)),
        revision=revision,
        created_ms=created_ms,
        config=comparison.config,
        changes=comparison.changes,
        paths=() if revision is None else comparison.paths,
        summary=comparison.summary,
    )


def _named(event: IncomingEvent, directory: Directory) -> dict[str, Any]:
    """The scope's name and path, as far as they are known."""
    named: dict[str, Any] = {}
    if (scope := event.scope) is not None:
        if (name := directory.name(scope.scope_type, scope.scope_id)) is not None:
            named["scope_name"] = name
        if (path := directory.path(scope.scope_type, scope.scope_id)) is not None:
            named["scope_path"] = path
    return named


def _members(said: dict[str, Any]) -> bytes:
    """As JSON, without the braces."""
    return _encode(said)[1:-1] if said else b""


def _sealed(body: bytes, *members: bytes) -> bytes:
    if not body.endswith(END):
        raise ValueError("the body does not end with its data")
    return b",".join((body[: -len(END)], *filter(None, members))) + END
