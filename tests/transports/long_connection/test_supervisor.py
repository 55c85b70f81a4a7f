"""Keeping the connection: how long is waited after what, what is said, and that it always comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from reserve_listener.errors import ConfigError, RefusedAtStartError, StoreError
from reserve_listener.model import State
from reserve_listener.simulator import Simulator, patience, sample_event
from reserve_listener.transports.long_connection.failures import ConnectionLostError, EndpointError
from reserve_listener.transports.long_connection.supervisor import Backoff, Supervisor
from reserve_listener.transports.long_connection.timing import Timing
from tests.transports.long_connection.test_long_connection import Taker, make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from reserve_listener.transports.long_connection.connection import LongConnection

BUSY = EndpointError("busy", code=1)
WRONG = EndpointError("wrong secret", code=514)
FULL = EndpointError("full", code=1000040350)
FORBIDDEN = InvalidStatus(Response(403, "", Headers({"handshake-status": "403", "handshake-msg": "no"})))


@dataclass(frozen=True)
class Lost:
    """A connection that opens, lasts so long, and is lost."""

    after_s: float = 1.0
    by_server: bool = False
    timing: Timing | None = None


class Over(Exception):  # noqa: N818  # the script's end is no error
    """The script has no further connection."""


class Scripted:
    """A connection that does what its line of the script says."""

    def __init__(self, stage: Stage, line: Lost | Exception | None, timing: Timing) -> None:
        self.timing = timing
        self.last_frame_s: float | None = None
        self.calls: list[str] = []
        self._stage = stage
        self._line = line

    async def open(self) -> None:
        self.calls.append("open")
        if isinstance(self._line, Lost) and self._line.timing is not None:
            self.timing = self._line.timing
        if isinstance(self._line, Exception):
            raise self._line

    async def wait_lost(self) -> ConnectionLostError:
        if self._line is None:
            self._stage.script_is_over.set()
            await asyncio.Event().wait()
        assert isinstance(self._line, Lost)
        self._stage.now += self._line.after_s
        return ConnectionLostError("it broke", by_server=self._line.by_server)

    async def probe(self) -> None:
        self.calls.append("probe")

    def stop_receiving(self) -> None:
        self.calls.append("stop_receiving")

    async def flush(self) -> None:
        self.calls.append("flush")

    async def close(self) -> None:
        self.calls.append("close")


class Stage:
    """A supervisor with a scripted connection, and a clock that only its sleeps move."""

    def __init__(
        self,
        *script: Lost | Exception,
        jitter: float = 1.0,
        app_known: bool | Exception = True,
        on_connected: Callable[[], Any] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []
        self.states: list[State] = []
        self.connections: list[Scripted] = []
        self.told_connected = 0
        self.script_is_over = asyncio.Event()
        self._lines = iter(script)
        self._app_known = app_known
        self._hook = on_connected
        self.supervisor = Supervisor(
            self._connect,
            backoff=backoff or Backoff(),
            app_known=self._known,
            on_connected=self._connected,
            sleep=self._sleep,
            jitter=lambda: jitter,
            clock=lambda: self.now,
        )

    async def _connect(self, timing: Timing) -> Scripted:
        line = next(self._lines, None)
        if isinstance(line, ConfigError):
            raise line
        self.connections.append(Scripted(self, line, timing))
        return self.connections[-1]

    async def _known(self) -> bool:
        if isinstance(self._app_known, Exception):
            raise self._app_known
        return self._app_known

    async def _connected(self) -> None:
        self.told_connected += 1
        self.states.append(self.supervisor.state)
        if self._hook is not None:
            self._hook()

    async def _sleep(self, seconds: float) -> None:
        self.states.append(self.supervisor.state)
        self.slept.append(round(seconds, 6))
        self.now += seconds

    async def play(self) -> list[dict[str, Any]]:
        """Run to the end of the script, where a connection stays up; what was logged on the way."""
        with capture_logs() as lines:
            running = asyncio.create_task(self.supervisor.run())
            ended = asyncio.create_task(self.script_is_over.wait())
            await asyncio.wait([running, ended], timeout=patience(5), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            running.cancel()
            try:
                await running
            except asyncio.CancelledError:
                assert self.script_is_over.is_set()
        return [dict(line) for line in lines]


# -- how long -----------------------------------------------------------------------------------------------------------------


async def test_the_backoff_doubles_up_to_its_cap() -> None:
    """Failures that may pass are retried after at most 1, 2, 4 … seconds, never more than the cap, for ever."""
    stage = Stage(*[BUSY] * 100)
    await stage.play()
    assert stage.slept[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert set(stage.slept[8:]) == {60}
    assert len(stage.slept) == 100


@pytest.mark.parametrize(("jitter", "slept"), [(0.0, [0, 0, 0]), (0.5, [0.5, 1, 2])])
async def test_the_backoff_has_full_jitter(jitter: float, slept: list[float]) -> None:
    """Each wait is anywhere between nothing and its ceiling."""
    stage = Stage(BUSY, BUSY, BUSY, jitter=jitter)
    await stage.play()
    assert stage.slept == slept


@pytest.mark.parametrize(("jitter", "slept"), [(0.0, 240.0), (0.5, 300.0), (1.0, 360.0)])
@pytest.mark.parametrize("error", [WRONG, FULL, FORBIDDEN, ConfigError("no such file")])
async def test_a_refusal_is_waited_out_slowly(error: Exception, jitter: float, slept: float) -> None:
    """What somebody has to mend is tried again at the slow pace, give or take a fifth, however often."""
    stage = Stage(error, error, error, jitter=jitter)
    await stage.play()
    assert stage.slept == [slept] * 3


async def test_the_backoff_begins_anew_after_a_stable_connection() -> None:
    """A connection that lasted a minute sets the backoff back; after it the retry is at once."""
    stage = Stage(BUSY, BUSY, BUSY, Lost(60.0), BUSY, BUSY)
    await stage.play()
    assert stage.slept == [1, 2, 4, 1, 2]


async def test_a_short_connection_does_not_reset_the_backoff() -> None:
    """One that was lost before the minute was over counts as a failure more."""
    stage = Stage(BUSY, BUSY, Lost(59.9), BUSY)
    await stage.play()
    assert stage.slept == [1, 2, 4, 8]


async def test_a_local_loss_is_retried_at_once() -> None:
    """The first loss that is not the server's costs no wait, stable or not; one that comes again and again does."""
    stage = Stage(Lost(5.0), Lost(5.0), Lost(5.0), Lost(100.0))
    await stage.play()
    assert stage.slept == [0, 2, 4]


