"""The long connection over TLS: certificates are verified at the endpoint and at the gateway, and made use of off the loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from reserve_listener.simulator import Simulator, sample_event
from reserve_listener.transports.long_connection import endpoint, wire
from reserve_listener.transports.long_connection.failures import Kind, classify
from tests.sinks.test_sink_http import make_certificate, server_tls
from tests.transports.long_connection.test_long_connection import make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the platform."""
    return make_certificate(tmp_path_factory.mktemp("platform"))


@contextlib.asynccontextmanager
async def tls_before(port: int, certificate: Path) -> AsyncIterator[int]:
    """A port on which the server at `port` speaks TLS."""
    tasks: set[asyncio.Task[Any]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", port)
        tasks.update(asyncio.create_task(copy(*ends)) for ends in ((reader, behind[1]), (behind[0], writer)))

    asyncio.get_running_loop().set_exception_handler(
        lambda *_: None
    )  # a handshake that is refused is no news here
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls(certificate))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def port_of(url: str) -> int:
    return int(url.partition("://")[2].partition("/")[0].rpartition(":")[2])


@pytest.mark.parametrize("trusted", ["nobody", "the endpoint", "both"])
async def test_certificates_are_verified(
    trusted: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without trust in the endpoint's certificate, or in the gateway's, there is no connection; with it pushes come in."""
    threads: list[str] = []
    ours = ssl.create_default_context(cafile=certificate)

    def made(**_: Any) -> ssl.SSLContext:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            threads.append("another")
        return ours

    if trusted != "nobody":
        monkeypatch.setattr(httpx2, "create_ssl_context", made)
    if trusted == "both":
        monkeypatch.setattr(ssl, "create_default_context", made)
    fetch = endpoint.fetch
    async with Simulator() as simulator:
        platform_port = port_of(simulator.domain)
        probe = await fetch(
            domain=simulator.domain,
            app_id=simulator.app_id,
            app_secret=simulator.app_secret,
            timeout_s=5,
        )
        async with (
            tls_before(platform_port, certificate) as endpoint_port,
            tls_before(port_of(probe.url), certificate) as gateway_port,
        ):

            async def encrypted(**options: Any) -> endpoint.Endpoint:
                place = await fetch(**{**options, "domain": f"https://127.0.0.1:{endpoint_port}"})
                url = place.url.replace(
                    f"ws://127.0.0.1:{port_of(place.url)}", f"wss://127.0.0.1:{gateway_port}"
                )
                return dataclasses.replace(place, url=url)

            monkeypatch.setattr(endpoint, "fetch", encrypted)
            connection = make(simulator)
            try:
                if trusted == "both":
                    await connection.open()
                    await simulator.connected()
                    monkeypatch.setattr(wire, "TURN_S", 0.0)  # parsed over many turns of the loop
                    large = sample_event(added="x" * 300_000)
                    assert await simulator.push(large, retry=False).over() == 200
                    assert threads == ["another"] * 2
                else:
                    with pytest.raises(Exception) as caught:
                        await connection.open()
                    failure = classify(caught.value)
                    assert failure.kind is Kind.PASSING
                    assert "certificate" in failure.reason
            finally:
                await connection.close()
