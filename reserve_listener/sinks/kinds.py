"""All kinds of sinks: those in this package, a module or a folder each, and plugins (entry points).

A plugin is loaded when its type is used, and entry points are only looked at for a type that is not built in: at a start
nothing else needs them.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from reserve_listener.errors import ConfigError
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Collection
    from importlib.metadata import EntryPoint

    from reserve_listener.protocols import SinkKind

GROUP: Final = "reserve_listener.sinks"
OURS: Final = frozenset({"kinds", "registry", "brokers"})
"""What is in this package and is no kind."""
SHOWN_CHARS: Final = 300
"""What of a plugin's error is shown."""


class Kinds:
    """See `protocols.SinkKinds`."""

    def __init__(self) -> None:
        package = importlib.import_module(GROUP)
        self.built_in = tuple(
            found.name for found in pkgutil.iter_modules(package.__path__) if found.name not in OURS
        )
        self._found: dict[str, SinkKind] = {}

    def installed(self) -> Collection[str]:
        """See `protocols.SinkKinds.installed`."""
        return sorted({entry.name for entry in _entries()})

    def find(self, name: str, /) -> SinkKind | None:
        """See `protocols.SinkKinds.find`."""
        if name not in self._found:
            found = self._built_in(name) if name in self.built_in else _plugin(name)
            if found is None:
                return None
            self._found[name] = found
        return self._found[name]

    def shadowed(self) -> list[str]:
        """What is wrong with plugins that offer the name of a kind that is built in: they are never used."""
        return [
            f'{_origin(entry)} offers the type "{entry.name}", which is built in; it is not used'
            for entry in _entries()
            if entry.name in self.built_in
        ]

    def _built_in(self, name: str) -> SinkKind:
        kind: SinkKind = importlib.import_module(f"{GROUP}.{name}").KIND
        _require_modules(name, kind)
        return kind


KINDS: Final = Kinds()


def _entries(name: str | None = None) -> Collection[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415  # takes as long as all the rest of this module

    every = entry_points(group=GROUP)
    return every if name is None else every.select(name=name)


def _plugin(name: str) -> SinkKind | None:
    entries = {entry.value: entry for entry in _entries(name)}
    if not entries:
        return None
    if len(entries) > 1:
        origins = " and ".join(sorted(map(_origin, entries.values())))
        raise ConfigError(f'type "{name}" is offered twice, by {origins}; uninstall one of them')
    (entry,) = entries.values()
    where = f'type "{name}": the plugin {entry.value} of {_origin(entry)}'
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:
        cause = visible(f"{type(error).__name__}: {error}", SHOWN_CHARS)
        raise ConfigError(f"{where} cannot be loaded: {cause}; repair it or uninstall it") from error
    if problem := _problem(name, found):
        raise ConfigError(f"{where} is no kind of sink: {problem}")
    _require_modules(name, found)
    kind: SinkKind = found
    return kind


def _problem(name: str, found: Any) -> str | None:
    """What keeps an object from being a kind."""
    if isinstance(found, type):
        return "it is a class; name an instance of it"
    settings = getattr(found, "settings", None)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        return "its settings are not a pydantic model"
    if not callable(getattr(found, "build", None)):
        return "it has no build"
    keys = (key for part in ("secrets", "files", "writes") for key in getattr(found, part, ()))
    if unknown := [key for key in keys if key not in settings.model_fields]:
        return f"its settings have no {', '.join(unknown)}"
    if getattr(found, "name", None) != name:
        return f"its name is {getattr(found, 'name', None)!r}"
    return None


def _require_modules(name: str, kind: SinkKind) -> None:
    needs = getattr(kind, "needs", {})
    if missing := [package for module, package in needs.items() if not _is_there(module)]:
        wanted = " ".join(f"'{package}'" for package in dict.fromkeys(missing))
        raise ConfigError(f'type "{name}" needs what is not installed: pip install {wanted}')


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # what it is a part of is missing
        return False


def _origin(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else "an unknown package"
