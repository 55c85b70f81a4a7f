"""The control socket: how other commands ask a running daemon to act on its store.

A Unix socket (0600) beside the store; one JSON line asks, one JSON line answers. Only the daemon writes to its store, so a
command that changes something asks here, and acts itself, under the store's lock, when nobody answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from reserve_listener import ownership
from reserve_listener.errors import ReserveListenerError
from reserve_listener.store.places import socket_address, socket_path

if TYPE_CHECKING:
    from pathlib import Path

LINE_BYTES: Final = 64 * 1024
ASK_TIMEOUT_S: Final = 60.0
READ_TIMEOUT_S: Final = 10.0

log = structlog.get_logger("control")

Handle: TypeAlias = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ControlServer:
    """Listens until closed. `handle` turns a request into an answer; what it raises is told to who asked."""

    def __init__(self, path: Path, handle: Handle) -> None:
        self._path = path
        self._handle = handle
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. A path that cannot be used costs the socket, not the daemon. Needs the store's lock to be held."""
        try:
            self._path.unlink(
                missing_ok=True
            )  # left by a daemon that was killed: the lock says that it is gone
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            mask = os.umask(0o177)
            try:
                with socket_address(self._path) as address:
                    listener.bind(address)
                    ownership.give(self._path)
            finally:
                os.umask(mask)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_BYTES)
        except OSError as error:
            log.warning("control.unavailable", path=str(self._path), error=str(error))

    async def close(self) -> None:
        """Stop listening and take the socket away."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                request = json.loads(await reader.readline())
            answer = await self._answer(request)
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(READ_TIMEOUT_S):
                await writer.drain()
        except (ValueError, TimeoutError, OSError) as error:
            log.warning("control.request_failed", error=str(error) or type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: Any) -> dict[str, Any]:
        try:
            return await self._handle(request)
        except ReserveListenerError as error:
            return {"error": str(error)}
        except (KeyError, TypeError, AttributeError) as error:
            return {"error": f"not a request this version knows: {error}"}


def ask(store: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The running daemon's answer; None when none is running. Raises `ReserveListenerError` for what it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ASK_TIMEOUT_S)
        try:
            with socket_address(socket_path(store)) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise ReserveListenerError(
                f"the daemon cannot be asked ({socket_path(store)}): {error}"
            ) from error
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline(LINE_BYTES))
        except (OSError, ValueError) as error:
            raise ReserveListenerError(
                f"the daemon did not answer: {error or type(error).__name__}"
            ) from error
    if "error" in answer:
        raise ReserveListenerError(answer["error"])
    return dict(answer)
