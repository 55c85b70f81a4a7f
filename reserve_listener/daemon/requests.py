"""Commands' requests to this daemon through a shared store: it acts on them, and writes the answers there.

What must stay true: whoever made a faulty request is told what is wrong with it, and the fault has no other effect.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from reserve_listener.errors import ReserveListenerError, StoreError
from reserve_listener.protocols.store import StoreReadings, StoreRequests
from reserve_listener.web.answers import ReconcileRequest, Reconnected, Refusal

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from reserve_listener.daemon.actions import OperatorActions
    from reserve_listener.model import Request

RECONNECT: Final = "reconnect"
RECONCILE: Final = "reconcile"

TOLD_EVERY_S: Final = 0.5
"""How often it is looked whether there is something new to say of a comparison."""

AT_ONCE: Final = 20
"""Requests under way; one for all rooms takes hours, and as many comparisons may wait (`intake.agenda`)."""

WAITING: Final = 100
"""Requests that wait for their turn: far more than people make within the few seconds in which one is obeyed."""

log = structlog.get_logger("control")


class SharedStore(StoreRequests, StoreReadings, Protocol):
    """A store that may be shared."""


class Requests:
    """Obeys them as long as `run` runs."""

    def __init__(self, store: SharedStore, actions: OperatorActions) -> None:
        self._store = store
        self._actions = actions
        self._coming: asyncio.Queue[Request] = asyncio.Queue(WAITING)
        store.on_request = self._take

    def _take(self, request: Request) -> None:
        if self._coming.full():
            log.warning("control.too_many_requests", what=request.what)
        else:
            self._coming.put_nowait(request)

    async def run(self) -> None:
        """Until cancelled."""
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await places.acquire()
                request = await self._coming.get()
                task = tasks.create_task(self._obey(request), name=f"request-{request.id}")
                task.add_done_callback(lambda _task: places.release())

    async def _obey(self, request: Request) -> None:
        try:
            await self._done_or_refused(request)
        except StoreError as error:  # nobody can be told
            log.warning("control.not_answered", what=request.what, error=str(error))

    async def _done_or_refused(self, request: Request) -> None:
        try:
            await self._done(request)
        except StoreError:
            raise
        except (ReserveListenerError, msgspec.MsgspecError) as error:
            await self._say(request, Refusal(refused=str(error)))

    def _done(self, request: Request) -> Coroutine[Any, Any, None]:
        if request.what == RECONNECT:
            return self._reconnect(request)
        if request.what == RECONCILE:
            return self._reconcile(request)
        raise ReserveListenerError(f'this version does not know "{request.what}"')

    async def _reconnect(self, request: Request) -> None:
        asked_s = time.monotonic()
        was = await self._actions.reconnect()
        await self._say(request, Reconnected(was=was))
        await self._say(request, await self._actions.reconnected(was, asked_s))

    async def _reconcile(self, request: Request) -> None:
        """For the daemon that compares; the others leave it to that."""
        if not await self._store.may_reconcile():
            return
        asked = msgspec.json.decode(request.content, type=ReconcileRequest)
        begun = await self._actions.reconcile(asked.scopes or None, dry_run=asked.dry_run)
        after, said = 0, b""
        while True:
            now = self._actions.comparison(begun.id, after)
            content = msgspec.json.encode(now)
            if content != said:
                await self._store.answer(request.id, content)
                after, said = after + len(now.found), content
            if not now.more and (now.state in {"done", "failed"} or now.stuck):
                return
            if not await self._store.may_reconcile():
                raise ReserveListenerError("another replica compares now; ask again")
            await asyncio.sleep(0 if now.more else TOLD_EVERY_S)

    async def _say(self, request: Request, answer: msgspec.Struct) -> None:
        await self._store.answer(request.id, msgspec.json.encode(answer))
