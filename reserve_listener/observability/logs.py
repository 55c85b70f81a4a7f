"""structlog, set up once: colourful lines on a terminal, JSON lines elsewhere, nothing secret in either.

Other libraries' records (the SDK's among them) go through the same chain. Log events are named `component.verb`.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

from reserve_listener.observability.log_writer import LogWriter
from reserve_listener.observability.rendering import (
    console_renderer,
    journal_line,
    json_line,
    shortened,
    without_objects,
)
from reserve_listener.observability.throttle import Throttle
from reserve_listener.redact import redact
from reserve_listener.text import ESCAPE, colourful

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from structlog.typing import Processor

LEVELS: Final = ("debug", "info", "warning", "error")
MESSAGE_CHARS: Final = 2_000
"""What is shown of another library's message."""

MASKED_CHARS: Final = 65_536
"""What of it is looked through for secrets: a library that logs megabytes must not hold the loop up."""

LIBRARY_EVERY_S: Final = 1.0
"""A library that meets the same trouble a thousand times a second says it once."""

LINE_BYTES: Final = 16_384
"""The longest line of an event: the journal cuts lines at 48 KiB, container runtimes at 16 KiB."""

UTF8_BYTES: Final = 4
"""The most that a character takes."""

_LEVELS: Final = ((logging.INFO, "debug"), (logging.WARNING, "info"), (logging.ERROR, "warning"))

_PATH_OF_URL: Final = re.compile(r"(\b(?:https?|wss?)://[^\s/?#\"']+)[/?#][^\s\"']*")
"""Path and query may hold a secret, spelled by the library in its own way; its lines are for the host."""


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
        colors = console and colourful(stream)
        self._render = console_renderer(colors=colors) if console else json_line
        if not console and _is_journal(stream, os.environ.get("JOURNAL_STREAM", "")):
            self._render = journal_line
        self._stamp = structlog.processors.TimeStamper(
            fmt="%H:%M:%S.%f" if console else "iso", utc=not console, key="timestamp"
        )
        self._writer = LogWriter(
            _descriptor(stream), on_dropped=self._dropped_line, encoding=_encoding(stream)
        )
        self._configure(level)

    async def write_events(self, lines: Sequence[dict[str, Any]]) -> None:
        """The log sink's lines: written whatever the level is, and waited for. Raises `OSError`."""
        stamp = self._stamp(None, "info", {})  # one for all: they are written together
        await self._writer.write([self._bounded({**stamp, "level": "info", **line}) for line in lines])

    def hide(self, secret: str, instead_of: str = "") -> None:
        """Mask this text, too, from now on: a secret that was read again, or a token in the place of one that has ended."""
        if secret and secret not in self._secrets:
            kept = (each for each in self._secrets if each != instead_of)
            self._secrets = tuple(sorted((*kept, secret), key=len, reverse=True))

    def redact(self, text: str) -> str:
        """A text for people outside the log, masked as the log is."""
        return redact(text, self._secrets)

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
        root.handlers = [_Bridge(self.redact)]
        root.setLevel(max(number, logging.WARNING) if number > logging.DEBUG else logging.INFO)
        logging.captureWarnings(capture=True)
        warnings.simplefilter("default")

    def _redact(
        self, _logger: object, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {key: self._redacted(value) for key, value in event.items()}

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, str):
            return redact(value, self._secrets)
        if isinstance(value, dict):
            return {self._redacted_key(key): self._redacted(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._redacted(item) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return redact(str(value), self._secrets)  # an exception, a URL, a path: what is written is its text

    def _redacted_key(self, key: Any) -> Any:
        return redact(key, self._secrets) if isinstance(key, str) else key

    def _bounded(self, line: dict[str, Any]) -> str:
        text = self._render(line)
        if _is_too_long(text):
            text = self._render(line := shortened(line))
        return self._render(without_objects(line)) if _is_too_long(text) else text

    def _rendered(self, line: MutableMapping[str, Any]) -> str:
        return self._render(self._stamp(None, "info", line))

    def _dropped_line(self, count: int) -> str:
        return self._rendered({"event": "log.dropped", "level": "warning", "lines": count})


def _is_too_long(text: str) -> bool:
    return len(text) * UTF8_BYTES > LINE_BYTES and len(text.encode("utf-8", ESCAPE)) > LINE_BYTES


def log_uncaught() -> None:
    """What nobody catches, in a thread or where Python can only report it, becomes a line: Python's own goes to stderr unmasked."""
    threading.excepthook = lambda failure: _uncaught(failure.thread, failure.exc_value)
    sys.unraisablehook = lambda failure: _uncaught(failure.object, failure.exc_value)


def _uncaught(where: object, error: BaseException | None) -> None:
    structlog.get_logger("daemon").error(
        "daemon.uncaught", where=repr(where), error=repr(error), exc_info=error
    )


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
        # Masked before it is cut: half a secret is not recognised. What is cut off before that is far beyond what is shown.
        message = message[:MASKED_CHARS]
        message = self._mask(_PATH_OF_URL.sub(r"\1/…", message))[:MESSAGE_CHARS]
        raised = record.exc_info[0] if record.exc_info else None
        self._throttle.tell(
            f"{record.name} {record.pathname}:{record.lineno} {raised}",
            getattr(log, level),
            "library.log",
            logger=record.name,
            message=message,
            exc_info=record.exc_info or None,
        )


def _is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether the stream is the journal's own: `$JOURNAL_STREAM` is its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


def _encoding(stream: TextIO) -> str:
    try:
        return codecs.lookup(stream.encoding or "utf-8").name
    except LookupError:
        return "ascii"  # see `cli.streams`


def _descriptor(stream: TextIO) -> int:
    try:
        stream.flush()
        return stream.fileno()
    except (io.UnsupportedOperation, ValueError, OSError):
        return 1