@pytest.mark.parametrize("lasted_s", [5.0, 500.0])
async def test_the_nonce_spreads_the_retry_after_the_servers_close(lasted_s: float) -> None:
    """After a close by the server, and only then, the first retry waits up to the nonce that the server wished."""
    timing = Timing(reconnect_nonce_s=17.0)
    stage = Stage(Lost(lasted_s, by_server=True, timing=timing), jitter=0.5)
    await stage.play()
    assert stage.slept == [8.5]


async def test_the_nonce_is_for_the_first_retry() -> None:
    """A server that closes again and again is met with backoff, not with the nonce."""
    stage = Stage(Lost(5.0, by_server=True), Lost(5.0, by_server=True), BUSY)
    await stage.play()
    assert stage.slept == [30, 2, 4]


@pytest.mark.parametrize(("interval_s", "slept"), [(0.0, [1, 2, 4]), (3.0, [3, 3, 4]), (120.0, [60, 60, 60])])
async def test_the_interval_is_a_lower_bound(interval_s: float, slept: list[float]) -> None:
    """No retry but the first comes before the server's ReconnectInterval, which counts up to the cap."""
    stage = Stage(Lost(100.0, timing=Timing(reconnect_interval_s=interval_s)), BUSY, BUSY, BUSY)
    await stage.play()
    assert stage.slept == slept


