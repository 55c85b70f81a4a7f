"""Looks at the daemon every second and tells what begins and what ends.

Of replicas one, the leader, tells what concerns all, and which of them are not connected; each tells of its own commits, and, while
the store cannot be reached, of its own connection: then there is no leader.

What must stay true: looking costs nothing that an answer or a delivery would wait for, and waits for nothing that hangs; what is
told is remembered before it is sent, if the store's disk lets it be, so that a restart tells it neither again nor anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from reserve_listener.clock import now_ms, rfc3339
from reserve_listener.daemon import verdict
from reserve_listener.daemon.alerts import conditions, journal, replicas
from reserve_listener.daemon.alerts.conditions import Now, SinkNow, Terms
from reserve_listener.daemon.alerts.journal import Alert, Condition, Key, Marks, Memory
from reserve_listener.daemon.alerts.outbox import Outbox, Tell
from reserve_listener.daemon.alerts.replicas import Told
from reserve_listener.daemon.alerts.words import LANGUAGES
from reserve_listener.delivery.worker import SinkHealth
from reserve_listener.errors import LeaseLostError, StoreError
from reserve_listener.observability.throttle import Throttle
from reserve_listener.protocols.store import StoreAlerts, StoreHealth
from reserve_listener.web import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reserve_listener.config import AlertsConfig
    from reserve_listener.delivery import Workers
    from reserve_listener.model import Insight, SinkState, State

TICK_S: Final = 2.0
"""How soon something is noticed that is known in memory."""

LOOK_MS: Final = 5_000
"""How often the store is asked,"""
SELDOM: Final = 50
"""or more seldom: with a large backlog an answer takes a while, and no more than a fiftieth of the store's time is for this."""

STORE_TIMEOUT_S: Final = 2.0
"""A store that takes longer tells nothing: a commit that hangs is known without it."""

RECALL_TIMEOUT_S: Final = 10.0
"""Nothing waits for it but alerts, and without it those that fire would be told anew."""

BY_HAND: Final = "disabled by hand"

log = structlog.get_logger("alerts")


class WatchedStore(StoreHealth, StoreAlerts, Protocol):
    """What alerts are about, and where they are remembered."""


class Connection(Protocol):
    """What `Health` knows of the connection."""

    @property
    def silent_since_ms(self) -> int:
        """Since when nothing has been heard, if nothing is."""

    def connection(self) -> str:
        """Its state for people."""


