"""The exec sink: a command for each event, which says by its exit status what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

import structlog

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.redact import redact
from reserve_listener.sinks.exec.run import KEPT_BYTES, KILL_S, Ended, Run
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reserve_listener.model import Delivery

GRACE_S: Final = 3.0 + KILL_S
"""Beyond the command's own time: to start it, to kill it, to notice. What takes longer hangs in the kernel."""
SHOWN_CHARS: Final = 200
LATER: Final = os.EX_TEMPFAIL
NOT_STARTED: Final = frozenset({126, 127})
"""What a shell, or `env`, says of a program that it cannot start."""
PASSING: Final = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY, errno.EINTR, errno.ESTALE}
)
"""Why a program cannot be started now, while another time it can."""

log = structlog.get_logger("sink.exec")


class ExecSink:
    """Runs `command` with the event on its standard input. At most `max_in_flight` at once, also of those that are being killed."""

    batch_size = 1
    needs_raw = False

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        timeout_s: float = 30.0,
        max_in_flight: int = 1,
        secrets: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.max_in_flight = max_in_flight
        self._command = tuple(command)
        self._environment = environment
        self._timeout_s = timeout_s
        self._secrets = tuple(sorted(secrets, key=len, reverse=True))
        self._program = visible(command[0], SHOWN_CHARS)
        self._places = asyncio.Semaphore(max_in_flight)
        self._running: dict[Run, asyncio.Future[Ended]] = {}

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`. Cancelled, the command is killed."""
        for delivery in deliveries:
            try:
                async with asyncio.timeout(self._timeout_s + GRACE_S):
                    await self._places.acquire()
                    ended = await self._run(delivery.body)
            except TimeoutError:
                text = f"{self._program}: hangs in the system, which neither starts nor ends it: look at the disk that it is on"
                raise TransientDeliveryError(text) from None
            self._judge(ended, delivery.event_id)

    async def close(self) -> None:
        """Kill what runs."""
        running = list(self._running.items())
        for run, _ in running:
            run.stop()
        if running:
            await asyncio.wait([ending for _, ending in running], timeout=KILL_S)

    async def _run(self, body: bytes) -> Ended:
        loop = asyncio.get_running_loop()
        run = Run(self._command, environment=self._environment, stdin=body, timeout_s=self._timeout_s)
        ending: asyncio.Future[Ended] = loop.create_future()
        self._running[run] = ending

        def work() -> None:
            ended = Ended(not_started=OSError(errno.EIO, "what runs it has failed"))
            try:
                ended = run()
            finally:
                tell(ended)

        def tell(ended: Ended) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._ended, run, ended)

        # Its own thread, which nobody joins: one that hangs holds up neither other sinks nor the end of the daemon.
        try:
            threading.Thread(target=work, name=f"exec-{self.name}", daemon=True).start()
        except RuntimeError as error:  # as many as the system allows are there
            self._ended(run, Ended(not_started=OSError(errno.EAGAIN, str(error))))
        try:
            return await asyncio.shield(ending)
        finally:
            run.stop()

    def _ended(self, run: Run, ended: Ended) -> None:
        self._running.pop(run).set_result(ended)
        self._places.release()

    def _judge(self, ended: Ended, event_id: str) -> None:
        output = redact(ended.output.decode("utf-8", "replace"), self._secrets)
        if len(ended.output) == KEPT_BYTES and self._secrets:
            output = output[len(self._secrets[0]) :]  # what was cut may be the half of one
        log.debug(
            "exec.ended", sink=self.name, event_id=event_id, status=ended.status, output=visible(output)
        )
        if (error := self._meaning(ended, _last_line(output))) is not None:
            raise error

    def _meaning(self, ended: Ended, said: str) -> DeliveryError | None:
        """What an end means, as an error; None: the event is taken. `said`: the command's last line, which says why."""
        if ended.not_started is not None:
            return self._unstarted(ended.not_started)
        if ended.timed_out:
            text = f"not done within {self._timeout_s:g} s; it and all that it started are killed"
            return TransientDeliveryError(f"{self._program}: {text}{said}")
        if ended.status is None or ended.status < 0:
            return TransientDeliveryError(f"{self._program}: ended by {_signal(ended.status)}{said}")
        text = f"{self._program}: exit status {ended.status}{said}"
        if ended.status == LATER:
            return TransientDeliveryError(text)
        if ended.status in NOT_STARTED:
            return MisconfiguredSinkError(f"{text} (check what the command itself starts)")
        return PermanentDeliveryError(text) if ended.status else None

    def _unstarted(self, error: OSError) -> DeliveryError:
        text = f"{self._program}: cannot be started: {error.strerror or error}"
        if error.errno in PASSING:
            return TransientDeliveryError(text)
        return MisconfiguredSinkError(f"{text} (check the sink's command, and the file's mode)")


def _signal(status: int | None) -> str:
    try:
        return signal.Signals(-(status or 0)).name
    except ValueError:  # a real-time signal
        return f"signal {-(status or 0)}"


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return f": {visible(lines[-1].strip(), SHOWN_CHARS)}" if lines else ""