async def test_a_flapping_link_does_not_wait_for_the_interval() -> None:
    """The platform's interval is for attempts that fail: a link that breaks again is tried with backoff alone."""
    timing = Timing(reconnect_interval_s=120.0)
    stage = Stage(
        Lost(after_s=1, timing=timing), Lost(after_s=1, timing=timing), Lost(after_s=1, timing=timing)
    )
    await stage.play()
    assert stage.slept == [0.0, 2.0, 4.0]


async def test_the_interval_of_an_answer_counts_though_the_handshake_failed() -> None:
    """What the endpoint wished is followed also when no connection came of it."""
    stage = Stage(BUSY)
    original = Scripted.open

    async def open_(self: Scripted) -> None:
        self.timing = Timing(reconnect_interval_s=9.0)
        await original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scripted, "open", open_)
        await stage.play()
    assert stage.slept == [9]


@pytest.mark.parametrize(
    ("wish", "slept"), [("0", 1.0), ("7", 7.0), ("200", 200.0), ("86400", 300.0), ("soon", 1.0)]
)
async def test_retry_after_is_a_lower_bound(wish: str, slept: float) -> None:
    """The server's Retry-After is waited for, up to the pace at which refusals are retried."""
    stage = Stage(EndpointError("HTTP 503", status=503, retry_after=wish))
    await stage.play()
    assert stage.slept == [slept]


async def test_a_wish_does_not_shorten() -> None:
    """A Retry-After shorter than the slow pace does not hasten a refusal."""
    stage = Stage(EndpointError("full", code=1000040350, retry_after="5"))
    await stage.play()
    assert stage.slept == [360]


async def test_timing_is_handed_on() -> None:
    """What one connection learned of the server's wishes the next one starts with."""
    timing = Timing(ping_interval_s=33.0)
    stage = Stage(Lost(timing=timing), BUSY)
    await stage.play()
    assert [connection.timing for connection in stage.connections] == [timing] * 3


# -- refused at start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [403, 514, 1000040344, 1000040346])
async def test_an_unknown_app_that_is_refused_is_final(code: int) -> None:
    """An app that this store has never seen connected ends the daemon, with the reason and what to do."""
    stage = Stage(EndpointError("no", code=code), app_known=False)
    with capture_logs(), pytest.raises(RefusedAtStartError, match=f"code {code}: no. ") as caught:
        await asyncio.wait_for(stage.supervisor.run(), patience(5))
    assert caught.value.exit_code == 77
    assert stage.slept == []
    assert stage.connections[0].calls == ["open", "close"]


@pytest.mark.parametrize(
    "error",
    [BUSY, FULL, FORBIDDEN, EndpointError("x", code=1000040343), EndpointError("HTTP 403", status=403),
     EndpointError("busy", code=1000040345), EndpointError("new", code=77), TimeoutError(), ConfigError("no such file"),
     OSError("no route")],
)  # fmt: skip
async def test_nothing_else_is_final(error: Exception) -> None:
    """Busy, full, unknown codes, a refused handshake, the network: also for an unknown app these are waited out."""
    stage = Stage(error, app_known=False)
    await stage.play()
    assert len(stage.slept) == 1


async def test_a_known_app_that_is_refused_waits() -> None:
    """Once an app has been connected a refusal is for somebody to mend while the daemon waits."""
    stage = Stage(WRONG, app_known=True)
    await stage.play()
    assert stage.slept == [360]


@pytest.mark.parametrize("code", [1, 1000040343, 1000040345, 77])
@pytest.mark.parametrize("known", [True, False])
async def test_a_busy_platform_is_asked_again_soon(code: int, *, known: bool) -> None:
    """Busy and unknown codes are met with the ordinary backoff, not at the pace of what somebody has to mend."""
    stage = Stage(*[EndpointError("system busy", code=code)] * 3, app_known=known)
    await stage.play()
    assert stage.slept == [1, 2, 4]


