"""Sinks as people work with them: looked at, tried, disabled, enabled, filtered; by the real daemon and without one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import HttpServer, Receiver, Simulator, sample_event
from tests.cli.test_operate import as_json, cli
from tests.daemon_process import running, until, write_config

if TYPE_CHECKING:
    from pathlib import Path


async def push(platform: Simulator, *events: tuple[str, str]) -> None:
    for event_id, scope in events:
        assert await platform.push(sample_event(event_id=event_id, scope_id=scope)).answered() == 200


async def test_a_receiver_that_is_gone_disables_its_sink_until_a_person_enables_it(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """410: nothing more is sent, also after a restart; what waits is kept and comes in order once it is enabled."""
    config = str(write_config(tmp_path, platform, server.url))
    receiver.answer = 410
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        await push(platform, ("one", "omm_a"))
        await until(lambda: daemon.query("SELECT 1 FROM sinks WHERE disabled_ms IS NOT NULL"))
        receiver.answer = 200
        await push(platform, ("two", "omm_a"), ("three", "omm_b"))
        await until(lambda: daemon.file_ids() == ["one", "two", "three"])
        await until(lambda: daemon.pending() == 3)
        (line,) = [each for each in daemon.log() if each["event"] == "delivery.sink_disabled"]
        assert "sinks enable booking" in line["hint"]
        (booking,) = [
            each for each in await as_json("sinks", "list", "-c", config) if each["name"] == "booking"
        ]
        assert (booking["state"], booking["pending"]) == ("disabled", 3)
        assert "HTTP 410" in booking["last_error"]
        assert await daemon.stop() == 0
        await daemon.start()
        await platform.connected(20)
        await push(platform, ("four", "omm_b"))
        await until(lambda: daemon.pending() == 4)
        assert len(receiver.received) == 1
        assert (await cli("sinks", "enable", "booking", "-c", config))[1] == "booking is enabled.\n"
        await until(lambda: daemon.pending() == 0)
        ids = [request.headers["webhook-id"] for request in receiver.received[1:]]
        assert [i for i in ids if i in ("one", "two")] == ["one", "two"]
        assert [i for i in ids if i in ("three", "four")] == ["three", "four"]
        assert (await cli("sinks", "enable", "booking", "-c", config))[1] == "booking was not disabled.\n"
        assert await daemon.stop() == 0


async def test_a_sink_is_disabled_and_enabled_on_a_stopped_daemon(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """With no daemon the commands act on the store; the next start heeds them, and a name that is none is said."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        assert await daemon.stop() == 0
        assert (await cli("sinks", "disable", "booking", "-c", config))[0] == 0
        states = {each["name"]: each["state"] for each in await as_json("sinks", "list", "-c", config)}
        assert states == {"console": "unknown", "audit": "unknown", "booking": "disabled"}
        code, _, err = await cli("sinks", "disable", "bookin", "-c", config)
        assert (code, err) == (
            1,
            'error: there is no sink "bookin"; the configuration has console, audit, booking.\n',
        )
        await daemon.start()
        await platform.connected(20)
        await push(platform, ("one", "omm_a"))
        await until(lambda: daemon.pending() == 1)
        assert receiver.received == []
        assert await daemon.stop() == 0
        assert (await cli("sinks", "enable", "booking", "-c", config))[1] == "booking is enabled.\n"
        await daemon.start()
        await receiver.wait_for(1, 20)
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0


@pytest.mark.parametrize("daemon_runs", [True, False])
async def test_a_sink_is_tried_with_a_marked_event(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver, *, daemon_runs: bool
) -> None:
    """`sinks test` posts an event that says it is one, tells what came back, and leaves nothing in the store."""
    config = str(write_config(tmp_path, platform, server.url))
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        if not daemon_runs:
            assert await daemon.stop() == 0
        code, out, err = await cli("sinks", "test", "booking", "-c", config)
        assert (code, err) == (0, "")
        assert out.startswith("booking accepted the event test-")
        (request,) = receiver.received
        body = json.loads(request.body)
        assert (body["test"], body["id"], body["type"]) == (
            True,
            request.headers["webhook-id"],
            "vc.reserve_config.updated_v1",
        )
        receiver.answer = 503
        code, _, err = await cli("sinks", "test", "booking", "-c", config)
        assert (code, err) == (1, "error: booking did not accept the event: HTTP 503\n")
        code, out, _ = await cli("sinks", "test", "audit", "-c", config, "--json")
        assert (code, json.loads(out)["delivered"]) == (0, True)
        code, _, _ = await cli("sinks", "test", "console", "-c", config)
        assert code == 0
        assert json.loads((tmp_path / "events.jsonl").read_text())["test"] is True
        assert daemon.query("SELECT count(*) FROM events") == [(0,)]


