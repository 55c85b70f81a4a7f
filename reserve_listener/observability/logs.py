"""structlog, set up once: colourful lines on a terminal, JSON lines elsewhere, nothing secret in either.

Other libraries' records (the SDK's among them) go through the same chain. Log events are named `component.verb`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec
import structlog

from reserve_listener.observability.log_writer import LogWriter
from reserve_listener.redact import scrub
from reserve_listener.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from structlog.typing import Processor

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "console", "json")
MESSAGE_CHARS: Final = 2_000
"""What is shown of another library's message."""

LIBRARY_EVERY_S: Final = 1.0
"""A library that meets the same trouble a thousand times a second says it once."""

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_LEVELS: Final = ((logging.INFO, "debug"), (logging.WARNING, "info"), (logging.ERROR, "warning"))

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Logs:
    """The daemon's log. Made once by `run`; `close` writes what is queued."""

    def __init__(
        self,
        *,
        level: str,
        log_format: str,
        secrets: Sequence[str] = (),
        stream: TextIO | None = None,
        level_fixed: bool = False,
    ) -> None:
        self._level_fixed = level_fixed
        stream = sys.stdout if stream is None else stream
        terminal = stream.isatty()
        console = log_format == "console" or (log_format == "auto" and terminal)
        # The longest first: one that begins another must not leave the other's end behind.
        self._secrets = tuple(sorted(filter(None, secrets), key=len, reverse=True))
        colors = console and terminal and "NO_COLOR" not in os.environ
        self._render = _console(colors=colors) if console else _json
        if not console and _is_journal(stream, os.environ.get("JOURNAL_STREAM", "")):
            self._render = _for_journal
        self._stamp = structlog.processors.TimeStamper(
            fmt="%H:%M:%S.%f" if console else "iso", utc=not console, key="timestamp"
        )
        self._writer = LogWriter(_descriptor(stream), on_dropped=self._dropped_line)
        self._configure(level)

    async def write_events(self, lines: Sequence[dict[str, Any]]) -> None:
        """The log sink's lines: written whatever the level is, and waited for. Raises `OSError`."""
        stamp = self._stamp(None, "info", {"level": "info"})  # one for all: they are written together
        await self._writer.write([self._render({**stamp, **line}) for line in lines])

    def hide(self, secret: str) -> None:
        """Mask this text, too, from now on: a secret that was read again."""
        if secret and secret not in self._secrets:
            self._secrets = tuple(sorted((*self._secrets, secret), key=len, reverse=True))

    def scrub(self, text: str) -> str:
        """A text for people outside the log, masked as the log is."""
        return scrub(text, self._secrets)

    def set_level(self, level: str) -> None:
        """Write lines from this level on, unless a level was fixed on the command line."""
        if not self._level_fixed:
            self._configure(level)

    def close(self) -> None:
        """Write what is queued; later lines go nowhere."""
        self._writer.close()

    def _configure(self, level: str) -> None:
        number = logging.getLevelNamesMapping()[level.upper()]
        chain: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            self._stamp,
            structlog.processors.format_exc_info,
            self._redact,
            lambda _logger, _name, event: self._render(event),
        ]
        structlog.configure(
            processors=chain,
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=lambda *_: _LineLogger(self._writer.line),
            cache_logger_on_first_use=False,
        )
        root = logging.getLogger()
        root.handlers = [_Bridge(self.scrub)]
        root.setLevel(max(number, logging.WARNING) if number > logging.DEBUG else logging.INFO)
        logging.captureWarnings(capture=True)
        warnings.simplefilter("default")

    def _redact(
        self, _logger: object, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {key: self._scrubbed(value) for key, value in event.items()}

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            return scrub(value, self._secrets)
        if isinstance(value, dict):
            return {key: self._scrubbed(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._scrubbed(item) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return scrub(str(value), self._secrets)  # an exception, a URL, a path: what is written is its text

    def _rendered(self, line: MutableMapping[str, Any]) -> str:
        return self._render(self._stamp(None, "info", line))

    def _dropped_line(self, count: int) -> str:
        return self._rendered({"event": "log.dropped", "level": "warning", "lines": count})


class _LineLogger:
    """What structlog calls with a rendered line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = write


class _Bridge(logging.Handler):
    """Records of other libraries, through the same chain: one of a kind a second.

    A kind is a place in their code with a type of exception: those are few, while texts differ in an address or an id.
    """

    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__()
        self._mask = mask
        self._throttle = Throttle(LIBRARY_EVERY_S)

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        level = next((name for bound, name in _LEVELS if record.levelno < bound), "error")
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # a library's broken format string is no reason to fail
            message = str(record.msg)
        # Masked before it is cut: half a secret is not recognised.
        message = self._mask(message)[:MESSAGE_CHARS]
        raised = record.exc_info[0] if record.exc_info else None
        self._throttle.tell(
            f"{record.name} {record.pathname}:{record.lineno} {raised}",
            getattr(log, level),
            "library.log",
            logger=record.name,
            message=message,
            exc_info=record.exc_info or None,
        )


def _json(event: MutableMapping[str, Any]) -> str:
    ordered = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    line = {**ordered, **event}
    try:
        return _encode(line).decode()
    except (
        TypeError,
        ValueError,
        OverflowError,
    ):  # no text in UTF-8, a key that is no text: never the caller's error
        return json.dumps(line, default=str, skipkeys=True)


def _console(*, colors: bool) -> Callable[[MutableMapping[str, Any]], str]:
    render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24, sort_keys=False)

    def rendered(event: MutableMapping[str, Any]) -> str:
        return str(render(None, event.get("level", "info"), _flat(event)))

    return rendered


def _flat(event: MutableMapping[str, Any]) -> dict[str, Any]:
    """The event's `data` as dotted keys, one glance each; people and departments as how many they are."""
    flat = {key: value for key, value in event.items() if key not in ("data", "source", "time")}
    data = event.get("data")
    if isinstance(data, msgspec.Raw):
        data = msgspec.json.decode(data)
    if isinstance(data, dict):
        for name, section in data.items():
            if isinstance(section, dict):
                flat.update(
                    {f"{name.removesuffix('_config')}.{key}": _short(value) for key, value in section.items()}
                )
            elif name not in ("scope_id", "scope_type"):
                flat[name] = _short(section)
    return flat


def _for_journal(event: MutableMapping[str, Any]) -> str:
    """A JSON line with the priority that the journal reads from its beginning (sd-daemon(3))."""
    return f"<{_PRIORITIES.get(event.get('level', 'info'), 6)}>{_json(event)}"


def _is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether the stream is the journal's own: `$JOURNAL_STREAM` is its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


def _short(value: Any) -> Any:
    return f"[{len(value)}]" if isinstance(value, list) else value


def _descriptor(stream: TextIO) -> int:
    try:
        stream.flush()
        return stream.fileno()
    except (io.UnsupportedOperation, ValueError, OSError):
        return 1
