"""Asks the platform's API for rooms' names and limits, with the app's own secret.

What must stay true: whatever the platform answers, the daemon goes on receiving and delivering events.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.daemon.comparisons import comparison_of, status_of
from reserve_listener.errors import ReserveListenerError, StoreError
from reserve_listener.intake import names, reconciler
from reserve_listener.intake.names import Names
from reserve_listener.intake.reconcile import comparing
from reserve_listener.intake.reconciler import Reconciler
from reserve_listener.intake.survey import Survey
from reserve_listener.intake.troubles import Troubles
from reserve_listener.lark.api.client import Client
from reserve_listener.meters import RoomsMeter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reserve_listener.config import Config
    from reserve_listener.intake.directory import Directory
    from reserve_listener.intake.jobs import Job
    from reserve_listener.intake.scope_reader import ReconcilerStore
    from reserve_listener.model import IncomingEvent, Reading
    from reserve_listener.web.answers import Comparison, ReconcileStatus

NO_SECRET: Final = "there is no app secret to ask the platform with"  # noqa: S105  # says that there is none

log = structlog.get_logger("names")


class Rooms:
    """Asks as long as `run` runs; without a secret, or if nothing is wanted, it says so once and asks nothing.

    `hide(secret, instead_of)`: see `lark.api.client.Client`.
    """

    def __init__(
        self,
        config: Config,
        store: ReconcilerStore,
        directory: Directory,
        *,
        hide: Callable[[str, str], None],
        flush: Callable[[], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        """`flush`: what is answered by now is in the store when it returns."""
        self.meter = RoomsMeter()
        self._config = config
        self._store = store
        self._directory = directory
        self._was_connected = False
        self._reconciler: Reconciler | None = None
        self._off: str | None = "rooms.reconcile is false"
        """Why there is no reconciler."""
        lark, rooms = config.lark, config.rooms
        self._client: Client | None = None
        self._names: Names | None = None
        if lark.app_secret is None and lark.app_secret_file is None:
            if rooms.reconcile:
                self._off = NO_SECRET
            return
        told: set[tuple[str, ...]] = set()
        self._client = Client(
            lark, requests_per_minute=rooms.requests_per_minute, hide=hide, meter=self.meter
        )
        survey = Survey(store, self._client, directory, app_id=lark.app_id, keeps=rooms.names, now_ms=now_ms)
        if rooms.names or rooms.people_names:
            self._names = Names(
                store,
                self._client,
                directory,
                app_id=lark.app_id,
                places=rooms.names,
                people=rooms.people_names,
                survey=survey,
                now_ms=now_ms,
                troubles=Troubles("names", names.MEANWHILE, told),
            )
        if rooms.reconcile:
            self._reconciler = Reconciler(
                store,
                self._client,
                directory,
                app_id=lark.app_id,
                compare=comparing(lark.tells_in, directory),
                every_s=rooms.reconcile_every,
                flush=flush,
                survey=survey,
                now_ms=now_ms,
                told=self._told,
                meter=self.meter,
                troubles=Troubles("reconcile", reconciler.MEANWHILE, told),
            )

    def heard(self, event: IncomingEvent) -> None:
        """An event is in the store."""
        if self._names is not None:
            self._names.heard(event)

    def _told(self, reading: Reading) -> None:
        if self._names is not None:
            self._names.told(reading)

    async def run(self) -> None:
        """Until cancelled."""
        if not self._config.rooms.people_names:
            with contextlib.suppress(StoreError):  # at the next start then
                await self._store.forget_people()
        self._say_off()
        async with asyncio.TaskGroup() as tasks:
            for asking in (self._names, self._reconciler):
                if asking is not None:
                    tasks.create_task(asking.run(), name=type(asking).__name__.lower())
            await asyncio.Event().wait()

    # -- limits -----------------------------------------------------------------------------------------------------------

    @property
    def after_gap(self) -> str:
        """What becomes of changes that were missed."""
        if self._reconciler is None or self._reconciler.off is not None:
            return "changes from that time may be lost"
        return "changes from that time were missed; the daemon is looking for them, and `status` shows what it found"

    def connected(self, *, after_gap: bool) -> None:
        """Pushes come in from now on: what was missed before this start, or in a gap, can be found."""
        if self._reconciler is not None and (after_gap or not self._was_connected):
            self._reconciler.begin("gap" if after_gap else "start")
        self._was_connected = True

    def doubt(self) -> None:
        """A scope is to be read again."""
        if self._reconciler is not None:
            self._reconciler.doubt()

    async def ask(self, scope_ids: Sequence[str] | None, *, dry_run: bool) -> Job:
        """See `Reconciler.ask`."""
        if self._reconciler is None:
            raise ReserveListenerError(f"limits are not compared: {self._off}.")
        return await self._reconciler.ask(scope_ids, dry_run=dry_run)

    def comparison(self, comparison_id: str, after: int) -> Comparison:
        """How far a comparison is; see `Reconciler.job`."""
        if self._reconciler is None:
            raise ReserveListenerError(f"limits are not compared: {self._off}.")
        agenda = self._reconciler.agenda
        job = agenda.job(comparison_id)
        return comparison_of(job, after, self._directory, ahead=agenda.ahead(job))

    def reconcile_status(self) -> ReconcileStatus:
        """How reconciling is."""
        return status_of(self._reconciler, self._off)

    async def close(self) -> None:
        """Give connections back. Does not raise."""
        if self._client is not None:
            await self._client.close()

    def _say_off(self) -> None:
        rooms = self._config.rooms
        if self._client is None and (rooms.names or rooms.people_names or rooms.reconcile):
            log.warning(
                "rooms.off",
                reason=NO_SECRET,
                hint="set lark.app_secret_file to see rooms by name and to find changes that were missed;"
                " everything else works without it",
            )
        elif self._names is None:
            log.info("names.off", reason="rooms.names is false")
        if self._client is not None and self._reconciler is None:
            log.info("reconcile.off", reason=self._off)