async def test_a_store_that_cannot_say_is_not_final() -> None:
    """Whether the app is known cannot be read: nothing is concluded from that, and it is tried again."""
    stage = Stage(WRONG, app_known=StoreError("disk I/O error"))
    await stage.play()
    assert len(stage.slept) == 1


@pytest.mark.parametrize("hanging", ["connect", "open"])
@pytest.mark.parametrize("known", [True, False])
async def test_an_attempt_that_hangs_has_an_end(hanging: str, *, known: bool) -> None:
    """Whatever hangs on the way (a secret's disk, a library), the next attempt has a known time, and it succeeds."""
    stage = Stage(Lost(), Lost(), app_known=known)
    stage.supervisor._attempt_timeout_s = 0.05
    connect = stage._connect
    closed: list[str] = []

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def first_hangs(timing: Timing) -> Scripted:
        stage.supervisor._connect = connect
        if hanging == "connect":
            await hang()
        connection = await connect(timing)
        connection.open = hang  # type: ignore[method-assign]
        connection.calls = closed
        return connection

    stage.supervisor._connect = first_hangs
    lines = await stage.play()
    (waiting, *_) = [line for line in lines if line["event"] == "connection.waiting"]
    assert (waiting["reason"], waiting["delay_s"]) == ("the attempt took longer than 0.05 s", 1.0)
    assert closed == (["close"] if hanging == "open" else [])
    assert stage.connections[-1].calls == ["open"]


# -- what is given back -----------------------------------------------------------------------------------------------------


async def test_each_connection_is_closed_before_the_next() -> None:
    """Whatever became of a connection, it was closed once, and only the last is up."""
    stage = Stage(BUSY, Lost(), WRONG, Lost(100.0))
    await stage.play()
    assert [connection.calls for connection in stage.connections] == [["open", "close"]] * 4 + [["open"]]


async def test_a_connection_that_cannot_be_noted_stays() -> None:
    """Should the store fail as the connection is noted, that is one line and the connection stays up."""

    def note() -> None:
        raise StoreError("disk full")

    stage = Stage(on_connected=note)
    lines = await stage.play()
    assert [connection.calls for connection in stage.connections] == [["open"]]
    assert lines[-1] == {"event": "connection.not_recorded", "log_level": "error", "error": "disk full"}


async def test_an_error_of_our_own_leaves_no_connection_behind() -> None:
    """Whatever else fails once the connection is up, it is closed before the next one is opened."""
    failures = itertools.chain([RuntimeError("a bug")], itertools.repeat(None))

    def note() -> None:
        error = next(failures)
        if error is not None:
            raise error

    stage = Stage(Lost(), on_connected=note)
    await stage.play()
    assert [connection.calls for connection in stage.connections] == [["open", "close"], ["open"]]


async def test_the_end_is_orderly() -> None:
    """`stop_accepting` stops the hearing, `close` sends what is ready and closes, once; both may come before any connection."""
    stage = Stage()
    stage.supervisor.stop_accepting()
    await stage.supervisor.close()
    await stage.play()
    stage.supervisor.stop_accepting()
    await stage.supervisor.close()
    await stage.supervisor.close()
    assert stage.connections[0].calls == ["open", "stop_receiving", "flush", "close"]


@pytest.mark.parametrize("script", [(), (BUSY,), (WRONG,), (Lost(500.0, by_server=True),)], ids=str)
async def test_a_cancellation_goes_through_at_once(script: tuple[Any, ...]) -> None:
    """Connected, or waiting whatever for, the task ends in the moment in which it is cancelled."""
    stage = Stage(*script)
    asleep = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    stage.supervisor._sleep = sleep
    with capture_logs():
        running = asyncio.create_task(stage.supervisor.run())
        await asyncio.wait_for((asleep if script else stage.script_is_over).wait(), patience(5))
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=patience(0.5))
    assert done
    assert running.cancelled()


