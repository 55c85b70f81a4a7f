"""The platform as it pushes to an address, for store apps: encrypted, signed, and repeated on failure.

An attempt has failed if the answer is not 200, if there is none in time, or if nobody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from typing import TYPE_CHECKING, Any, Final, Self

import httpx2
import msgspec

from reserve_listener.lark import encryption
from reserve_listener.simulator.administrator import Administrator
from reserve_listener.simulator.estate import Estate
from reserve_listener.simulator.events import APP_ID, TOKEN
from reserve_listener.simulator.faults import Faults
from reserve_listener.simulator.platform import RETRY_DELAYS, TICK
from reserve_listener.simulator.pusher import Pusher
from reserve_listener.simulator.pushes import Ledger
from reserve_listener.simulator.signal import Signal, patience
from reserve_listener.simulator.watcher import Watcher

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from reserve_listener.simulator.pushes import Push

CHALLENGE_TIMEOUT_S: Final = 1.0
STALE_S: Final = 2 * 24 * 3600
OK: Final = 200


class WebhookPlatform:
    """`async with WebhookPlatform(url, …) as platform` pushes to `url`; it does not listen itself.

    `connected` first sends the challenge that the platform sends when an address is saved. `encrypt_key` None: plain pushes,
    with only the token. The rest is as with `Simulator`.
    """

    def __init__(
        self,
        url: str,
        *,
        encrypt_key: str | None = None,
        verification_token: str = TOKEN,
        app_id: str = APP_ID,
        faults: Faults | None = None,
        retry_delays: Sequence[float] = RETRY_DELAYS,
        time_scale: float = 1.0,
        answer_timeout: float = 3.0,
        seed: int | None = None,
        watcher: Watcher | None = None,
        estate: Estate | None = None,
    ) -> None:
        self.app_id = app_id
        self.domain = url
        self.faults = faults or Faults()
        self.connections = 0
        """1 once the address has answered the challenge."""
        self._key = encrypt_key
        self._token = verification_token
        self._watcher = watcher or Watcher()
        self._signal = Signal()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = httpx2.AsyncClient(trust_env=False, timeout=answer_timeout * time_scale)
        self._ledger = Ledger(
            answer_timeout=answer_timeout * time_scale,
            retry_delays=[delay * time_scale for delay in retry_delays],
        )
        self._pusher = Pusher(
            gateway=self,
            ledger=self._ledger,
            faults=self.faults,
            random=random.Random(seed),  # noqa: S311  # secrets do not come from here
            signal=self._signal,
            watcher=self._watcher,
        )
        self.estate = estate or Estate()
        self.admin = Administrator(self.estate, app_id=app_id, push=self.push)
        self._clock: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._clock = asyncio.create_task(self._keep_time(), name="simulator-clock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (self._clock, *self._tasks):
            task.cancel()
        await asyncio.gather(self._clock, *self._tasks, return_exceptions=True)
        await self._client.aclose()

    @property
    def acknowledged(self) -> set[str]:
        """The ids of the events that were answered 200 in time."""
        return self._pusher.acknowledged

    @property
    def answers(self) -> Counter[int | None]:
        """How many attempts there were, by HTTP status; None: no answer in time."""
        return self._pusher.answers

    @property
    def to_retry(self) -> int:
        """How many pushes are waiting for their next attempt."""
        return self._ledger.to_retry

    async def until(self, condition: Callable[[], bool], timeout: float | None = 5.0) -> None:  # noqa: ASYNC109
        """As `Simulator.until`."""
        await self._signal.until(condition, timeout)

    async def connected(self, timeout: float | None = 5.0) -> None:  # noqa: ASYNC109
        """Send the challenge again and again until the address answers it; `TimeoutError`.

        This is done even if the address has answered one before: it may have been stopped since.
        """
        async with asyncio.timeout(None if timeout is None else patience(timeout)):
            while not await self.challenge():  # noqa: ASYNC110  # nobody tells when somebody listens
                await asyncio.sleep(0.1)
        if not self.connections:
            self.connections = 1
            self._watcher.connected(1)
            self._signal.fire()

    async def challenge(self) -> bool:
        """Whether the address answers a challenge in time and with JSON, as the platform requires."""
        text = os.urandom(8).hex()
        content = {"type": encryption.URL_VERIFICATION, "challenge": text, "token": self._token}
        body, headers = self._sealed(msgspec.json.encode(content))
        for name in (encryption.TIMESTAMP, encryption.NONCE, encryption.SIGNATURE):
            headers.pop(name, None)  # they may be missing, so they are
        with contextlib.suppress(httpx2.HTTPError, ValueError):
            answer = await self._client.post(
                self.domain, content=body, headers=headers, timeout=CHALLENGE_TIMEOUT_S
            )
            return answer.status_code == OK and answer.json() == {"challenge": text}
        return False

    def push(self, event: dict[str, Any] | bytes, *, retry: bool = True) -> Push:
        """Push an event (bytes go as they are), at once and without waiting."""
        if isinstance(event, dict):
            event = self._with_token(event)
        return self._pusher.push(event, retry=retry)

    async def push_many(self, events: Iterable[dict[str, Any] | bytes], *, in_flight: int = 64) -> list[Push]:
        """As `Simulator.push_many`."""
        slots = asyncio.Semaphore(in_flight)
        pushes = []
        for event in events:
            await slots.acquire()
            told = self._with_token(event) if isinstance(event, dict) else event
            pushes.append(self._pusher.push(told, first_outcome=slots.release))
        for _ in range(in_flight):
            await slots.acquire()
        return pushes

    def abort(self) -> None:
        """There is no connection to reset."""

    def send_raw(self, message: bytes) -> None:
        """Post this as it is, and ignore the answer."""
        self._start(self._post(message, {"content-type": "application/json"}))

    # -- what the pusher sees -----------------------------------------------------------------------------------------------

    def open(self) -> Sequence[WebhookPlatform]:
        """The one address there is; only trying shows whether it can be reached."""
        return (self,)

    def carry(self, push: Push, message_id: str) -> None:
        """See `pusher.Carrier`."""
        body, headers = self._sealed(push.payload)

        async def attempt() -> None:
            status = await self._post(body, headers)
            if status is not None:
                self._pusher.answer(message_id, status)

        self._start(attempt())

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work, name="simulator-push")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, body: bytes, headers: dict[str, str]) -> int | None:
        try:
            return (await self._client.post(self.domain, content=body, headers=headers)).status_code
        except httpx2.HTTPError:
            return None  # the ledger concludes it when its time is over

    def _with_token(self, event: dict[str, Any]) -> dict[str, Any]:
        token = "another" if self.faults.wrong_token else self._token  # a fault
        return event | {"header": event["header"] | {"token": token}}

    def _sealed(self, plain: bytes) -> tuple[bytes, dict[str, str]]:
        headers = {"content-type": "application/json; charset=utf-8"}
        if self._key is None or self.faults.plain:
            return plain, headers
        body = msgspec.json.encode(
            {"encrypt": encryption.encrypt(self._key, plain, iv=os.urandom(encryption.IV_BYTES))}
        )
        timestamp = str(int(time.time()) - (STALE_S if self.faults.stale else 0))
        nonce = os.urandom(8).hex()
        key = "another" if self.faults.wrong_signature else self._key
        return body, headers | {
            encryption.TIMESTAMP: timestamp,
            encryption.NONCE: nonce,
            encryption.SIGNATURE: encryption.sign(timestamp, nonce, key, body),
        }

    async def _keep_time(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            self._pusher.tick(loop.time())
