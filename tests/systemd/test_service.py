"""The units under a real systemd: `make systemd`. Each test has a freshly booted Debian of its own."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shutil
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator, sample_event
from reserve_listener.simulator.events import TOKEN
from tests.daemon_process import until
from tests.systemd.service import Service

if TYPE_CHECKING:
    from tests.systemd.machine import Machine

KILLS = 10
BUSY = 1
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "setpriv")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="systemd-nspawn needs root"),
    pytest.mark.skipif(
        not all(map(shutil.which, TOOLS)), reason="apt-get install systemd-container debootstrap"
    ),
]


async def pushed(platform: Simulator) -> str:
    """Push one event and see it answered 200; its id."""
    await platform.connected(20)
    event = sample_event()
    assert await platform.push(event).answered(20) == 200
    return str(event["header"]["event_id"])


async def one_more_answered(platform: Simulator) -> None:
    before = len(platform.acknowledged)
    await platform.until(lambda: len(platform.acknowledged) > before, 30)


async def test_it_starts_to_active_and_says_how_it_stands(service: Service, platform: Simulator) -> None:
    """Installed and enabled, it is ready once connected, says so in its status, and carries an event to its sinks."""
    verified = await service.machine.run(
        "systemd-analyze", "verify", service.unit, "reserve-listener@x.service"
    )
    assert verified == ""
    await service.machine.run("systemctl", "enable", "--now", service.unit)
    assert platform.connections == 1
    shown = await service.shown(lambda now: now["StatusText"].startswith("connected; pending: "))
    assert (shown["ActiveState"], shown["SubState"], shown["Type"]) == ("active", "running", "notify")
    assert shown["WatchdogUSec"] == "30s"
    event_id = await pushed(platform)
    await service.arrived({event_id})
    assert (await service.logged("reserve_config.updated"))["event_id"] == event_id


async def test_a_file_sink_below_var_log(service: Service, platform: Simulator) -> None:
    """The example's path is the unit's to write to, and what it writes there is not for everybody's eyes."""
    service.configure(
        '[[sinks]]\nname = "log"\ntype = "file"\npath = "/var/log/reserve-listener/events.jsonl"\n'
    )
    await service.start()
    event_id = await pushed(platform)
    path = "/var/log/private/reserve-listener/events.jsonl"
    await until(lambda: event_id in service.machine.read(path), 30)
    assert (await service.machine.run("stat", "-c", "%a", path)).strip() == "640"


async def test_it_is_ready_while_the_platform_is_away(service: Service, platform: Simulator) -> None:
    """With a good configuration and nobody to connect to it is active, says what it waits for, and connects later."""
    platform.faults.endpoint_code = BUSY
    await service.start()
    shown = await service.shown(lambda now: now["StatusText"].startswith("waiting "))
    assert shown["ActiveState"] == "active"
    platform.faults.endpoint_code = 0
    await service.arrived({await pushed(platform)})


async def test_kill_9_ten_times_in_a_row_loses_nothing(service: Service, platform: Simulator) -> None:
    """Killed again and again under load it is back each time, and all that was answered 200 is in the file."""

    async def load() -> None:
        while True:
            await platform.push_many((sample_event() for _ in range(10)), in_flight=4)
            await asyncio.sleep(0.05)  # a rate, not a hope

    await service.start()
    pushing = asyncio.create_task(load(), name="load")
    try:
        for _ in range(KILLS):
            before = await service.show()
            await one_more_answered(platform)
            await service.systemctl("kill", "--signal=KILL")
            after = await service.restarted(before)
    finally:
        pushing.cancel()
        with suppress(asyncio.CancelledError):
            await pushing
    assert int(after["NRestarts"]) == KILLS
    await pushed(platform)
    assert len(platform.acknowledged) > KILLS
    await service.arrived(platform.acknowledged)


