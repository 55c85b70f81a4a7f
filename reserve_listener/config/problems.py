"""pydantic's errors as lines that a person can act on: where, which key, what was found, what is allowed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reserve_listener.config.environment import section_models
from reserve_listener.config.model import Config
from reserve_listener.config.near import near
from reserve_listener.config.shown import header_name, kind, public_sink_url, quoted, shown, suggests_secret
from reserve_listener.config.sinks import RetryConfig, SinkTable, table_of
from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from reserve_listener.protocols import SinkKinds

# Besides those whose name says it: a header line, or "user:password", may have been put there.
_NOT_SHOWN = frozenset({"headers", "header_files", "basic_user"})
_HEADER_TABLES = frozenset({"headers", "header_files"})


@dataclass(frozen=True)
class Sinks:
    """The sinks as the file has them, and the kinds that there are."""

    values: Mapping[str, Any]
    kinds: SinkKinds

    def table(self, index: int | str) -> Mapping[str, Any]:
        """A `[[sinks]]` table; empty when there is none."""
        sinks = self.values.get("sinks")
        found = (
            sinks[index]
            if isinstance(sinks, list) and isinstance(index, int) and index < len(sinks)
            else None
        )
        return found if isinstance(found, dict) else {}

    def model(self, name: Any) -> type[SinkTable] | None:
        """The model of sinks of this type; None when there is none that can be used."""
        try:
            found = self.kinds.find(name) if isinstance(name, str) else None
            return None if found is None else table_of(found)
        except ConfigError:
            return None


@dataclass(frozen=True, kw_only=True)
class _Mistake:
    """One of pydantic's errors, or a line of it, with the place as it stands in the file."""

    kind: str
    path: tuple[int | str, ...]
    sinks: Sinks
    model: type[SinkTable] | None
    """The model of the sink that the key is of; otherwise None."""
    value: Any
    context: Mapping[str, Any]
    message: str
    given: bool
    """Whether somebody set the key; otherwise the default does not go with the rest."""


def lines(
    error: ValidationError,
    at: Callable[[tuple[int | str, ...]], str],
    is_given: Callable[[tuple[int | str, ...]], bool],
    sinks: Sinks,
) -> Iterable[str]:
    """One line a mistake. `at` says in what file or variable a key stands, and names the key."""
    errors = error.errors(include_url=False)
    for details in errors:
        if _only_follows(details, errors):
            continue
        mistake = _mistake(details, is_given, sinks)
        for phrase in _PHRASES.get(mistake.kind, _wrong_value)(mistake).split("\n"):
            yield f"{at(mistake.path)}: {phrase}"


