"""How a line of the log is written: as JSON, for the journal, for people. Nothing in it acts on a terminal or ends it early."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from reserve_listener.text import escaped_json, visible, visible_lines

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

TEXT_CHARS: Final = 200
"""What is kept of a text in a line that is too long: enough for every id, and to know another by."""

DEPTH: Final = 8
"""How deep objects are kept in such a line; the platform's are three deep."""

UNSHOWN: Final = {"data", "source", "time"}
"""Of an event's line, to people: the data are told in words, the rest does not help them."""

TOLD_OTHERWISE: Final = ("scope_id", "scope_type", "scope_name", "scope_path", "summary", "changes")
"""Of an event's data: in the line itself or in its sentence."""

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_encode = msgspec.json.Encoder(enc_hook=str).encode


def json_line(event: MutableMapping[str, Any]) -> str:
    """A line of JSON, what matters first."""
    line = event
    if next(iter(event), None) != "timestamp":  # a line of an event begins with it
        line = {**{key: event[key] for key in ("timestamp", "level", "event") if key in event}, **event}
    try:
        return escaped_json(_encode(line).decode())
    except (
        TypeError,
        ValueError,
        OverflowError,
    ):  # no text in UTF-8, a key that is no text: never the caller's error
        return escaped_json(json.dumps(line, default=str, skipkeys=True))


def console_renderer(*, colors: bool) -> Callable[[MutableMapping[str, Any]], str]:
    """What makes lines for people."""
    render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24, sort_keys=False)

    def rendered(event: MutableMapping[str, Any]) -> str:
        shown = {visible(str(key)): _shown(key, value) for key, value in _for_people(event).items()}
        return str(render(None, event.get("level", "info"), shown))

    return rendered


def _shown(key: str, value: Any) -> str:
    """A value for a person. A traceback keeps its lines, set in, so that none of them passes for a line of the log."""
    if key in ("exception", "stack") and isinstance(value, str):
        return textwrap.indent(visible_lines(value), "  ")
    return visible(_text(value))


def _text(value: Any) -> str:
    """Lists and tables without brackets and quotes, unless there are others in them."""
    if isinstance(value, dict) and not any(isinstance(item, (dict, list)) for item in value.values()):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else repr(value)


def _for_people(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An event as where it was and what changed, and then what it can be looked up by; `events show` has all of it."""
    data = event.get("data")
    if isinstance(data, msgspec.Raw):
        data = msgspec.json.decode(data)
    if not isinstance(data, dict):
        return event
    if event.get("summary") is None:
        return _flat(event, data)
    line = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    if names := [*_texts(data.get("scope_path")), *_texts([data.get("scope_name")])]:
        line["scope_name"] = " / ".join(names)
    line["summary"] = event["summary"]
    line |= {
        key: _short(value)
        for key, value in data.items()
        if key not in TOLD_OTHERWISE and not isinstance(value, dict)
    }
    return line | {key: value for key, value in event.items() if key not in UNSHOWN | line.keys()}


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _flat(event: MutableMapping[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """One that an older version has sealed has no sentence: its limits as dotted keys, people as how many they are."""
    flat = {key: value for key, value in event.items() if key not in UNSHOWN}
    for name, section in data.items():
        if isinstance(section, dict):
            flat.update(
                {f"{name.removesuffix('_config')}.{key}": _short(value) for key, value in section.items()}
            )
        elif name not in TOLD_OTHERWISE:
            flat[name] = _short(section)
    return flat


def journal_line(event: MutableMapping[str, Any]) -> str:
    """A JSON line with the priority that the journal reads from its beginning (sd-daemon(3))."""
    return f"<{_PRIORITIES.get(event.get('level', 'info'), 6)}>{json_line(event)}"


def _short(value: Any) -> Any:
    return f"[{len(value)}]" if isinstance(value, list) else value


def shortened(line: dict[str, Any]) -> dict[str, Any]:
    """An event's line that is too long: its lists as how many they hold, texts cut, and said to be so."""
    data = line.get("data")
    if isinstance(data, msgspec.Raw):
        line = {**line, "data": msgspec.json.decode(data)}
    return {key: _counted(value, DEPTH) for key, value in line.items()} | {"truncated": True}


def without_objects(line: dict[str, Any]) -> dict[str, Any]:
    """A line that is too long even so: what is neither text nor number is left out."""
    return {key: value for key, value in line.items() if not isinstance(value, dict)}


def _counted(value: Any, depth: int) -> Any:
    if isinstance(value, list) or (isinstance(value, dict) and not depth):
        return len(value)
    if isinstance(value, dict):
        return {visible(key, TEXT_CHARS): _counted(item, depth - 1) for key, item in value.items()}
    return visible(value, TEXT_CHARS) if isinstance(value, str) else value
