"""A world in which everything fails in turn, and the oracle that says afterwards what the daemon owed.

What must stay true: the oracle knows only what went in (pushes), what was promised (answers of 200) and what came out
(log, file, posts). Of the store it takes the order of the events and nothing else that the daemon could be wrong about.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
import sqlite3
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator, sample_event
from tests.conftest import NO_WAITS
from tests.daemon_process import Daemon, running, until, write_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send

    from reserve_listener.simulator import Received

SCOPES = 24
UNANSWERED_PUSHES = 300
"""More are not begun: a platform pushes again for hours, and so does this one, but the test shall end."""

PUSHED_AGAIN = (0.2, 0.4) + (0.6,) * 2_000
ANSWER_TIMEOUT_S = 1.0
SINK_TIMEOUT_S = 0.5
NEVER_S = 60.0
"""An answer after so long finds nobody who waits for it."""

FILES = ("log.jsonl", "events.jsonl", "events.db-wal", "events.db", "events.db-inbox-wal", "events.db-inbox")
REFUSED_CODES = (1, 403, 514, 1_000_040_350)
PATIENCE_S = 90.0
"""For what has to come: a delivery that failed five times in a row is tried again after up to 32 s."""

LARK = "refused_backoff = 0.2\nendpoint_timeout = 2"
HTTP_AND_DELIVERY = f"timeout = {SINK_TIMEOUT_S}\n\n[delivery]\ndrain_timeout = 1"


# -- the oracle ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Post:
    """One request of the http sink; `accepted` when it was answered 200, as far as the receiver can know."""

    event_id: str
    body: bytes
    accepted: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is left when all is over. `stored`: ids in the order of the store; `log`: lines of the log sink."""

    pushed: Mapping[str, dict[str, Any]]
    acknowledged: set[str]
    stored: Sequence[str]
    integrity: str
    unsettled: int
    dead: int
    log: Sequence[dict[str, Any]]
    file: bytes
    posts: Sequence[Post]
    stderr: str


def problems(evidence: Evidence) -> list[str]:
    """Each promise that was broken, in a sentence; none: the daemon kept its word."""
    lines, torn = _file_lines(evidence.file)
    sinks = {
        "log": [(line["event_id"], True) for line in evidence.log],
        "file": [(event_id, True) for event_id, _ in lines],
        "http": [(post.event_id, post.accepted) for post in evidence.posts],
    }
    found = [*torn, *_store_problems(evidence), *_body_problems(evidence, lines)]
    for sink, deliveries in sinks.items():
        found += _set_problems(sink, deliveries, evidence)
        found += _order_problems(sink, deliveries, evidence)
    if evidence.stderr:
        found.append(f"standard error: {evidence.stderr[-2_000:]}")
    return found


def _file_lines(content: bytes) -> tuple[list[tuple[str, bytes]], list[str]]:
    """The file's whole lines with their ids, and a sentence for each that is not whole."""
    lines: list[tuple[str, bytes]] = []
    torn = [] if content.endswith(b"\n") or not content else ["file: the last line has no end"]
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            lines.append((json.loads(line)["id"], line))
        except (ValueError, KeyError, TypeError):
            torn.append(f"file: line {number} is not whole: {line[:80]!r}")
    return lines, torn


def _store_problems(evidence: Evidence) -> list[str]:
    found = [] if evidence.integrity == "ok" else [f"store: damaged: {evidence.integrity}"]
    if evidence.unsettled:
        found.append(f"store: {evidence.unsettled} deliveries are not settled")
    if evidence.dead:
        found.append(f"store: {evidence.dead} dead letters")
    twice = [event_id for event_id, count in Counter(evidence.stored).items() if count > 1]
    return [
        *found,
        *_named("store: stored twice", twice),
        *_named("store: answered 200 and not stored", evidence.acknowledged - set(evidence.stored)),
        *_named("store: never pushed", set(evidence.stored) - set(evidence.pushed)),
    ]


