"""What holds for every test, and the world around a daemon that many of them need."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from reserve_listener.simulator import HttpServer, Receiver, Simulator
from tests.backends import made
from tests.commands import COMMANDS
from tests.postgres import SERVER, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.backends import Backend

QUICK_RETRIES = (0.3,) * 40
"""Longer than any of what is tried meanwhile takes, also on a busy machine: after the last one a push is lost."""
NO_WAITS = {"ReconnectCount": 0, "ReconnectInterval": 0, "ReconnectNonce": 0, "PingInterval": 0}
"""With the platform's usual nonce a reconnect waits for up to 30 s."""


def pytest_configure() -> None:
    """What holds on every machine: signals reach what the tests start, and properties take as long as they take.

    A shell's background job, such as the gate's, hands an ignored SIGINT on, and nohup an ignored SIGHUP.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # Still ignored here, but by a handler: only what is ignored without one is handed on.
        signal.signal(signal.SIGHUP, lambda *_: None)
    # Some images forbid Python to keep what it has compiled: hundreds of daemons and commands would compile the package each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # On a busy machine every step of a property takes longer, and making its examples too: neither says anything of us.
    settings.register_profile(
        "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("unhurried")


@pytest.fixture
def receiver() -> Receiver:
    """What the http sink posts to; tell it how to answer."""
    return Receiver()


@pytest.fixture
async def server(receiver: Receiver) -> AsyncIterator[HttpServer]:
    """The receiver, served."""
    async with HttpServer(receiver) as server:
        yield server


@pytest.fixture
async def platform() -> AsyncIterator[Simulator]:
    """The local platform; it pushes again soon and spreads no reconnects."""
    async with Simulator(retry_delays=QUICK_RETRIES, client_config=dict(NO_WAITS)) as simulator:
        yield simulator


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """A store, not opened yet; tests/store/conftest.py has one of each kind."""
    yield from made("sqlite", tmp_path)


@pytest.fixture
def server_alone() -> Iterator[Server]:
    """A PostgreSQL that is nobody else's: it is killed, or stands still."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    """What a session has started is ended with it."""
    yield
    SERVER.stop()
    COMMANDS.stop()


PROCESSES = {"subprocess", "COMMAND", "COMMANDS", "Daemon", "Terminal", "running"}
"""A module that knows one of these starts commands and daemons: each takes its half second, so none of it is quick."""
DEAR = {"sdk", "sdk_frame", "devtools"}
"""Fixtures that import the whole SDK, or start a browser, which takes seconds."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests into tiers. A test without a sentence that says what it shows is not taken."""
    for item in items:
        known = vars(item.module).keys() if isinstance(item, pytest.Function) else ()
        if PROCESSES.intersection(known) or DEAR.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    # The modules that take long come first: at the end no worker waits for long while another goes through one.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
    silent = [
        item.nodeid for item in items if isinstance(item, pytest.Function) and not item.function.__doc__
    ]
    if silent:
        raise pytest.UsageError("tests without a docstring: " + ", ".join(silent))