async def test_a_wake_from_sleep_ends_the_wait() -> None:
    """When the machine wakes up while the next attempt is waited for, it is made at once."""
    stage = Stage(FULL)
    asleep = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    stage.supervisor._sleep = sleep
    with capture_logs():
        running = asyncio.create_task(stage.supervisor.run())
        await asyncio.wait_for(asleep.wait(), patience(5))
        assert stage.supervisor.state.name == "waiting"
        stage.supervisor.on_resume()
        await asyncio.wait_for(stage.script_is_over.wait(), patience(5))
        running.cancel()
        await asyncio.wait([running])
    assert len(stage.connections) == 2


async def test_a_wake_from_sleep_probes_the_connection() -> None:
    """When the machine wakes up while it is connected, the connection is asked whether it lives."""
    stage = Stage()
    await stage.play()
    stage.supervisor.on_resume()
    await asyncio.sleep(0)
    assert stage.connections[0].calls == ["open", "probe"]


# -- what is said -----------------------------------------------------------------------------------------------------------


async def test_each_change_of_state_is_a_line() -> None:
    """From the first attempt over a loss to the next connection, every step is one line with its facts."""
    stage = Stage(BUSY, Lost(12.34, timing=Timing(ping_interval_s=30.0)), FULL)
    lines = await stage.play()
    waiting = {"event": "connection.waiting", "log_level": "warning"}
    connecting = {"event": "connection.connecting", "log_level": "info"}
    connected = {"event": "connection.connected", "log_level": "info", "ping_interval_s": 30.0}
    assert lines == [
        connecting,
        waiting | {"reason": "the endpoint refused with code 1: busy", "attempt": 1, "delay_s": 1.0},
        connecting,
        connected,
        {"event": "connection.lost", "log_level": "warning", "reason": "it broke", "lasted_s": 12.3},
        waiting | {"reason": "it broke", "attempt": 2, "delay_s": 2.0},
        connecting,
        {
            "event": "connection.waiting",
            "log_level": "error",
            "reason": "the endpoint refused with code 1000040350: full",
            "attempt": 3,
            "delay_s": 360.0,
            "hint": "an app may have at most 50 connections: stop other clients of this app",
        },
        connecting,
        connected,
    ]


async def test_each_state_is_named() -> None:
    """At any time the state says what is the case, since when, why, and until when; and what has just happened."""
    stage = Stage(BUSY, Lost(100.0, by_server=True))
    assert stage.supervisor.state == State("starting", 1_000.0)
    await stage.play()
    assert stage.states == [
        State("waiting", 1_000.0, 1_001.0, "the endpoint refused with code 1: busy", change="failed"),
        State("connected", 1_001.0, change="connected"),
        State("waiting", 1_101.0, 1_131.0, "it broke"),
        State("connected", 1_131.0, change="connected"),
    ]
    assert stage.told_connected == 2


# -- with the real connection -------------------------------------------------------------------------------------------------


class Live:
    """A supervisor over the real connection to a simulated platform; its backoff is too short to be waited for."""

    def __init__(self, simulator: Simulator, *, liveness_s: float = 60.0) -> None:
        self.taken = Taker()
        self.known = True
        self._simulator, self._liveness_s = simulator, liveness_s
        self.supervisor = Supervisor(
            self._connect,
            backoff=Backoff(base_s=0.02, cap_s=0.05, refused_s=0.05),
            app_known=self._known,
            on_connected=self._connected,
        )

    async def _known(self) -> bool:
        return self.known

    async def _connect(self, timing: Timing) -> LongConnection:
        return make(
            self._simulator, self.taken, liveness_s=self._liveness_s, timing=timing, endpoint_timeout=0.3
        )

    async def _connected(self) -> None:
        self.known = True