def _set_problems(sink: str, deliveries: Iterable[tuple[str, bool]], evidence: Evidence) -> list[str]:
    seen = list(deliveries)
    accepted = {event_id for event_id, taken in seen if taken}
    return [
        *_named(f"{sink}: answered 200 and not delivered", evidence.acknowledged - accepted),
        *_named(f"{sink}: stored and not delivered", set(evidence.stored) - accepted),
        *_named(
            f"{sink}: delivered and never pushed", {event_id for event_id, _ in seen} - set(evidence.pushed)
        ),
        *_named(
            f"{sink}: delivered and not stored", {event_id for event_id, _ in seen} - set(evidence.stored)
        ),
    ]


def _order_problems(sink: str, deliveries: Iterable[tuple[str, bool]], evidence: Evidence) -> list[str]:
    """Nothing is tried before all that is older in its scope was accepted; what was accepted may come again."""
    place: dict[str, int] = {}
    events_of: Counter[str] = Counter()
    for event_id in evidence.stored:
        if event_id in evidence.pushed:
            scope = _scope(evidence.pushed[event_id])
            place[event_id] = events_of[scope]
            events_of[scope] += 1
    accepted: Counter[str] = Counter()
    early = []
    for event_id, taken in deliveries:
        if event_id not in place:
            continue  # a problem of its own
        scope = _scope(evidence.pushed[event_id])
        if place[event_id] > accepted[scope]:
            early.append(event_id)
        elif place[event_id] == accepted[scope]:
            accepted[scope] += taken
    return _named(f"{sink}: before an older one of its scope", early)


def _body_problems(evidence: Evidence, lines: Iterable[tuple[str, bytes]]) -> list[str]:
    bodies: dict[str, set[bytes]] = {}
    for event_id, body in [*lines, *((post.event_id, post.body) for post in evidence.posts)]:
        bodies.setdefault(event_id, set()).add(body)
    differing = [event_id for event_id, each in bodies.items() if len(each) > 1]
    events = {event_id: [json.loads(body) for body in each] for event_id, each in bodies.items()}
    misnamed = [event_id for event_id, each in events.items() if any(e["id"] != event_id for e in each)]
    wrong = [
        event_id
        for event_id, each in events.items()
        if event_id in evidence.pushed and any(not _says(e, evidence.pushed[event_id]) for e in each)
    ]
    logged_wrong = [
        line["event_id"]
        for line in evidence.log
        if line["event_id"] in events and line["data"] != events[line["event_id"]][0]["data"]
    ]
    return [
        *_named("bodies of one id differ", differing),
        *_named("http: webhook-id is not the body's id", misnamed),
        *_named("body of another push", wrong),
        *_named("log: other data than in the body", logged_wrong),
    ]


def _says(event: dict[str, Any], envelope: dict[str, Any]) -> bool:
    """Whether a body is that of its own push: each push has a number of days that no other has."""
    pushed = envelope["event"]["time_config"]["days_in_advance"]
    return bool(
        event["subject"] == _scope(envelope) and event["data"]["time_config"]["days_in_advance"] == pushed
    )


def _scope(envelope: dict[str, Any]) -> str:
    return str(envelope["event"]["scope_id"])


def _named(problem: str, event_ids: Iterable[str]) -> list[str]:
    wrong = sorted(event_ids)
    return [f"{problem}: {len(wrong)}, e.g. {', '.join(wrong[:3])}"] if wrong else []


# -- the world -------------------------------------------------------------------------------------------------------------


