"""structlog, set up once: colourful lines on a terminal, JSON lines elsewhere, nothing secret in either.

Other libraries' records (the SDK's among them) go through the same chain. Log events are named `component.verb`.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec
import structlog

from reserve_listener.observability.log_writer import LogWriter
from reserve_listener.redact import scrub

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from structlog.typing import Processor

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "console", "json")

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Logs:
    """The daemon's log. Made once by `run`; `close` writes what is queued."""

    def __init__(
        self, *, level: str, log_format: str, secrets: Sequence[str] = (), stream: TextIO | None = None
    ) -> None:
        stream = sys.stdout if stream is None else stream
        terminal = stream.isatty()
        console = log_format == "console" or (log_format == "auto" and terminal)
        self._secrets = tuple(secret for secret in secrets if secret)
        colors = console and terminal and "NO_COLOR" not in os.environ
        self._render = _console(colors=colors) if console else _json
        self._stamp = structlog.processors.TimeStamper(
            fmt="%H:%M:%S.%f" if console else "iso", utc=not console, key="timestamp"
        )
        self._writer = LogWriter(_descriptor(stream), on_dropped=self._dropped_line)
        self._configure(level)

    async def write_events(self, lines: Sequence[dict[str, Any]]) -> None:
        """The log sink's lines: written whatever the level is, and waited for. Raises `OSError`."""
        rendered = [self._rendered({"level": "info", **line}) for line in lines]
        await self._writer.write(rendered)

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
        root.handlers = [_Bridge()]
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
        return value

    def _rendered(self, line: MutableMapping[str, Any]) -> str:
        return self._render(self._stamp(None, "info", line))

    def _dropped_line(self, count: int) -> str:
        return self._rendered({"event": "log.dropped", "level": "warning", "lines": count})


class _LineLogger:
    """What structlog calls with a rendered line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = write


class _Bridge(logging.Handler):
    """Records of other libraries, through the same chain."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        level = {10: "debug", 20: "info", 30: "warning"}.get(record.levelno, "error")
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # a library's broken format string is no reason to fail
            message = str(record.msg)
        getattr(log, level)(
            "library.log", logger=record.name, message=message[:2000], exc_info=record.exc_info or None
        )


def _json(event: MutableMapping[str, Any]) -> str:
    ordered = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return _encode({**ordered, **event}).decode()


def _console(*, colors: bool) -> Callable[[MutableMapping[str, Any]], str]:
    render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24, sort_keys=False)

    def rendered(event: MutableMapping[str, Any]) -> str:
        return str(render(None, event.get("level", "info"), _flat(event)))

    return rendered


def _flat(event: MutableMapping[str, Any]) -> dict[str, Any]:
    """The event's `data` as dotted keys, one glance each; people and departments as how many they are."""
    flat = {key: value for key, value in event.items() if key not in ("data", "source", "time")}
    data = event.get("data")
    if isinstance(data, dict):
        for name, section in data.items():
            if isinstance(section, dict):
                flat.update(
                    {f"{name.removesuffix('_config')}.{key}": _short(value) for key, value in section.items()}
                )
            elif name not in ("scope_id", "scope_type"):
                flat[name] = _short(section)
    return flat


def _short(value: Any) -> Any:
    return f"[{len(value)}]" if isinstance(value, list) else value


def _descriptor(stream: TextIO) -> int:
    try:
        stream.flush()
        return stream.fileno()
    except (io.UnsupportedOperation, ValueError, OSError):
        return 1