async def test_the_watchdog_restarts_it_when_it_stands_still(service: Service, platform: Simulator) -> None:
    """Stopped by SIGSTOP it gives no sign of life: systemd ends it, starts it again, and events flow."""
    await service.override("WatchdogSec=3")
    await service.start()
    before = await service.show()
    await service.systemctl("kill", "--signal=STOP", "--kill-who=main")
    after = await service.restarted(before)
    assert after["NRestarts"] == "1"
    assert "Watchdog timeout" in await service.messages()
    await service.arrived({await pushed(platform)})
    # Fed as it should be, it goes on for longer than the watchdog's time.
    started_us = int(after["WatchdogTimestampMonotonic"])
    later = await service.shown(lambda now: int(now["WatchdogTimestampMonotonic"]) > started_us + 6_000_000)
    assert later["MainPID"] == after["MainPID"]


async def test_a_wrong_configuration_fails_it_for_good(service: Service) -> None:
    """A mistake in the file ends it with 78, which is not tried again, and the journal says what is wrong."""
    service.configure('[[sinks]]\nname = "other"\ntype = "file"\npth = "x"')
    code, _ = await service.systemctl("start")
    assert code != 0
    shown = await service.show()
    assert (shown["ActiveState"], shown["SubState"]) == ("failed", "failed")  # not: activating, auto-restart
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("78", "0")
    assert 'did you mean "path"' in await service.messages()


