"""The daemon as a unit of a booted machine, and what a test asks of it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.daemon_process import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.simulator import Simulator
    from tests.systemd.machine import Machine

WAIT_S = 30.0


class Service:
    """`reserve-listener`, or the instance of that name, with a log sink and a file sink in its state directory."""

    def __init__(self, machine: Machine, simulator: Simulator, instance: str = "") -> None:
        self.machine = machine
        self.simulator = simulator
        self.unit = f"reserve-listener@{instance}.service" if instance else "reserve-listener.service"
        self.etc = "/etc/reserve-listener" + (f"/{instance}" if instance else "")
        self.state = "/var/lib/reserve-listener" + (f"-{instance}" if instance else "")
        self.configure()
        self.set_secret(simulator.app_secret)

    def configure(self, more: str = "", *, delivery: str = "") -> None:
        """Write the configuration; `more` stands at its end."""
        self.machine.write(
            f"{self.etc}/config.toml",
            f"""
[lark]
app_id = "{self.simulator.app_id}"
domain = "{self.simulator.domain}"
backoff_base = 0.05
backoff_cap = 0.2

[delivery]
{delivery}

[[sinks]]
name = "console"
type = "log"

[[sinks]]
name = "audit"
type = "file"
path = "{self.state}/events.jsonl"
{more}
""",
        )

    def set_secret(self, secret: str) -> None:
        """Write the file that the unit's credential is read from."""
        self.machine.write(f"{self.etc}/app_secret", f"{secret}\n", 0o600)

    async def override(self, *settings: str) -> None:
        """Settings of [Service] that go over the unit's own."""
        self.machine.write(
            f"/etc/systemd/system/{self.unit}.d/test.conf", "\n".join(("[Service]", *settings, ""))
        )
        await self.machine.run("systemctl", "daemon-reload")

    async def start(self) -> None:
        """Start it: returns once systemd knows that it is ready."""
        await self.machine.run("systemctl", "start", self.unit)

    async def systemctl(self, verb: str, *options: str) -> tuple[int, str]:
        """A verb for this unit; exit code and output."""
        return await self.machine.result("systemctl", verb, *options, self.unit)

    async def command(self, *arguments: str) -> str:
        """Run a command of ours from a shell, as docs/service.md says; its output."""
        given = (f"CREDENTIALS_DIRECTORY={self.etc}", f"STATE_DIRECTORY={self.state}")
        program = ("/opt/reserve-listener/bin/reserve-listener", *arguments)
        return await self.machine.run("env", *given, *program, "-c", f"{self.etc}/config.toml")

    async def show(self) -> dict[str, str]:
        """The unit's properties."""
        return await self.machine.show(self.unit)

    async def shown(
        self, condition: Callable[[dict[str, str]], bool], timeout_s: float = WAIT_S
    ) -> dict[str, str]:
        """The unit's properties, once they are so."""
        async with asyncio.timeout(timeout_s):
            while not condition(properties := await self.show()):
                await asyncio.sleep(0.05)
        return properties

    async def restarted(self, before: dict[str, str]) -> dict[str, str]:
        """The unit's properties, once systemd has started it again and it is ready."""
        return await self.shown(
            lambda now: now["ActiveState"] == "active" and now["MainPID"] not in ("0", before["MainPID"])
        )

    async def log(self) -> list[dict[str, Any]]:
        """The daemon's JSON lines in the journal, each with its `PRIORITY`."""
        entries = [entry for entry in await self.machine.journal(self.unit) if entry["MESSAGE"][:1] == "{"]
        return [json.loads(entry["MESSAGE"]) | {"PRIORITY": int(entry["PRIORITY"])} for entry in entries]

    async def logged(self, event: str, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """The first line of this event, once it is in the journal."""
        async with asyncio.timeout(timeout_s):
            while True:
                for line in await self.log():
                    if line["event"] == event:
                        return line
                await asyncio.sleep(0.05)

    async def messages(self) -> str:
        """All that the journal has of the unit, as text."""
        return "\n".join(str(entry["MESSAGE"]) for entry in await self.machine.journal(self.unit))

    def ids(self, name: str = "events.jsonl") -> list[str]:
        """The ids in a file of the state directory; every line must be whole."""
        return [
            json.loads(line)["id"] for line in self.machine.read(f"{self._real_state}/{name}").splitlines()
        ]

    async def arrived(self, ids: set[str], name: str = "events.jsonl") -> None:
        """Return once all of these are in the file."""
        await until(lambda: ids <= set(self.ids(name)), WAIT_S)

    @property
    def _real_state(self) -> str:
        # /var/lib/reserve-listener is a link: DynamicUser keeps state in /var/lib/private.
        return self.state.replace("/var/lib/", "/var/lib/private/", 1)