class Hook:
    """How the receiver of the http sink answers: well, but with probability `trouble` in one of many bad ways."""

    def __init__(self, chance: random.Random) -> None:
        self.posts: list[Post] = []
        self.trouble = 0.0
        self.abort: Callable[[], None] = lambda: None
        self._chance = chance

    def answer(self, received: Received) -> Answer:
        """Called for each request, in the order of arrival."""
        accepted, answer = self._decide()
        self.posts.append(
            Post(event_id=received.headers["webhook-id"], body=received.body, accepted=accepted)
        )
        return answer

    def _decide(self) -> tuple[bool, Answer]:
        if self._chance.random() >= self.trouble:
            return True, Answer()
        match self._chance.choice(["error", "throttle", "silence", "reset", "late"]):
            case "error":
                return False, Answer(status=500)
            case "throttle":
                return False, Answer(status=429, headers={"Retry-After": "1"})
            case "silence":  # processed, but nobody is told
                return False, Answer(delay=NEVER_S)
            case "reset":  # as a receiver that dies after it has processed
                self.abort()
                return False, Answer(delay=NEVER_S)
            case _:
                return True, Answer(delay=self._chance.random() * SINK_TIMEOUT_S / 2)


def _quiet(receiver: Receiver) -> ASGIApp:
    """A client that is killed in the middle of a request is no error of the server's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await receiver(scope, receive, send)

    return app


class StuckError(Exception):
    """What has to come does not come."""


class World:
    """One daemon with a platform, a receiver and a folder of its own, and a seeded course of faults.

    `run` returns the problems. What was done is in `told` (and in history.txt of the folder), counted in `counts`.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self._folder = folder
        self._seed = seed
        self._chance = self._stream("lives")
        self._pushed: dict[str, dict[str, Any]] = {}
        self._problems: list[str] = []
        self._log_start = 0
        self._platform = Simulator(
            retry_delays=PUSHED_AGAIN,
            answer_timeout=ANSWER_TIMEOUT_S,
            client_config=dict(NO_WAITS),
            seed=seed,
        )
        self._hook = Hook(self._stream("hook"))
        self._server = HttpServer(_quiet(Receiver(self._hook.answer)))
        self._hook.abort = self._server.abort
        self._daemon: Daemon

    async def run(self, kills: int) -> list[str]:
        """Live through so many kills, then get well, then be judged."""
        self._folder.mkdir()
        try:
            await self._run(kills)
        except* StuckError as group:
            self._problems += [str(error) for error in group.exceptions]
        else:
            self._problems += problems(self._evidence())
        finally:
            (self._folder / "history.txt").write_text("\n".join(self.told))
        return [f"{self._folder} (seed {self._seed}): {problem}" for problem in self._problems]

    async def _run(self, kills: int) -> None:
        async with self._platform, self._server:
            config = write_config(
                self._folder, self._platform, self._server.url, lark=LARK, more=HTTP_AND_DELIVERY
            )
            async with running(self._folder, config) as self._daemon:
                await self._suffer(kills)
                await self._recover()

    async def _suffer(self, kills: int) -> None:
        await self._until("it is connected", lambda: self._platform.connections > 0)
        # Until the store knows the app, a refusal is final by design.
        await self._until("the app is known", lambda: bool(self._daemon.query("SELECT 1 FROM apps")))
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(work, name=f"world-{name}")
                for name, work in (
                    ("pushes", self._push()),
                    ("network", self._trouble_network()),
                    ("hook", self._trouble_hook()),
                )
            ]
            while self.counts["kill"] < kills:
                await self._live()
                await self._end_life()
            for task in beside:
                task.cancel()

    async def _recover(self) -> None:
        """No more faults: everything pushed is answered, everything stored is delivered, and a fresh event flows."""
        self._tell("recovery")
        await self._until("it is connected", lambda: self._platform.connections > 0)
        self._platform.push(self._new_event(self._stream("fresh")))
        await self._until("all is answered 200", lambda: set(self._pushed) <= self._platform.acknowledged)
        await self._until("nothing is pending", lambda: self._daemon.pending() == 0)
        await self._stop()

    # -- pushes --------------------------------------------------------------------------------------------------------------

    async def _push(self) -> None:
        chance = self._stream("pushes")
        while True:
            for _ in range(chance.randrange(1, 8)):
                if len(self._pushed) - len(self._platform.acknowledged) < UNANSWERED_PUSHES:
                    self._platform.push(self._new_event(chance), parts=chance.choice([1, 1, 1, 3]))
            await asyncio.sleep(chance.random() * 0.12)  # a rate, not a hope

    def _new_event(self, chance: random.Random) -> dict[str, Any]:
        envelope = sample_event(scope_id=f"omm_{chance.randrange(SCOPES):032x}")
        envelope["event"]["time_config"]["days_in_advance"] = len(self._pushed)
        self._pushed[envelope["header"]["event_id"]] = envelope
        return envelope

    # -- lives ---------------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Some lives end before the daemon is connected, others after it has answered; in some the disk gets full."""
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.uniform(0.05, 1.2))
            return
        await self._more_answers()
        if self._chance.random() < 0.3:
            await self._fill_disk()
        await asyncio.sleep(self._chance.random() * 0.4)

    async def _end_life(self) -> None:
        await (self._stop() if self._chance.random() < 0.1 else self._kill())
        log = self._folder / "log.jsonl"
        self._log_start = log.stat().st_size
        await self._daemon.start()

    async def _kill(self) -> None:
        self._tell("kill")
        if self._alive():
            self._daemon.process.kill()
        code = await self._daemon.ended()
        if code != -signal.SIGKILL:
            self._problems.append(f"the daemon ended by itself with {code}")
        elif self._chance.random() < 0.3:
            self._tear()

    def _tear(self) -> None:
        """As if the kill had come in the middle of a write to a file, whose moment is too short to be met."""
        inbox = self._folder / "events.db-inbox-wal"
        if inbox.exists() and self._chance.random() < 0.5:
            self._tell("torn batch")
            with inbox.open("ab") as log:
                log.write(inbox.read_bytes()[-self._chance.randrange(1, 5_000) :])
        path = self._folder / "events.jsonl"
        content = path.read_bytes() if path.exists() else b""
        if content.endswith(b"\n"):
            self._tell("torn line")
            line = content.splitlines()[-1]
            with path.open("ab") as file:
                file.write(line[: self._chance.randrange(1, len(line))])

    async def _stop(self) -> None:
        self._tell("stop")
        started = self._has_started()
        code = await self._daemon.stop() if self._alive() else await self._daemon.ended()
        # Before the handlers are installed the signal does what it does to any process.
        if code != 0 and (started or code != -signal.SIGTERM):
            self._problems.append(f"SIGTERM (started: {started}) ended with {code}")

    def _alive(self) -> bool:
        return self._daemon.process.returncode is None

    def _has_started(self) -> bool:
        with (self._folder / "log.jsonl").open("rb") as log:
            log.seek(self._log_start)
            return b'"daemon.started"' in log.read()

    async def _more_answers(self) -> None:
        answered = len(self._platform.acknowledged)
        await self._until("more is answered", lambda: len(self._platform.acknowledged) > answered)

    async def _until(self, what: str, condition: Callable[[], bool]) -> None:
        try:
            await until(lambda: not self._alive() or condition(), PATIENCE_S)
        except TimeoutError:
            raise StuckError(f"waited {PATIENCE_S:g} s in vain until {what}") from None
        if not self._alive():
            code, said = self._daemon.process.returncode, self._daemon.stderr()[-2_000:]
            raise StuckError(f"the daemon ended by itself with {code} before {what}: {said}")

    async def _fill_disk(self) -> None:
        """No file of the daemon grows beyond a size near that of one of its files: writes are cut short anywhere."""
        pid = self._daemon.process.pid
        files = [self._folder / name for name in FILES]
        room = self._chance.choice([path.stat().st_size for path in files if path.exists()])
        room += self._chance.randrange(4_000)
        self._tell("full disk", f"{room} bytes")
        try:
            unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, unlimited[1]))
            await asyncio.sleep(self._chance.uniform(0.1, 0.8))
            if self._chance.random() < 0.5:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
                self._tell("room again")
                await self._more_answers()
        except ProcessLookupError:
            pass  # it ended by itself: noted at the end of this life

    # -- what goes wrong around it -------------------------------------------------------------------------------------------

    async def _trouble_network(self) -> None:
        chance = self._stream("network")
        faults: list[Callable[[random.Random], Awaitable[None]]] = [
            self._reset,
            self._close,
            self._refuse,
            self._garble,
        ]
        while True:
            await asyncio.sleep(chance.uniform(0.1, 2.0))
            await chance.choice(faults)(chance)

    async def _reset(self, _: random.Random) -> None:
        self._tell("reset")
        self._platform.abort()

    async def _close(self, _: random.Random) -> None:
        self._tell("close")
        await self._platform.drop()

    async def _refuse(self, chance: random.Random) -> None:
        code, status, handshake = chance.choice(
            [*((code, 200, None) for code in REFUSED_CODES), (0, 503, None), (0, 200, 503)]
        )
        await self._for_a_while(
            chance, endpoint_code=code, endpoint_status=status, handshake_refuse=handshake
        )

    async def _garble(self, chance: random.Random) -> None:
        fault: dict[str, Any] = chance.choice(
            [{"duplicate": 0.5}, {"reorder": True}, {"split": 3}, {"garbage": True}, {"stall": True}]
        )
        await self._for_a_while(chance, **fault)

    async def _for_a_while(self, chance: random.Random, **faults: Any) -> None:
        in_force = self._platform.faults
        before = {name: getattr(in_force, name) for name in faults}
        self._tell("platform", str(faults))
        self._set(faults)
        if "endpoint_code" in faults:
            self._platform.abort()
        try:
            await asyncio.sleep(chance.uniform(0.1, 0.6))
        finally:
            self._set(before)

    def _set(self, faults: dict[str, Any]) -> None:
        for name, value in faults.items():
            setattr(self._platform.faults, name, value)

    async def _trouble_hook(self) -> None:
        chance = self._stream("trouble")
        try:
            while True:
                await asyncio.sleep(chance.uniform(0.2, 1.5))
                self._hook.trouble = chance.choice([0.2, 0.5, 1.0])
                self._tell("hook", f"trouble {self._hook.trouble}")
                await asyncio.sleep(chance.uniform(0.1, 0.5))
                self._hook.trouble = 0.0
        finally:
            self._hook.trouble = 0.0

    # -- what is told --------------------------------------------------------------------------------------------------------

    def _stream(self, name: str) -> random.Random:
        """Chances of their own for each task: how tasks interleave then changes nothing in what each of them does."""
        return random.Random(f"{self._seed}-{name}")

    def _tell(self, what: str, more: str = "") -> None:
        self.counts[what] += 1
        self.told.append(f"{asyncio.get_running_loop().time():.3f} {what} {more}".rstrip())

    def _evidence(self) -> Evidence:
        self.counts["pushed"] = len(self._pushed)
        self.counts["answered 200"] = len(self._platform.acknowledged)
        self.counts["posts"] = len(self._hook.posts)
        query = self._daemon.query
        return Evidence(
            pushed=self._pushed,
            acknowledged=self._platform.acknowledged,
            stored=[row[0] for row in query("SELECT event_id FROM events ORDER BY seq")],
            integrity=self._integrity(),
            unsettled=self._daemon.pending(),
            dead=query("SELECT count(*) FROM deliveries WHERE state = 2")[0][0],
            log=[line for line in self._daemon.log() if line["event"] == "reserve_config.updated"],
            file=(self._folder / "events.jsonl").read_bytes(),
            posts=self._hook.posts,
            stderr=self._daemon.stderr(),
        )

    def _integrity(self) -> str:
        connection = sqlite3.connect(self._folder / "events.db")
        try:
            return "; ".join(row[0] for row in connection.execute("PRAGMA integrity_check"))
        finally:
            connection.close()