async def test_a_refused_app_fails_it_until_the_credential_is_mended(
    service: Service, platform: Simulator
) -> None:
    """A wrong secret at the first start ends it with 77, not tried again; with the right one it starts."""
    service.set_secret("wrong0secret")
    code, _ = await service.systemctl("start")
    assert code != 0
    shown = await service.show()
    assert (shown["ActiveState"], shown["SubState"]) == ("failed", "failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("77", "0")
    assert "lark.app_secret" in await service.messages()
    service.set_secret(platform.app_secret)
    await service.start()
    await service.arrived({await pushed(platform)})


async def test_a_stop_drains_and_extends_its_timeout(service: Service, platform: Simulator) -> None:
    """A delivery that is under way at the stop is finished, though it takes longer than TimeoutStopSec; exit 0."""
    receiver = Receiver(Answer(delay=4.0))
    async with HttpServer(receiver) as server:
        sink = f'[[sinks]]\nname = "slow"\ntype = "http"\nurl = "{server.url}"'
        service.configure(sink, delivery="drain_timeout = 20")
        await service.override("TimeoutStopSec=2")
        await service.start()
        event_id = await pushed(platform)
        await receiver.wait_for(1, 20)
        code, output = await service.systemctl("stop")
        assert code == 0, output
        assert receiver.open_requests == 0
        shown = await service.show()
        assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")
        assert shown["ExecMainStatus"] == "0"
        stopped = await service.logged("daemon.stopped")
        assert set(stopped["pending"].values()) == {0}, stopped
        assert event_id in service.ids()


async def test_a_reload_applies_a_good_configuration_without_a_reconnect(
    service: Service, platform: Simulator
) -> None:
    """A sink that is added takes effect with the next event, in the same process, over the same connection."""
    await service.start()
    before = await service.show()
    first = await pushed(platform)
    await service.arrived({first})
    service.configure(f'[[sinks]]\nname = "second"\ntype = "file"\npath = "{service.state}/second.jsonl"')
    code, output = await service.systemctl("reload")
    assert code == 0, output
    await service.logged("config.applied")
    await service.shown(lambda now: now["ActiveState"] == "active")
    second = await pushed(platform)
    await service.arrived({first, second})
    await service.arrived({second}, "second.jsonl")
    assert service.ids("second.jsonl") == [second]
    assert platform.connects == 1
    after = await service.show()
    assert (after["MainPID"], after["NRestarts"]) == (before["MainPID"], "0")


async def test_a_reload_reads_other_credentials_too(service: Service, platform: Simulator) -> None:
    """With a receiver's signing secret as a further credential, the check before a reload finds it as the daemon does."""
    receiver = Receiver()
    async with HttpServer(receiver) as server:
        service.machine.write(
            f"{service.etc}/booking", f"whsec_{base64.b64encode(bytes(32)).decode()}\n", 0o600
        )
        sink = f'[[sinks]]\nname = "booking"\ntype = "http"\nurl = "{server.url}"\nsigning_secret_file = "booking"\n'
        service.configure(sink)
        await service.override(f"LoadCredential=booking:{service.etc}/booking")
        await service.start()
        service.configure(f"{sink}timeout = 5")
        code, output = await service.systemctl("reload")
        assert code == 0, output
        await service.logged("config.applied")
        await pushed(platform)
        (request,) = await receiver.wait_for(1, 20)
        assert "webhook-signature" in request.headers


async def test_a_reload_refuses_a_bad_configuration_and_runs_on(
    service: Service, platform: Simulator
) -> None:
    """A mistake makes the reload fail with its reason in the journal; the daemon runs on as it was, also after SIGHUP."""
    await service.start()
    before = await service.show()
    service.configure('[[sinks]]\nname = "second"\ntype = "file"\npth = "x"')
    code, _ = await service.systemctl("reload")
    assert code != 0
    assert 'did you mean "path"' in await service.messages()
    assert not [line for line in await service.log() if line["event"].startswith("config.")]
    await service.systemctl("kill", "--signal=HUP", "--kill-who=main")
    refused = await service.logged("config.refused")
    assert 'did you mean "path"' in refused["error"]
    await service.arrived({await pushed(platform)})
    after = await service.shown(lambda now: now["ActiveState"] == "active")
    assert (after["MainPID"], platform.connects) == (before["MainPID"], 1)


async def test_the_secret_is_nowhere_but_in_the_credential(service: Service, platform: Simulator) -> None:
    """Neither environment, command lines, configuration, journal nor state hold the secret or the event's token."""
    await service.start()
    await service.arrived({await pushed(platform)})
    service.machine.write("/root/secrets", f"{platform.app_secret}\n{TOKEN}\n", 0o600)
    search = "grep --files-with-matches --recursive --devices=skip --no-messages --text --fixed-strings --file=/root/secrets"
    _, found = await service.machine.result("sh", "-c", f"{search} /etc /run /var /tmp")
    assert set(found.split()) == {
        "/etc/reserve-listener/app_secret",
        f"/run/credentials/{service.unit}/app_secret",
    }
    _, found = await service.machine.result("sh", "-c", f"{search} /proc/[0-9]*/environ /proc/[0-9]*/cmdline")
    assert found == ""
    await service.systemctl("stop")
    journal = await service.machine.run("journalctl", "--no-pager", "--output", "export")
    assert "reserve_config.updated" in journal
    assert platform.app_secret not in journal
    assert TOKEN not in journal


async def test_log_lines_have_their_priority_in_the_journal(service: Service, platform: Simulator) -> None:
    """JSON lines arrive whole in the journal, with the priority of their level; `journalctl -p` finds them."""
    await service.start()
    await pushed(platform)
    platform.faults.endpoint_code = 403
    await platform.drop(abort=True)
    await service.logged("connection.lost")
    async with asyncio.timeout(20):
        while not [line for line in await service.log() if line["level"] == "error"]:
            await asyncio.sleep(0.05)
    lines = await service.log()
    assert {line["level"] for line in lines} >= {"info", "warning", "error"}
    for line in lines:
        assert line["PRIORITY"] == PRIORITIES[line["level"]], line
    errors = await service.machine.run(
        "journalctl", "-u", service.unit, "-p", "err", "-o", "cat", "--no-pager"
    )
    assert "403" in errors
    assert "reserve_config.updated" not in errors


async def test_several_apps_on_a_host_are_strangers(machine: Machine) -> None:
    """Two instances of the template have configurations, secrets and stores of their own; one stops, one runs on."""
    async with AsyncExitStack() as stack:
        services = []
        for name in ("north", "south"):
            simulator = Simulator(app_id=f"cli_{name}", app_secret=secrets.token_hex(16))
            services.append(Service(machine, await stack.enter_async_context(simulator), name))
            await services[-1].start()
        north, south = services
        for service in services:
            event_id = await pushed(service.simulator)
            await service.arrived({event_id})
            assert service.ids() == [event_id]
            assert event_id in await service.command("events", "list", "--json")
        await north.systemctl("stop")
        assert (await north.show())["Result"] == "success"
        await south.arrived({await pushed(south.simulator)})
        assert (await south.show())["NRestarts"] == "0"
