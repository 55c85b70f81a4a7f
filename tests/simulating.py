"""A bare client of the simulated platform, and the command `simulate` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reserve_listener.lark import frames
from reserve_listener.simulator import patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Answering: TypeAlias = Callable[[dict[str, Any]], int | None]


class Bare:
    """A client that answers with `answer(envelope)`; None is no answer. `seen` are the events' ids in order."""

    def __init__(self, socket: ClientConnection, answer: Answering) -> None:
        self.socket = socket
        self.seen: list[str] = []
        self.types: list[str] = []
        self.message_ids: list[str] = []
        self.pongs: list[bytes] = []
        self._answer = answer
        self._task = asyncio.create_task(self._serve(), name="bare-client")

    async def _serve(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self.socket:
                assert isinstance(message, bytes)
                await self._take(message)

    async def _take(self, message: bytes) -> None:
        try:
            frame = frames.decode(message)
        except frames.FrameError:
            return
        headers = frames.headers_of(frame)
        if headers.get(frames.TYPE) == frames.PONG:
            self.pongs.append(frame.payload)
        if frame.method != frames.DATA or not frame.payload:
            return
        envelope = msgspec.json.decode(frame.payload)
        self.seen.append(envelope["header"]["event_id"])
        self.types.append(envelope["header"]["event_type"])
        self.message_ids.append(headers[frames.MESSAGE_ID])
        code = self._answer(envelope)
        if code is not None:
            frame.payload = msgspec.json.encode({"code": code})
            await self.socket.send(frames.encode(frame))

    async def ping(self) -> None:
        ping = frames.new(service=1, method=frames.CONTROL, headers={frames.TYPE: frames.PING})
        await self.socket.send(frames.encode(ping))

    async def closed(self) -> int | None:
        """The close code, once the connection has ended."""
        async with asyncio.timeout(patience(5)):
            await self.socket.wait_closed()
            await self._task
        return self.socket.close_code


COMMAND = "import typer; from reserve_listener.cli.simulate import simulate; typer.run(simulate)"


async def start(*options: str, **streams: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, "--port", "0", *options, stdout=asyncio.subprocess.PIPE, **streams
    )


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """The next line of the output that contains the text."""
    assert process.stdout is not None
    async with asyncio.timeout(patience(10)):
        while line := (await process.stdout.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"{text!r} was not printed")


@contextlib.asynccontextmanager
async def blind_client(domain: str, app_id: str, app_secret: str) -> AsyncIterator[Bare]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{domain}/callback/ws/endpoint", json={"AppID": app_id, "AppSecret": app_secret}
        )
    async with connect(answer.json()["data"]["URL"], proxy=None, close_timeout=0.2) as socket:
        yield Bare(socket, lambda _: 200)


async def credentials(process: asyncio.subprocess.Process) -> list[str]:
    """Domain, app_id and app_secret from the TOML that is printed."""
    return [
        (await line_with(process, f"{key} = ")).split('"')[1] for key in ("domain", "app_id", "app_secret")
    ]