@contextlib.asynccontextmanager
async def live(simulator: Simulator, *, liveness_s: float = 60.0) -> AsyncIterator[Live]:
    running = Live(simulator, liveness_s=liveness_s)
    with capture_logs():
        task = asyncio.create_task(running.supervisor.run())
        try:
            yield running
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await running.supervisor.close()


FAULTS: list[dict[str, Any]] = [
    {"endpoint_code": 514},
    {"endpoint_code": 1000040345},
    {"endpoint_code": 1000040350},
    {"endpoint_code": 514, "endpoint_status": 401},
    {"endpoint_status": 403},
    {"endpoint_status": 503},
    {"endpoint_stall": 60.0},
    {"endpoint_body": b"<html>"},
    {"endpoint_body": b'{"code":0,"data":{"URL":"ws://127.0.0.1:1/?device_id=1&service_id=2"}}'},
    {"handshake_refuse": (403, "forbidden")},
    {"handshake_refuse": (514, "full", 1000040350)},
    {"handshake_refuse": 502},
]


@pytest.mark.parametrize("faults", FAULTS, ids=str)
async def test_a_platform_that_fails_and_then_is_well(faults: dict[str, Any]) -> None:
    """However the platform fails while we reconnect, the connection is back once it is well, and events flow."""
    async with Simulator(client_config={"ReconnectNonce": 0}) as simulator, live(simulator) as running:
        await simulator.connected()
        well = {name: getattr(simulator.faults, name) for name in faults}
        for name, value in faults.items():
            setattr(simulator.faults, name, value)
        calls = simulator.endpoint_calls
        simulator.abort()
        await simulator.until(lambda: simulator.endpoint_calls >= calls + 3)
        assert simulator.connections == 0
        for name, value in well.items():
            setattr(simulator.faults, name, value)
        await simulator.connected()
        assert await simulator.push(sample_event(), retry=False).over() == 200
        assert len(running.taken.taken) == 1


async def test_a_half_open_connection_is_replaced() -> None:
    """A connection whose other end fell silent is found and another one made, over which events flow."""
    async with Simulator() as simulator, live(simulator, liveness_s=0.9):
        await simulator.connected()
        simulator.stall_open()
        await simulator.until(lambda: simulator.connects == 2)
        # The dead one is still open at the platform until it notices; it must not be given the push.
        await simulator.until(lambda: simulator.connections == 1)
        assert await simulator.push(sample_event(), retry=False).over() == 200


async def test_a_server_that_closes_again_and_again() -> None:
    """Ten closes by the server and ten resets later the connection is up, one at a time."""
    async with Simulator(client_config={"ReconnectNonce": 0}) as simulator, live(simulator):
        for number in range(20):
            await simulator.until(lambda count=number + 1: simulator.connects == count)  # type: ignore[misc]
            await simulator.drop(abort=bool(number % 2))
        await simulator.until(lambda: simulator.connects == 21)
        assert simulator.connections == 1


async def test_refused_at_start_with_the_real_connection() -> None:
    """An unknown app with a wrong secret ends `run` with the error for people; a known one would wait."""
    async with Simulator() as simulator:
        simulator.faults.endpoint_code = 514
        running = Live(simulator)
        running.known = False
        with (
            capture_logs(),
            pytest.raises(RefusedAtStartError, match=r"check lark\.app_id and lark\.app_secret"),
        ):
            await asyncio.wait_for(running.supervisor.run(), patience(5))


async def test_cancelled_while_connecting_for_real() -> None:
    """Cancelled while the endpoint stalls, the supervisor ends at once and leaves no task behind."""
    before = asyncio.all_tasks()
    async with Simulator() as simulator:
        simulator.faults.endpoint_stall = 60.0
        running = Live(simulator)
        with capture_logs():
            task = asyncio.create_task(running.supervisor.run())
            await simulator.until(lambda: simulator.endpoint_calls == 1)
            task.cancel()
            async with asyncio.timeout(patience(5)):
                await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == before
