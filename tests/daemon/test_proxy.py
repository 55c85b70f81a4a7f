"""The platform through an HTTP proxy: the endpoint's call forwarded, the WebSocket tunnelled."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from tests.daemon_process import ask, running, until, write_config, write_sinks_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


PASSWORD = "swordf1sh#@w0%rd/x?"  # of no proxy
LOGIN = base64.b64encode(f"user:{PASSWORD}".encode()).decode()


class Proxy:
    """A forward proxy that handles CONNECT and absolute-form requests, and keeps their first lines and headers.

    With `refusal` it answers that instead, as its status and as its page.
    """

    def __init__(self, *, refusal: str = "") -> None:
        self.requests: list[str] = []
        self.heads: list[bytes] = []
        self.address = ""
        self._refusal = refusal

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    @staticmethod
    def login(head: bytes) -> str:
        """What the request's Proxy-Authorization says."""
        found = re.search(rb"(?i)proxy-authorization: basic ([^\r]+)", head)
        assert found is not None
        return base64.b64decode(found[1]).decode()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split()
        self.requests.append(method if method == "CONNECT" else f"{method} {urlsplit(target).path}")
        self.heads.append(head)
        if self._refusal:
            writer.write(f"HTTP/1.1 {self._refusal}\r\nconnection: close\r\n\r\n{self._refusal}".encode())
            writer.close()
            return
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            theirs = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            parts = urlsplit(target)
            theirs = await asyncio.open_connection(parts.hostname, parts.port)
            theirs[1].write(head.replace(target.encode(), parts.path.encode(), 1))
        await asyncio.gather(_copy(reader, theirs[1]), _copy(theirs[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def url_of(proxy: Proxy, scheme: str = "http://") -> str:
    """The proxy with a login as a person may write it."""
    return f"{scheme}user:{PASSWORD.replace('%', '%25')}@{proxy.address}"


async def test_the_connection_goes_through_the_configured_proxy(tmp_path: Path) -> None:
    """Endpoint and WebSocket both use `lark.proxy`, with its credentials as they are meant, which appear in no log."""
    async with Simulator() as platform, HttpServer(Receiver()) as server, Proxy().serve() as proxy:
        rooms = "\n[rooms]\nnames = false\nreconcile = false\n"  # its calls come in between
        config = write_config(tmp_path, platform, server.url, lark=f"proxy = '{url_of(proxy)}'{rooms}")
        async with running(tmp_path, config) as daemon:
            await platform.connected(20)
            assert proxy.requests == ["POST /callback/ws/endpoint", "CONNECT"]
            assert [proxy.login(head) for head in proxy.heads] == [f"user:{PASSWORD}"] * 2
            event = sample_event()
            assert await platform.push(event).answered() == 200
            await until(lambda: daemon.pending() == 0)
            assert await daemon.stop() == 0
            assert PASSWORD[:9].encode() not in (tmp_path / "log.jsonl").read_bytes()


async def test_a_password_of_the_environment_leaves_nowhere(tmp_path: Path) -> None:
    """A proxy that quotes its login in a 407 has it masked in log, status and sd_notify."""
    page = f"407 not {PASSWORD}, not {LOGIN}, not user:{PASSWORD}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.setblocking(False)
        async with HttpServer(Receiver()) as server, Proxy(refusal=page).serve() as proxy:
            config = write_sinks_config(
                tmp_path,
                server.url,
                lark='app_id = "cli_a"\napp_secret = "hidden"\ndomain = "https://platform.test"\nbackoff_base = 0.05\nbackoff_cap = 0.2\n',
                more='[[sinks]]\nname = "far"\ntype = "http"\nurl = "https://receiver.test/hook"',
            )
            environ = {
                "HTTPS_PROXY": url_of(proxy, ""),
                "NO_PROXY": "",
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
            }
            async with running(tmp_path, config, "--log-level", "debug", environ=environ) as daemon:
                await until(lambda: any(line["event"] == "connection.waiting" for line in daemon.log()))
                shown = await asyncio.to_thread(ask, config, "status")
                tried = await asyncio.to_thread(ask, config, "sinks", "test", "far")
                assert await daemon.stop() == 0
        told = []
        with suppress(BlockingIOError):
            while True:
                told.append(notify.recv(65_536))
    assert proxy.requests[0] == "CONNECT"
    assert b"407" in tried
    assert any(b"STATUS=waiting" in each for each in told)
    everything = [shown, tried, *told, (tmp_path / "log.jsonl").read_bytes()]
    for text in (PASSWORD, PASSWORD.partition("#")[0], LOGIN, PASSWORD.replace("%", "%25")):
        assert text.encode() not in b"".join(everything)


@pytest.mark.parametrize(
    ("sink_url", "named"), [("https://receiver.test", "ALL_PROXY"), ("http://127.0.0.1:1", None)]
)
async def test_a_socks_proxy_ends_the_start_only_if_it_is_used(
    tmp_path: Path, sink_url: str, named: str | None
) -> None:
    """Exit 78 names the variable; with everything on this machine or past NO_PROXY the daemon runs."""
    async with Simulator() as platform:
        config = write_config(tmp_path, platform, sink_url)
        environ = {"ALL_PROXY": "socks5://user:hunter2hidden@proxy.test:1080", "NO_PROXY": "x.test"}
        async with running(tmp_path, config, environ=environ) as daemon:
            if named is None:
                await platform.connected(20)
                assert await daemon.stop() == 0
            else:
                assert await daemon.ended() == 78
                assert named in daemon.stderr()
    assert "hunter2hidden" not in daemon.stderr()


async def test_a_socks_proxy_to_the_platform_ends_the_start(tmp_path: Path) -> None:
    """The platform's address counts like a sink's; a proxy of the configuration goes before the variable."""
    lark = 'app_id = "cli_a"\napp_secret = "hidden"\ndomain = "https://platform.test"\n'
    environ = {"HTTPS_PROXY": "socks5h://proxy.test", "NO_PROXY": ""}
    config = write_sinks_config(tmp_path, "http://127.0.0.1:1", lark=lark, more="")
    async with running(tmp_path, config, environ=environ) as daemon:
        assert await daemon.ended() == 78
    assert "HTTPS_PROXY: socks5h proxies are not supported" in daemon.stderr()
    async with Proxy(refusal="503 Not Now").serve() as proxy:
        config = write_sinks_config(
            tmp_path, "http://127.0.0.1:1", lark=f"{lark}proxy = '{url_of(proxy)}'\n", more=""
        )
        async with running(tmp_path, config, environ=environ) as daemon:
            await until(lambda: any(line["event"] == "connection.waiting" for line in daemon.log()))
            assert await daemon.stop() == 0