class Alerts:
    """See the module. `reconciles`: whether the rooms are compared with the platform after a gap; `page`: where people look."""

    def __init__(
        self,
        *,
        app_id: str,
        language: str,
        store: WatchedStore,
        state: Callable[[], State],
        connection: Connection,
        workers: Workers,
        settings: AlertsConfig,
        reconciles: Callable[[], bool],
        page: str | None = None,
        redact: Callable[[str], str] = str,
        now_ms: Callable[[], int] = now_ms,
        age_ms: Callable[[int], int] | None = None,
    ) -> None:
        self._app_id = app_id
        self._words = LANGUAGES[language]
        self._store = store
        self._state = state
        self._connection = connection
        self._workers = workers
        self._settings = settings
        self._reconciles = reconciles
        self._page = page
        self._redact = redact
        self._now_ms = now_ms
        self._age_ms = age_ms or (lambda since_ms: now_ms() - since_ms)
        self._leads = False
        """Whether it tells what concerns all replicas."""
        self._elsewhere: dict[Key, Alert] = {}
        """What the replica that leads has told, when this one does not; to be shown."""
        self._known: dict[Key, Alert] = {}
        self._gap_ms = 0
        """Up to here each gap had its alert."""
        self._holding: Mapping[Key, Condition] = {}
        """What the last look found, in the words of now."""
        self._failing_since_ms: int | None = None
        self._stored: Insight | None = None
        self._asking: asyncio.Task[Insight] | None = None
        self._look_ms = 0
        self._saving: asyncio.Task[None] | None = None
        self._is_dirty = False
        self._outboxes: dict[str, tuple[Outbox, asyncio.Task[None]]] = {}
        self._marks: dict[str, dict[Key, tuple[str, ...]]] = {}
        """By the sink's name, what it has given to find again what it told."""
        self._woken = asyncio.Event()
        self._complaints = Throttle(3600)

    async def run(self) -> None:
        """For ever, until cancelled."""
        try:
            await self.begin()
            while True:
                await self.tick()
                await self._pause()
        finally:
            await self.close()

    async def begin(self) -> None:
        """What an earlier life has told is not told again, and what it could not send is sent."""
        self._make_outboxes()
        await self._follow()

    async def tick(self) -> None:
        """Look once, and tell."""
        for _, task in self._outboxes.values():
            if task.done():
                task.result()  # a defect of ours
        await self._follow()
        await self._ask_store()
        told = self._decide()
        await self._save()
        for alert in told:
            self._send(alert)

    def wake(self) -> None:
        """Something has happened: look now, into the store, too."""
        self._look_ms = 0
        self._woken.set()

    def configure(self, settings: AlertsConfig) -> None:
        """As a reload has it."""
        self._settings = settings
        self._make_outboxes()
        for key, alert in self._known.items():
            waiting = tuple(name for name in alert.waiting if name in self._outboxes)
            self._known[key] = msgspec.structs.replace(alert, waiting=waiting)
        self._woken.set()

    def firing(self) -> list[answers.Alert]:
        """For people and scripts."""
        return [
            answers.Alert(
                alert=alert.alert,
                sink=alert.sink,
                since=rfc3339(alert.since_ms),
                summary=now.summary,
                detail=self._with_link(key, now.detail),
            )
            for key, alert in (self._elsewhere | self._known).items()
            if alert.is_firing
            # What was told last may be hours old: there may be more dead letters since, or another gap.
            and (now := self._holding.get(key) or alert)
        ]

    def of_itself(self) -> bytes:
        """What the replica that leads has to know of this one; for `StoreAlerts.told`."""
        state = self._state()
        is_told = not self._leads and Key(conditions.DISCONNECTED) in self._known
        return msgspec.json.encode(
            Told(
                silent_since_ms=None if state.is_receiving or is_told else self._connection.silent_since_ms,
                connection=self._connected(),
                hint=state.hint,
                deaf_since_ms=None if state.is_receiving else self._connection.silent_since_ms,
                reconciles=self._reconciles(),
                sinks={name: self._seen(health) for name, health in self._workers.health().items()},
            )
        )

    def sink_health(self, name: str) -> SinkHealth | None:
        """How a sink does that cannot carry its alerts; None of any other."""
        outbox = self._outboxes.get(name)
        if outbox is None or (state := outbox[0].state).state == "ok":
            return None
        return SinkHealth(state=state.state, last_error=state.error, failing_since_ms=state.since_ms)

    async def close(self) -> None:
        """End what runs. What could not be sent is remembered, as far as it was before."""
        await self._save()
        tasks: list[asyncio.Task[Any]] = [task for _, task in self._outboxes.values()]
        tasks += [task for task in (self._asking, self._saving) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._outboxes.clear()

    # -- who tells ----------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Begin or cease to tell what concerns all replicas."""
        if self._store.tells_alerts() == self._leads:
            return
        if self._leads:
            self._give_up()
        else:
            await self._take_over()

    async def _take_over(self) -> None:
        """Go on where the one that told before, another replica or an earlier life, has ended."""
        own = {key: alert for key, alert in self._known.items() if alert.is_firing}
        if not await self._recall() and self._store.replica is not None:
            return  # the next look tries again: nothing is told anew meanwhile
        self._leads, self._elsewhere = True, {}
        for alert in self._known.values():
            self._send(alert)
        self._known |= own

    def _give_up(self) -> None:
        """Another replica tells, or will: also what waits here, if it was remembered. What is this one's own stays."""
        self._leads, self._stored, self._is_dirty = False, None, False
        for task in (self._asking, self._saving):
            if task is not None:
                task.cancel()
        self._asking = self._saving = None
        self._known = {key: alert for key, alert in self._known.items() if self._is_own(key)}
        for of in self._marks.values():
            for key in [key for key in of if key not in self._known]:
                del of[key]
        for name in list(self._outboxes):
            self._outboxes.pop(name)[1].cancel()
        self._make_outboxes()
        for alert in self._known.values():
            self._send(alert)

    def _is_own(self, key: Key) -> bool:
        """Whether this replica tells it of itself, though another leads. What it has begun to tell it tells to the end."""
        if key.alert == conditions.DISCONNECTED:
            return self._store.is_cut_off or (not self._leads and key in self._known)
        return key.alert == conditions.COMMIT_FAILING

    # -- looking ------------------------------------------------------------------------------------------------------------

    async def _ask_store(self) -> None:
        """Once at a time: a store that hangs gets no second question."""
        now_ms = self._now_ms()
        if not self._leads:
            await self._hear(now_ms)
            return
        if self._asking is None and now_ms >= self._look_ms:
            asking = self._store.insight(self._app_id, gaps_since_ms=now_ms - verdict.GAP_LEFT_MS * 30)
            self._asking = asyncio.ensure_future(asking)
        if self._asking is None:
            return
        started = asyncio.get_running_loop().time()
        await asyncio.wait([self._asking], timeout=STORE_TIMEOUT_S)
        if not self._asking.done():
            self._stored = None
            return
        took_ms = (asyncio.get_running_loop().time() - started) * 1000
        self._look_ms = now_ms + max(LOOK_MS, round(SELDOM * took_ms))
        asked, self._asking = self._asking, None
        try:
            self._stored = asked.result()
        except StoreError:
            self._stored = None

    async def _hear(self, now_ms: int) -> None:
        """What the replica that leads has told."""
        if now_ms < self._look_ms:
            return
        self._look_ms = now_ms + LOOK_MS
        with contextlib.suppress(StoreError, TimeoutError, msgspec.MsgspecError):
            async with asyncio.timeout(STORE_TIMEOUT_S):
                memory = _read(await self._store.remembered_alerts())
            self._elsewhere = {alert.key: alert for alert in memory.alerts}

    def _now(self) -> Now:
        state, store = self._state(), self._store
        told = list(replicas.others(self._stored.replicas, store.replica)) if self._stored else []
        silent_ms = None if state.is_receiving else self._connection.silent_since_ms
        itself = Told(silent_since_ms=silent_ms, connection=self._connected(), hint=state.hint)
        quietest = replicas.quietest([itself, *(one for _, one in told)])
        shown = quietest or itself
        failing_ms = self._failing_since_ms or self._now_ms()
        self._failing_since_ms = failing_ms if store.failed_commits else None
        return Now(
            now_ms=self._now_ms(),
            age_ms=self._age_ms,
            is_receiving=quietest is None,
            silent_since_ms=shown.silent_since_ms or self._connection.silent_since_ms,
            connection=shown.connection,
            hint=shown.hint,
            sinks=self._sinks(replicas.sinks_of(told)),
            stored=self._stored,
            max_bytes=store.max_bytes,
            problem=None if store.problem is None else self._redact(store.problem),
            failed_commits=store.failed_commits,
            failing_since_ms=self._failing_since_ms,
            stuck_s=store.stuck_s,
            is_full=store.full,
        )

    def _connected(self) -> str:
        text = self._redact(self._connection.connection())
        return text if self._store.replica is None else f"replica {self._store.replica}: {text}"

    def _seen(self, health: SinkHealth) -> SinkNow:
        """As the worker knows it."""
        return SinkNow(
            state=health.state,
            since_ms=health.failing_since_ms,
            # Before it is cut: half a secret is known by nobody.
            error=self._redact(health.last_error) if health.last_error else None,
            is_proven=health.delivered_ms is not None,
        )

    def _sinks(self, elsewhere: Mapping[str, SinkNow]) -> dict[str, SinkNow]:
        """`elsewhere`: those that other replicas work."""
        stored = {sink.name: sink for sink in self._stored.sinks} if self._stored else {}
        here = {name: self._seen(health) for name, health in self._workers.health().items()}
        return {
            name: self._sink(name, seen, stored.get(name)) for name, seen in {**here, **elsewhere}.items()
        }

    def _sink(self, name: str, seen: SinkNow, stored: SinkState | None) -> SinkNow:
        outbox = self._outboxes[name][0] if name in self._outboxes else None
        carried = outbox.state if outbox else SinkNow(state="ok")
        if seen.state == "ok" and carried.state != "ok":
            return carried
        gone = seen.state == "disabled" and stored is not None and stored.disabled_reason != BY_HAND
        return SinkNow(
            state="gone" if gone else seen.state,
            since_ms=(stored and stored.disabled_ms) or seen.since_ms,
            error=self._redact((stored and stored.disabled_reason) or seen.error or "") or None,
            is_proven=seen.is_proven or carried.is_proven,
            is_waiting=stored is None or stored.pending > 0 or (outbox is not None and outbox.is_waiting),
        )

    # -- telling ------------------------------------------------------------------------------------------------------------

    def _decide(self) -> list[Alert]:
        """What is to be told now. The log has it at once."""
        now = self._now()
        firing = {key: alert.since_ms for key, alert in self._known.items() if alert.is_firing}
        found = conditions.look(now, self._terms(), firing, self._gap_ms)
        if not self._leads:
            found.holding = {key: one for key, one in found.holding.items() if self._is_own(key)}
        if found.gap_ms != self._gap_ms:
            self._gap_ms, self._is_dirty = found.gap_ms, True
        self._holding = found.holding
        ended = partial(conditions.ended, now=now, words=self._words)
        changed = journal.decide(
            self._known,
            found.holding,
            found.unsure,
            now_ms=now.now_ms,
            repeat_ms=round(self._settings.repeat * 1000),
            ended=ended,
        )
        told = [self._take(alert, is_told=is_told) for alert, is_told in list(changed)]
        for key in [key for key, alert in self._known.items() if journal.is_forgotten(alert, now.now_ms)]:
            del self._known[key]
            self._is_dirty = True
        return [alert for alert in told if alert is not None]

    def _terms(self) -> Terms:
        return Terms(
            disconnected_ms=round(self._settings.disconnected_after * 1000),
            oldest_pending_ms=round(self._settings.oldest_pending * 1000),
            reconciles=self._reconciles(),
            words=self._words,
        )

    def _take(self, alert: Alert, *, is_told: bool) -> Alert | None:
        self._is_dirty = True
        if is_told:
            detail = self._with_link(alert.key, alert.detail) if alert.is_firing else alert.detail
            waiting = tuple(name for name in self._outboxes if name != alert.sink)
            alert = msgspec.structs.replace(alert, detail=detail, waiting=waiting)
        was = self._known.get(alert.key)
        self._known[alert.key] = alert
        if not is_told:
            return None
        write = log.warning if alert.is_firing else log.info
        write(
            f"alert.{alert.state}",
            alert=alert.alert,
            **({"sink": alert.sink} if alert.sink else {}),
            since=rfc3339(alert.since_ms),
            summary=alert.summary,
            **({"detail": alert.detail} if alert.detail else {}),
            **({"repeated": True} if was and was.is_firing and alert.is_firing else {}),
        )
        return alert

    def _with_link(self, key: Key, detail: str) -> str:
        """With the address of the page on a line of its own: many details end with a command that people copy."""
        if self._page is None:
            return detail
        link = self._words.page.format(url=conditions.page_of(key.alert, self._page))
        return "\n".join(filter(None, [detail.removesuffix(link).rstrip("\n"), link]))

    def _send(self, alert: Alert) -> None:
        for name in alert.waiting:
            if name in self._outboxes:
                self._outboxes[name][0].put(alert)

    def _sent(self, name: str, alert: Alert) -> None:
        """An outbox needs to do no more for it."""
        self._is_dirty = True  # the sink's marks, too
        known = self._known.get(alert.key)
        if known is not None and (known.told_ms, known.is_firing) == (alert.told_ms, alert.is_firing):
            waiting = tuple(one for one in known.waiting if one != name)
            self._known[alert.key] = msgspec.structs.replace(known, waiting=waiting)
            self._woken.set()

    def _make_outboxes(self) -> None:
        for name in [name for name in self._outboxes if name not in self._settings.sinks]:
            self._outboxes.pop(name)[1].cancel()
            self._marks.pop(name, None)
        for name in self._settings.sinks:
            if name not in self._outboxes:
                outbox = Outbox(
                    name,
                    partial(self._find_sink, name),
                    app_id=self._app_id,
                    told=self._sent,
                    marks=self._marks.setdefault(name, {}),
                    redact=self._redact,
                    now_ms=self._now_ms,
                )
                self._outboxes[name] = outbox, asyncio.create_task(outbox.run(), name=f"alerts-{name}")

    def _find_sink(self, name: str) -> Tell | None:
        """The way to the sink as it is now: a reload may have exchanged it. None while it is disabled, or not there."""
        worker = self._workers.worker(name)
        if worker is None or worker.leaving or worker.health.state == "disabled":
            return None
        return worker.aside.tell

    # -- remembering --------------------------------------------------------------------------------------------------------

    async def _recall(self) -> bool:
        """Know what was remembered; whether that could be read."""
        try:
            async with asyncio.timeout(RECALL_TIMEOUT_S):
                content = await self._store.remembered_alerts()
            memory = _read(content)
        except (StoreError, TimeoutError, msgspec.MsgspecError) as error:
            log.warning("alert.not_recalled", error=str(error) or "no answer in time")
            return False
        self._known = {alert.key: alert for alert in memory.alerts}
        self._gap_ms = memory.gap_ms
        for told in memory.marks:
            if (of := self._marks.get(told.carrier)) is not None:
                of[told.key] = tuple(dict.fromkeys((*told.marks, *of.get(told.key, ()))))
        return True

    async def _save(self) -> None:
        """Waits for it for a moment only; what does not succeed is done again with the next look."""
        if self._saving is None and self._is_dirty and self._leads:
            self._is_dirty = False
            memory = Memory(
                alerts=list(self._known.values()), gap_ms=self._gap_ms, marks=list(self._known_marks())
            )
            saving = self._store.remember_alerts(msgspec.json.encode(memory))
            self._saving = asyncio.ensure_future(saving)
        if self._saving is None:
            return
        await asyncio.wait([self._saving], timeout=STORE_TIMEOUT_S)
        if self._saving.done():
            saved, self._saving = self._saving, None
            try:
                saved.result()
            except LeaseLostError:  # another replica tells them, and remembers what it has told
                self._is_dirty = True
            except StoreError as error:
                self._is_dirty = True
                hint = "after a restart it may be told again, or its end not at all"
                self._complaints.tell(
                    "save", log.warning, "alert.not_remembered", error=str(error), hint=hint
                )

    def _known_marks(self) -> Iterator[Marks]:
        """Of alerts that there are: what is not known any more will not end."""
        for carrier, of_alerts in self._marks.items():
            for key, marks in of_alerts.items():
                if key in self._known:
                    yield Marks(carrier=carrier, alert=key.alert, sink=key.sink, marks=marks)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(TICK_S):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()


def _read(content: bytes | None) -> Memory:
    return Memory() if content is None else msgspec.json.decode(content, type=Memory)