def _only_follows(details: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """An array counts as too short also when each of its items was refused; that has been said then."""
    place = details["loc"]
    return details["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in errors
    )


def label(path: tuple[int | str, ...], values: Mapping[str, Any]) -> str:
    """`lark.app_id`; `sinks[1] "audit".path` when the sink has a name to be known by."""
    text = ""
    for position, part in enumerate(path):
        if isinstance(part, int):
            text += f"[{part}]{_sink_name(values, part) if position == 1 and path[0] == 'sinks' else ''}"
        else:
            is_header = path[position - 1] in _HEADER_TABLES if position else False
            name = header_name(part) if is_header else quoted(part, bare=True)
            text += f"{'.' if text else ''}{name}"
    return text


def _sink_name(values: Mapping[str, Any], index: int) -> str:
    sinks = values.get("sinks")
    sink = sinks[index] if isinstance(sinks, list) and index < len(sinks) else None
    name = sink.get("name") if isinstance(sink, dict) else None
    return f" {quoted(name)}" if isinstance(name, str) and name else ""


def _mistake(
    details: ErrorDetails, is_given: Callable[[tuple[int | str, ...]], bool], sinks: Sinks
) -> _Mistake:
    path = details["loc"]
    is_of_sink = len(path) > 2 and path[0] == "sinks"  # noqa: PLR2004 - ("sinks", index, key)
    return _Mistake(
        kind=details["type"],
        path=path,
        sinks=sinks,
        model=sinks.model(sinks.table(path[1]).get("type")) if is_of_sink else None,
        value=details["input"],
        context=details.get("ctx", {}),
        message=details["msg"],
        given=is_given(path),
    )


def _wrong_value(mistake: _Mistake) -> str:
    """What is allowed, and what was found."""
    default = "" if mistake.given else ", the default"
    return f"{_allowed(mistake)}, found {_found(mistake.value, mistake.path)}{default}"


def _found(value: Any, path: tuple[int | str, ...]) -> str:
    if any(isinstance(part, str) and (part in _NOT_SHOWN or suggests_secret(part)) for part in path[1:]):
        return "an empty string" if value == "" else f"{kind(value)} (not shown)"
    if path[:2] == ("heartbeat", "url"):
        return f"{kind(value)} (not shown)"
    is_address = path[0] == "sinks" and path[-1] == "url" and isinstance(value, str)
    return quoted(public_sink_url(value)) if is_address else shown(value)


def _allowed(mistake: _Mistake) -> str:
    context = mistake.context
    if mistake.kind == "too_short" and mistake.value == []:
        return "must have at least one item; to accept all, leave it out"
    phrases = {
        "string_type": "must be a string in quotes",
        "string_unicode": "must be UTF-8 text",
        "path_type": "must be a path in quotes",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "dict_type": 'must be a table, such as { "X-Name" = "value" }',
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "float_parsing": "must be a number",
        "bool_parsing": "must be true or false",
        "finite_number": "must be a finite number",
        "string_too_short": "must not be empty",
        "too_short": "must not be empty",
        "string_pattern_mismatch": "must be 1 to 64 characters from a-z, 0-9, - and _, and begin with a letter or digit",
        "greater_than": f"must be more than {_number(context, 'gt')}",
        "greater_than_equal": f"must be {_number(context, 'ge')} or more",
        "less_than_equal": f"must be {_number(context, 'le')} or less",
        "value_error": str(context.get("error", "")),
    }
    return phrases.get(mistake.kind, mistake.message[:1].lower() + mistake.message[1:])


def _number(context: Mapping[str, Any], name: str) -> str:
    number = context.get(name, "")
    return f"{number:.0f}" if isinstance(number, float) and number.is_integer() else str(number)


def _unknown_key(mistake: _Mistake) -> str:
    key, known = str(mistake.path[-1]), _known_keys(mistake)
    here = [f'"{name}"' for name in near(key, known)]
    elsewhere = [
        f'"{section}.{key}"' for section, model in section_models().items() if key in model.model_fields
    ]
    if mistake.model and key in RetryConfig.model_fields:
        elsewhere, here = [f'"retry.{key}"'], []
    if not here and (types := _types_with(key, mistake)):
        return f"unknown key here; it belongs to sinks of type {types}"
    if choices := (here or elsewhere if mistake.model else elsewhere or here):
        return f"unknown key; did you mean {' or '.join(choices)}?"
    return f"unknown key; the {'sections' if len(mistake.path) == 1 else 'keys'} here are {', '.join(known)}"


def _types_with(key: str, mistake: _Mistake) -> str:
    """The types of sinks that know a key which this sink does not."""
    if mistake.model is None or len(mistake.path) != 3:  # noqa: PLR2004 - ("sinks", index, key)
        return ""
    models = ((name, mistake.sinks.model(name)) for name in mistake.sinks.kinds.built_in)
    types = [name for name, model in models if model is not None and key in model.model_fields]
    return " or ".join(f'"{name}"' for name in types)


def _known_keys(mistake: _Mistake) -> list[str]:
    if len(mistake.path) == 1:
        return list(Config.model_fields)
    if mistake.model and mistake.path[2:-1] == ("retry",):
        return list(RetryConfig.model_fields)
    model = mistake.model or section_models()[str(mistake.path[0])]
    return list(model.model_fields)


def _missing(mistake: _Mistake) -> str:
    hints = {
        "app_id": 'missing; set it to the app\'s ID, such as "cli_a1b2c3d4e5f6", from the developer console',
        "name": "missing; give every sink a unique name",
        "url": "missing; set it to the URL to post events to",
        "path": "missing; set it to the file to append events to",
    }
    return hints.get(str(mistake.path[-1]), "missing")


def _wrong_choice(mistake: _Mistake) -> str:
    choices = str(mistake.context.get("expected", "")).replace("'", '"').replace(" or ", ", ")
    near = _near_choice(mistake.value, choices)
    return f"must be one of {choices}, found {shown(mistake.value)}{near}"


def _near_choice(value: Any, choices: str) -> str:
    options = [choice.strip('"') for choice in choices.split(", ")]
    found = near(value, options) if isinstance(value, str) else []
    return f"; did you mean {' or '.join(map(json.dumps, found))}?" if found else ""


def _wrong_sink_type(mistake: _Mistake) -> str:
    value = mistake.value.get("type") if isinstance(mistake.value, dict) else None
    kinds = mistake.sinks.kinds
    choices = ", ".join(f'"{choice}"' for choice in dict.fromkeys((*kinds.built_in, *kinds.installed())))
    found = "missing" if value is None else f"found {shown(value)}"
    return f"type must be one of {choices}, {found}{_near_choice(value, choices)}"


def _wrong_section(mistake: _Mistake) -> str:
    if mistake.path[-1] == "retry":
        return f"must be a table, such as {{ base = 1, cap = 60 }}, found {kind(mistake.value)}"
    if mistake.path[0] == "sinks":
        return f"must be a table, [[sinks]], found {kind(mistake.value)}"
    return f"must be a section, [{mistake.path[0]}], found {kind(mistake.value)}"


def _wrong_array(mistake: _Mistake) -> str:
    if mistake.path != ("sinks",):
        return f'must be an array of strings, such as ["one", "two"], found {_found(mistake.value, mistake.path)}'
    advice = (
        "write [[sinks]], not [sinks]" if isinstance(mistake.value, dict) else "begin each with [[sinks]]"
    )
    return f"must be a list of tables, found {kind(mistake.value)}; {advice}"


def _own_words(mistake: _Mistake) -> str:
    """What a validator of ours says about several keys or sinks: there is no one value that was found."""
    if isinstance(mistake.value, dict | list | tuple):
        return str(mistake.context.get("error", ""))
    return _wrong_value(mistake)


_PHRASES: dict[str, Callable[[_Mistake], str]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "literal_error": _wrong_choice,
    "sink_type": _wrong_sink_type,
    "model_type": _wrong_section,
    "model_attributes_type": _wrong_section,
    "tuple_type": _wrong_array,
    "value_error": _own_words,
}