async def test_a_sink_hears_what_its_filters_let_through(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """By type, by id and by tenant, each event goes to the sinks that want it, and a replay keeps to that."""
    more = "".join(
        f'\n[[sinks]]\nname = "{name}"\ntype = "file"\npath = "{tmp_path}/{name}.jsonl"\n{filters}\n'
        for name, filters in {
            "levels": 'scope_type = "level"',
            "some": 'scope_ids = ["omm_a", "omb_x"]',
            "tenant": 'tenants = ["t2"]',
            "none": 'scope_type = "level"\nscope_ids = ["omm_a"]',
        }.items()
    )
    config = str(write_config(tmp_path, platform, server.url, more=more))

    def ids(name: str) -> list[str]:
        path = tmp_path / f"{name}.jsonl"
        return [json.loads(line)["id"] for line in path.read_bytes().splitlines()] if path.exists() else []

    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        for event in (
            sample_event(event_id="room a", scope_id="omm_a", tenant_key="t1"),
            sample_event(event_id="level x", scope_id="omb_x", scope_type=1, tenant_key="t1"),
            sample_event(event_id="room b", scope_id="omm_b", tenant_key="t2"),
        ):
            assert await platform.push(event).answered() == 200
        await until(lambda: daemon.pending() == 0)
        assert daemon.file_ids() == ["room a", "level x", "room b"]
        assert (ids("levels"), ids("some"), ids("tenant"), ids("none")) == (
            ["level x"],
            ["room a", "level x"],
            ["room b"],
            [],
        )
        code, out, _ = await cli("events", "replay", "-c", config, "--sink", "some")
        assert (code, out) == (0, "2 deliveries will be repeated.\n")
        await until(lambda: daemon.pending() == 0)
        assert ids("some") == ["room a", "level x"] * 2
        assert await daemon.stop() == 0


async def test_the_options_of_an_http_sink_come_from_the_configuration_and_leak_nowhere(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Headers, a bearer token and the platform's own form reach the receiver; no secret is in the log or the store."""
    (tmp_path / "bearer").write_text("bearer-0123456789\n")
    (tmp_path / "api_key").write_text("api-key-0123456789\n")
    (tmp_path / "token").write_text("their-token-0123456789\n")
    more = f"""
headers = {{ "X-Environment" = "test" }}
header_files = {{ "X-Api-Key" = "{tmp_path}/api_key" }}
bearer_token_file = "{tmp_path}/bearer"
format = "feishu"
verification_token_file = "{tmp_path}/token"
retry = {{ base = 0.01, cap = 0.02, max_attempts = 2 }}
"""
    write_config(tmp_path, platform, server.url, more=more)
    async with running(tmp_path, tmp_path / "config.toml", "--log-level", "debug") as daemon:
        await platform.connected(20)
        event = sample_event(event_id="one")
        assert await platform.push(event).answered() == 200
        (request,) = await receiver.wait_for(1)
        assert request.headers["x-environment"] == "test"
        assert request.headers["x-api-key"] == "api-key-0123456789"
        assert request.headers["authorization"] == "Bearer bearer-0123456789"
        posted = json.loads(request.body)
        assert posted["header"].pop("token") == "their-token-0123456789"
        event["header"].pop("token")
        assert posted == event
        receiver.answer = 429
        assert await platform.push(sample_event(event_id="two")).answered() == 200
        await until(lambda: daemon.query("SELECT 1 FROM deliveries WHERE state = 2 AND attempts = 2"))
        assert await daemon.stop() == 0
    kept = b"".join((tmp_path / name).read_bytes() for name in ("events.db", "events.jsonl", "log.jsonl"))
    for secret in (b"bearer-0123456789", b"api-key-0123456789", b"their-token-0123456789"):
        assert secret not in kept


async def test_status_tells_why_a_sink_fails_and_which_times_may_be_lost(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """A sink that is down is named with its error and its next attempt, and gaps are shown."""
    config = str(write_config(tmp_path, platform, server.url, more="retry = { base = 0.01, cap = 30 }"))
    receiver.answer = 503
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        await push(platform, *((f"e{n}", f"omm_{n}") for n in range(8)))
        await until(lambda: any(line["event"] == "delivery.sink_down" for line in daemon.log()))
        code, out, _ = await cli("status", "-c", config)
        assert code == 1  # degraded: a sink is down
        (line,) = [each for each in out.splitlines() if each.startswith("sink\tbooking")]
        assert "booking: down, 8 pending, since" in line
        assert "HTTP 503" in line
        assert "next attempt" in line
        receiver.answer = 200
        await until(lambda: daemon.pending() == 0)
        status = await as_json("status", "-c", config)
        assert {each["state"] for each in status["sinks"]} == {"ok"}
        assert status["gaps"] == []
        assert await daemon.stop() == 0


async def test_a_sink_down_for_long_leaves_nothing_behind(
    tmp_path: Path, platform: Simulator, server: HttpServer, receiver: Receiver
) -> None:
    """Everything that came while the receiver was down is there once, in order per scope, soon after it is back."""
    write_config(tmp_path, platform, server.url, more="retry = { base = 0.01, cap = 0.05 }")
    receiver.answer = 500
    async with running(tmp_path, tmp_path / "config.toml") as daemon:
        await platform.connected(20)
        await platform.push_many(
            sample_event(event_id=f"{n:03}", scope_id=f"omm_{n % 7}") for n in range(200)
        )
        await until(lambda: len(daemon.file_ids()) == 200)
        tried = len(receiver.received)
        await until(lambda: len(receiver.received) > tried + 2)  # some probes
        receiver.answer = 200
        before = len(receiver.received)
        assert before < 100  # spared: without a breaker it would be asked again and again for each scope
        await until(lambda: daemon.pending() == 0)
        arrived = [request.headers["webhook-id"] for request in receiver.received[before:]]
        assert sorted(arrived) == [f"{n:03}" for n in range(200)]
        for scope in range(7):
            of_scope = [event_id for event_id in arrived if int(event_id) % 7 == scope]
            assert of_scope == sorted(of_scope)
        assert await daemon.stop() == 0
