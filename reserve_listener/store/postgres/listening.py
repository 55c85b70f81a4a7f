"""How replicas wake each other: a notice once a batch. One that is lost costs a beat's time, since each beat looks, too."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Final

import psycopg

from reserve_listener.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.store.postgres.connection import Connection
    from reserve_listener.store.postgres.schema import Target

CHANNEL: Final = "reserve_listener"

EVENTS: Final = "events"
"""Deliveries were added."""
OTHERS: Final = "others"
"""A lease is free, a sink was disabled or enabled, deliveries are pending again: the next beat tells which."""

RETRY_S: Final = 5.0
"""Between two attempts to listen."""

LOOK_S: Final = 1.0
"""How soon the thread notices that it is to end."""

FROZEN_S: Final = 5.0
"""A replica that stands still for so long in the middle of a transaction, and holds up others by it, is cut off."""

_END_FROZEN: Final = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a
WHERE a.usename = current_user AND a.datname = current_database()
  AND a.application_name = current_setting('application_name')
  AND a.state = 'active' AND a.wait_event = 'ClientRead'
  AND a.state_change < clock_timestamp() - make_interval(secs => %s)
  AND EXISTS (
    SELECT 1 FROM pg_stat_activity AS b
    WHERE b.datname = a.datname AND b.wait_event_type = 'Lock' AND a.pid = ANY (pg_blocking_pids(b.pid)))
"""
"""In a pipeline the server counts `idle_in_transaction_session_timeout` only after a sync: whoever is frozen before it, or
whose machine has vanished, would keep his locks until the server's own keepalive ends, two hours later by default."""


def tell(replica: str, what: str, connection: Connection) -> None:
    """Tell the other replicas, once this transaction is committed."""
    connection.query("SELECT pg_notify(%s, %s)", (CHANNEL, f"{replica} {what}"))


class Listening:
    """Listens in a thread, on a connection of its own. `heard` is called on the loop with what another replica told."""

    def __init__(self, target: Target, replica: str, heard: Callable[[str], None]) -> None:
        self._target = target
        self._replica = replica
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon. Does not block."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(StoreError, psycopg.Error):  # the beats look meanwhile
                self._listen()
            self._stopped.wait(RETRY_S)

    def _listen(self) -> None:
        connection = self._target.connect()
        try:
            is_pooled = connection.is_pooled()
            if not is_pooled:
                connection.query(f"LISTEN {CHANNEL}")
            self._tell(OTHERS)  # whatever was told before
            while not self._stopped.is_set():
                with connection.transaction(reads=True):
                    connection.query(_END_FROZEN, (FROZEN_S,))
                if (
                    is_pooled
                ):  # it would complain of every notice, and whoever has the session next would get it
                    self._stopped.wait(LOOK_S)
                    continue
                for payload in connection.notices(LOOK_S):
                    replica, _, what = payload.partition(" ")
                    if replica != self._replica:
                        self._tell(what)
        finally:
            connection.close()

    def _tell(self, what: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._heard, what)
