"""`reserve-listener simulate`: what it prints, what its options and keys do, and how it ends."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import termios
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from reserve_listener.simulator import HttpServer, Receiver, patience
from tests.simulating import blind_client, credentials, line_with, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VC = "/open-apis/vc/v1"


async def test_simulate_pushes_and_ends() -> None:
    """The command prints what to configure, pushes its events once a client is there, tells the answers and ends."""
    process = await start("--rate", "200", "--events", "5", "--fault", "duplicate")
    async with blind_client(*await credentials(process)) as client:
        assert "200 in" in await line_with(process, " room ")
        async with asyncio.timeout(patience(10)):
            assert await process.wait() == 0
        await client.closed()
    assert len(client.seen) == 10
    assert len(set(client.seen)) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_simulate_ends_at_a_signal(number: int) -> None:
    """SIGINT and SIGTERM end the command with 0."""
    process = await start("--rate", "0", "--app-id", "cli_mine", "--app-secret", "mine")
    assert (await credentials(process))[1:] == ["cli_mine", "mine"]
    process.send_signal(number)
    async with asyncio.timeout(patience(10)):
        assert await process.wait() == 0


async def test_simulate_tells_of_a_port_in_use() -> None:
    """A port in use is told in one line, with exit code 1."""
    async with HttpServer(Receiver()) as server:
        process = await start("--port", str(server.port), stderr=asyncio.subprocess.PIPE)
        async with asyncio.timeout(patience(10)):
            _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().count("\n") == 1
    assert str(server.port) in said.decode()


async def test_simulate_takes_keys_and_restores_the_terminal() -> None:
    """On a terminal keys push events and switch faults; afterwards the terminal is as it was."""
    terminal, stdin = pty.openpty()
    before = termios.tcgetattr(stdin)
    try:
        process = await start("--rate", "0", stdin=stdin)
        async with blind_client(*await credentials(process)) as client:
            await line_with(process, "connected (1 open)")
            for keys, told in [
                (b"e", "200 in"),
                (b"\n", "200 in"),
                (b"2", "duplicate: on"),
                (b"2", "duplicate: off"),
                (b"p", "split: 3"),
                (b"pr", "endpoint_code: 514"),
                (b"?", "Keys:"),
                (b"gd", "disconnected"),
            ]:
                os.write(terminal, keys)
                await line_with(process, told)
            assert len(client.seen) == 2
        os.write(terminal, b"q")
        async with asyncio.timeout(patience(10)):
            assert await process.wait() == 0
        assert termios.tcgetattr(stdin) == before
    finally:
        os.close(terminal)
        os.close(stdin)


# Rooms, and the API


class Api:
    """The API of a simulator in another process."""

    def __init__(self, domain: str, app_id: str, app_secret: str) -> None:
        self._app = {"app_id": app_id, "app_secret": app_secret}
        self._http = httpx2.AsyncClient(base_url=domain, trust_env=False, timeout=patience(5))

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        given = await self._http.post("/open-apis/auth/v3/tenant_access_token/internal", json=self._app)
        token = given.json()["tenant_access_token"]
        return await self._http.get(path, params=query, headers={"Authorization": f"Bearer {token}"})

    async def rooms(self, level: str = "0") -> dict[str, str]:
        """Names by id."""
        query = {"room_level_id": level, "page_size": 100}
        found = (await self.get(f"{VC}/rooms", **query)).json()["data"]["rooms"]
        names = {each["room_id"]: each["name"] for each in found}
        for below in (await self.get(f"{VC}/room_levels", **query)).json()["data"]["items"]:
            names |= await self.rooms(below["room_level_id"])
        return names

    async def limits(self, rooms: dict[str, str]) -> dict[str, Any]:
        """By id."""
        path = f"{VC}/reserve_configs/reserve_scope"
        return {each: (await self.get(path, scope_id=each, scope_type=2)).json()["data"] for each in rooms}

    async def close(self) -> None:
        await self._http.aclose()


@asynccontextmanager
async def api_of(domain: str, app_id: str, app_secret: str) -> AsyncIterator[Api]:
    api = Api(domain, app_id, app_secret)
    try:
        yield api
    finally:
        await api.close()


async def ended(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(patience(10)):
        assert await process.wait() == 0


async def test_rooms_change_while_no_client_is_there() -> None:
    """Each time the last client has gone, rooms are changed, renamed and deleted, and nothing of it is pushed."""
    away = ("--away-change", "3", "--away-rename", "1", "--away-delete", "2")
    process = await start("--rate", "0", "--rooms", "20", "--depth", "1", *away)
    access = await credentials(process)
    async with api_of(*access) as api:
        names, before = await api.rooms(), await api.limits(await api.rooms())
        assert len(names) == 20
        async with blind_client(*access) as client:
            await line_with(process, "connected (1 open)")
        for told in ("nobody is told", "is called", "is deleted; nobody is told"):
            await line_with(process, told)
        assert client.seen == []
        left = await api.rooms()
        assert len(left) == 18
        assert len([each for each in left if left[each] != names[each]]) <= 1  # it may have been deleted
        after = await api.limits(left)
        assert 1 <= len([each for each in left if after[each] != before[each]]) <= 3
    await ended(process)


async def test_the_rooms_are_the_same_each_time() -> None:
    """What a daemon's store knows from the last time is still there; another seed has other rooms."""
    found = []
    for options in ((), (), ("--seed", "7")):
        process = await start("--rate", "0", "--rooms", "5", *options)
        async with api_of(*await credentials(process)) as api:
            found.append(await api.rooms())
        await ended(process)
    assert found[0] == found[1]
    assert found[0].keys().isdisjoint(found[2])


@pytest.mark.parametrize(("fault", "code"), [("api-token", 99991663), ("api-permission", 99991672)])
async def test_faults_of_the_api_from_the_start(fault: str, code: int) -> None:
    """An option begins with a fault of the API, and the line about the call tells of it."""
    process = await start("--rate", "0", "--fault", fault)
    async with api_of(*await credentials(process)) as api:
        answer = await api.get(f"{VC}/rooms")
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        assert "GET /vc/v1/rooms" in await line_with(process, f"refused, {code}")
    await ended(process)


async def test_keys_change_rooms_and_switch_faults_of_the_api() -> None:
    """Small letters push what they change, capital ones do not; the API's faults go on and off."""
    terminal, stdin = pty.openpty()
    try:
        process = await start("--rate", "0", stdin=stdin)
        access = await credentials(process)
        async with blind_client(*access) as client, api_of(*access) as api:
            await line_with(process, "connected (1 open)")
            for keys, told in [
                (b"E", "nobody is told"),
                (b"N", "; nobody is told"),
                (b"X", "is deleted; nobody is told"),
                (b"n", "200 in"),
                (b"x", "200 in"),
                (b"t", "api-token: on"),
                (b"t", "api-token: off"),
                (b"m", "api-permission: on"),
            ]:
                os.write(terminal, keys)
                await line_with(process, told)
            assert (await api.get(f"{VC}/rooms")).json()["code"] == 99991672
            os.write(terminal, b"m4")
            await line_with(process, "api-too-often: on")
            assert client.types == ["vc.room.updated_v1", "vc.room.deleted_v1"]
        os.write(terminal, b"q")
        async with asyncio.timeout(patience(10)):
            assert await process.wait() == 0
    finally:
        os.close(terminal)
        os.close(stdin)
