"""Keys that are set in the environment: `RESERVE_LISTENER_SECTION__KEY`."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from reserve_listener.config.model import Config
from reserve_listener.config.near import near
from reserve_listener.config.shown import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PREFIX: Final = "RESERVE_LISTENER_"
PATH_VARIABLE: Final = "RESERVE_LISTENER_CONFIG"
_SINKS: Final = f"{PREFIX}SINKS__"


def section_models() -> dict[str, type[BaseModel]]:
    """The sections that are one table each, which is all but the sinks, by name."""
    models = {}
    for section, field in Config.model_fields.items():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                models[section] = kind
    return models


def variable(section: str, key: str) -> str:
    """The name of the environment variable that sets a key."""
    return f"{PREFIX}{section}__{key}".upper()


def read(environ: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The values that the environment sets, by section and key, and what is wrong with the names, a line each."""
    known = dict(_variables())
    values: dict[str, dict[str, Any]] = {}
    problems = []
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        if "__" not in name:
            if meant := _with_two_underscores(name, known):
                problems.append(
                    f"environment: {name}: section and key are separated by two underscores: {meant}"
                )
        elif name in known:
            section, key = known[name]
            values.setdefault(section, {})[key] = _parsed(environ[name], section, key)
        else:
            problems.append(f"environment: {quoted(name, bare=True)}: {_unknown(name, known)}")
    return values, problems


def _variables() -> Iterator[tuple[str, tuple[str, str]]]:
    for section, model in section_models().items():
        for key in model.model_fields:
            yield variable(section, key), (section, key)


def _with_two_underscores(name: str, known: Mapping[str, Any]) -> str | None:
    """The variable that was meant when the section is divided from the key by one. Other names are not ours."""
    return next((right for right in known if right.replace("__", "_") == name), None)


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    if name.startswith(_SINKS):
        return "unknown; sinks can be configured only in the file"
    # Without what all have in common, which would make any two of them alike.
    own = {variable.removeprefix(PREFIX).lower(): variable for variable in known}
    if found := near(name.removeprefix(PREFIX), own):
        return f"unknown; did you mean {' or '.join(own[each] for each in found)}?"
    return "unknown; docs/configuration.md lists the names"


def _parsed(text: str, section: str, key: str) -> Any:
    """The text as the key's type. One that does not fit stays text, for the model to refuse with its reason."""
    kind = section_models()[section].model_fields[key].annotation
    if _is_array(kind):
        return [part.strip() for part in text.split(",")]
    parsers: dict[Any, Callable[[str], Any]] = {float: float, int: int, bool: _switch}
    try:
        return parsers.get(kind, str)(text)
    except ValueError:
        return text


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _is_array(kind: Any) -> bool:
    return any(typing.get_origin(each) is tuple for each in within(kind))


def within(kind: Any) -> Iterator[Any]:
    """A type and its parts, at every depth: of `Annotated[tuple[str, ...], …] | None` also the tuple."""
    yield kind
    for part in typing.get_args(kind):
        yield from within(part)
