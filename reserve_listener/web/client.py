"""Asking the running daemon, for the commands."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, TypeVar

import h11
import msgspec

from reserve_listener.errors import NoAnswerError, ReserveListenerError
from reserve_listener.net.sockets import socket_address
from reserve_listener.store import backend
from reserve_listener.web.answers import Problem

if TYPE_CHECKING:
    from pathlib import Path

ASK_TIMEOUT_S: Final = 60.0
"""Retrying a million dead letters takes about so long."""

STATUS_TIMEOUT_S: Final = 3.0
"""`status` answers within 5 s, the start of the command and a look into the store included."""

LATER_TIMEOUT_S: Final = 0.5
"""For each further replica on this machine, once the first has not answered."""

ANSWER_BYTES: Final = 16 * 1024 * 1024
"""The answer about a hundred sinks has some 100 kB."""

READ_BYTES: Final = 256 * 1024

T = TypeVar("T")


def get(store: str, path: str, kind: type[T], *, timeout_s: float = ASK_TIMEOUT_S) -> T | None:
    """What a daemon that runs on this store (its URL) answers to `GET /api/v1{path}`; None when none listens.

    Raises `NoAnswerError` when it does not answer in time, `ReserveListenerError` for what it refuses.
    """
    return _first(store, _Question("GET", path, b"", timeout_s), kind)[1]


def post(store: str, path: str, kind: type[T], body: msgspec.Struct | None = None) -> T | None:
    """The same for an action, which may take long: that the daemon answers at all is tried first.

    A daemon that hangs would otherwise be waited for, and do what was asked once it goes on, with nobody waiting any more.
    """
    try:
        where, _ = _first(store, _Question("GET", "/status", b"", STATUS_TIMEOUT_S), msgspec.Raw)
    except NoAnswerError as error:
        raise NoAnswerError(f"{error}; nothing was done. `reserve-listener status` says more.") from None
    if where is None:
        return None
    content = b"" if body is None else msgspec.json.encode(body)
    return _ask(where, _Question("POST", path, content, ASK_TIMEOUT_S), kind)


class _Question(msgspec.Struct, frozen=True):
    method: str
    path: str
    body: bytes
    timeout_s: float


def _first(store: str, question: _Question, kind: type[T]) -> tuple[Path | None, T | None]:
    """Of the daemons on this machine the first that answers, and what: a replica that hangs keeps nobody from the others."""
    silent: NoAnswerError | None = None
    for where in backend(store).control_sockets:
        asked = question if silent is None else msgspec.structs.replace(question, timeout_s=LATER_TIMEOUT_S)
        try:
            answer = _ask(where, asked, kind)
        except NoAnswerError as error:
            silent = silent or error
            continue
        if answer is not None:
            return where, answer
    if silent is not None:
        raise silent
    return None, None


def _ask(where: Path, question: _Question, kind: type[T]) -> T | None:
    deadline = time.monotonic() + question.timeout_s
    silent = f"the daemon does not answer within {question.timeout_s:g} s (its socket {where} is there)"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(question.timeout_s)
            with socket_address(where) as address:
                connection.connect(address)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        except (TimeoutError, BlockingIOError):  # so many ask already that the kernel's queue is full
            raise NoAnswerError(silent) from None
        except OSError as error:
            raise ReserveListenerError(f"cannot talk to the daemon ({where}): {error}") from error
        try:
            status, answer = _exchange(connection, question, deadline)
        except TimeoutError:
            raise NoAnswerError(silent) from None
        except (OSError, h11.ProtocolError, EOFError) as error:
            raise NoAnswerError(f"the daemon's answer was cut short ({where}): {error}") from error
    return _understood(status, answer, kind)


def _exchange(connection: socket.socket, question: _Question, deadline: float) -> tuple[int, bytes]:
    """The request and its whole answer, by the deadline."""
    http = h11.Connection(h11.CLIENT)
    headers = [("host", "localhost"), ("content-length", str(len(question.body))), ("connection", "close")]
    head = h11.Request(method=question.method, target=f"/api/v1{question.path}", headers=headers)
    request = (head, h11.Data(data=question.body), h11.EndOfMessage())
    connection.sendall(b"".join(http.send(part) or b"" for part in request))
    status, answer = 0, bytearray()
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            http.receive_data(connection.recv(READ_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            answer += event.data
        if isinstance(event, h11.ConnectionClosed) or len(answer) > ANSWER_BYTES:
            raise EOFError(f"after {len(answer)} bytes")
    return status, bytes(answer)


def _understood(status: int, answer: bytes, kind: type[T]) -> T:
    try:
        if status < 300:  # noqa: PLR2004  # RFC 9110: success
            return msgspec.json.decode(answer, type=kind)
        problem = msgspec.json.decode(answer, type=Problem)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ReserveListenerError(
            f"the daemon's answer (HTTP {status}) cannot be understood by this version: {error}."
            " Is the daemon the same version? Restart it after an upgrade."
        ) from None
    raise ReserveListenerError(problem.detail)
