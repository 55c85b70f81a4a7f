"""A site on a real socket, for tests that ask it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from reserve_listener.config import StatusConfig
from reserve_listener.intake.directory import Directory
from reserve_listener.simulator import patience
from reserve_listener.web.access import Access
from reserve_listener.web.answers import Check
from reserve_listener.web.listener import StatusListener
from reserve_listener.web.site import Site, make_app
from tests.daemon.test_control import Notebook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKEN = "t0ken-of-the-page"
BEARER = {"authorization": f"Bearer {TOKEN}"}
OK = Check(status="ok")


class Probed:
    """Probes that find what they are told to."""

    def __init__(self) -> None:
        self.checks = {"live": {"writer": OK}, "ready": {"store": OK}}

    def live(self) -> dict[str, Check]:
        """See `web.health.Probes`."""
        return self.checks["live"]

    def ready(self) -> dict[str, Check]:
        """See `web.health.Probes`."""
        return self.checks["ready"]


def a_site(**parts: Any) -> Site:
    """A site with these parts; the others do nothing of note."""
    usual: dict[str, Any] = {
        "access": Access(),
        "actions": Notebook(),
        "probes": Probed(),
        "metrics": None,
        "reads": None,
        "directory": Directory(),
    }
    return Site(**(usual | parts))


@asynccontextmanager
async def served(site: Site, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """The site on a free port, and a client that asks it."""
    listener = StatusListener(StatusConfig(**{"listen": "127.0.0.1:0", **settings}))
    await listener.bind()
    await listener.serve(lambda: make_app(site))
    tls = "tls_cert_file" in settings
    try:
        async with httpx2.AsyncClient(
            base_url=f"http{'s' * tls}://127.0.0.1:{listener.port}",
            verify=False,
            trust_env=False,
            timeout=patience(20),
        ) as client:
            yield client
    finally:
        await listener.close()
