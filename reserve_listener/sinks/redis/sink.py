"""The redis sink: each event is an entry of a stream, with the fields `event` (the JSON), `id` and `subject`.

What must stay true: the client itself repeats nothing. By default it tries an `XADD` ten times, on its own connection
errors too, and each of them may have added the event.

A repeat adds nothing within `WINDOW_S`: servers from 8.6 know ids themselves (IDMP); for older ones a script looks for a key
beside the stream, adds, and sets the key, in this order, so that what is known has been added.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from redis import exceptions
from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reserve_listener.errors import (
    DeliveryError,
    MisconfiguredSinkError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.sinks.brokers import settings as brokers, together
from reserve_listener.sinks.brokers.saying import Saying
from reserve_listener.sinks.brokers.templates import Template
from reserve_listener.sinks.redis.kind import PORT, database

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from reserve_listener.model import Delivery

WINDOW_S: Final = 86_400
"""How long an id is known; also the longest that a server with IDMP allows."""
IDS: Final = 10_000
"""How many ids a server with IDMP keeps: the most that it allows."""
BOUND: Final = "proto-max-bulk-len"
SMALLEST_BOUND: Final = 1_048_576
"""The least that it can be set to."""

ADD: Final = """
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
local words = {KEYS[1], '*', 'event', ARGV[3], 'id', ARGV[4], 'subject', ARGV[5]}
if ARGV[2] ~= '' then words = {KEYS[1], 'MAXLEN', '~', ARGV[2], unpack(words, 2)} end
local id = redis.call('XADD', unpack(words))
redis.call('SET', KEYS[2], id, 'EX', ARGV[1])
return id
"""


class _Event(msgspec.Struct, gc=False):
    subject: str
    source: str = ""


_decode: Final = msgspec.json.Decoder(_Event).decode


class Entry(NamedTuple):
    """An event, on its way into a stream."""

    stream: str
    known_as: str
    fields: dict[str, Any]


class RedisSink:
    """Adds to `stream`, a template. `maxlen`: what the stream is trimmed to, about. Opens no connection before it delivers."""

    needs_raw = False
    one_per_scope = True

    def __init__(
        self,
        name: str,
        url: str,
        *,
        stream: str,
        maxlen: int | None = None,
        timeout_s: float = 10.0,
        max_in_flight: int = 64,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.batch_size = together.batch_size(max_in_flight)
        self.max_in_flight = together.calls(max_in_flight)
        self._stream = Template(stream)
        self._maxlen = maxlen
        self._timeout_s = timeout_s
        self._say = Saying(brokers.place(url, PORT), brokers.masks(url))
        self._pool = _pool(url, timeout_s, tls)
        self._redis: Any = Redis(connection_pool=self._pool)
        self._script = self._redis.register_script(ADD).sha
        self._knows_ids = True
        """Whether the server may have IDMP: until it says otherwise."""
        self._widened: set[str] = set()

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                outcomes = await self._add_all([self._entry(delivery) for delivery in deliveries])
        except (TimeoutError, exceptions.TimeoutError):  # ours, or the client's own for the same time
            await self._forget_server()
            raise TransientDeliveryError(self._say(f"no answer within {self._timeout_s:g} s")) from None
        except (exceptions.RedisError, OSError) as error:
            outcomes = [error] * len(deliveries)
        if any(outcomes):
            errors = await self._errors(deliveries, outcomes)
            await self._forget_server()
            together.tell(errors)

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._redis.aclose(close_connection_pool=True)

    async def _forget_server(self) -> None:
        """After a failure: behind its address there may be another by now, which only a new connection finds out."""
        await self._pool.drop_idle()
        self._widened.clear()

    def _entry(self, delivery: Delivery) -> Entry:
        event = _decode(delivery.body)
        known_as = hashlib.sha256(f"{event.source}\n{delivery.event_id}".encode()).hexdigest()[:32]
        fields = {"event": delivery.body, "id": delivery.event_id, "subject": event.subject}
        return Entry(self._stream.fill(delivery.body), known_as, fields)

    async def _add_all(self, entries: Sequence[Entry]) -> list[Exception | None]:
        """In one round trip. What comes again because the first way was not the server's is known by then."""
        if self._knows_ids:
            outcomes = await self._pipelined(self._add_once, entries)
            if not any(map(_is_older, outcomes)):
                await self._widen_all(
                    {one.stream for one, failed in zip(entries, outcomes, strict=True) if not failed}
                )
                return outcomes
            self._knows_ids = False
        outcomes = await self._pipelined(self._add_by_script, entries)
        if any(isinstance(outcome, exceptions.NoScriptError) for outcome in outcomes):
            await self._redis.script_load(ADD)
            outcomes = await self._pipelined(self._add_by_script, entries)
        return outcomes

    async def _pipelined(
        self, add: Callable[[Any, Entry], None], entries: Sequence[Entry]
    ) -> list[Exception | None]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for entry in entries:
                add(pipeline, entry)
            results = await pipeline.execute(raise_on_error=False)
        return [result if isinstance(result, Exception) else None for result in results]

    def _add_once(self, pipeline: Any, entry: Entry) -> None:
        once = ("reserve-listener", entry.known_as.encode())
        pipeline.xadd(entry.stream, entry.fields, maxlen=self._maxlen, idmp=once)

    def _add_by_script(self, pipeline: Any, entry: Entry) -> None:
        maxlen = "" if self._maxlen is None else self._maxlen
        keys = (entry.stream, _beside(entry.stream, entry.known_as))
        pipeline.evalsha(self._script, len(keys), *keys, WINDOW_S, maxlen, *entry.fields.values())

    async def _widen_all(self, streams: set[str]) -> None:
        for stream in streams - self._widened:
            await self._widen(stream)

    async def _widen(self, stream: str) -> None:
        """Let the server keep more ids than its 100, which a burst exceeds. Setting it anew would make it forget them all.

        A user who may only add is no failure: the event is there.
        """
        with contextlib.suppress(exceptions.ResponseError):
            found: Any = await self._redis.xinfo_stream(stream)
            if (found.get("idmp-duration"), found.get("idmp-maxsize")) != (WINDOW_S, IDS):
                # The client's own xcfgset allows 300 s, the server 86,400.
                window: Any = ("IDMP-DURATION", WINDOW_S, "IDMP-MAXSIZE", IDS)
                await self._redis.execute_command("XCFGSET", stream, *window)
        if len(self._widened) >= IDS:
            self._widened.clear()
        self._widened.add(stream)

    async def _errors(
        self, deliveries: Sequence[Delivery], outcomes: Sequence[Exception | None]
    ) -> list[DeliveryError | None]:
        """What each came to. One that is too large takes the others of its batch with it: the server resets the connection."""
        bound = await self._bound(
            max(len(one.body) for one, failed in zip(deliveries, outcomes, strict=True) if failed)
        )
        too_large = [
            self._too_large(len(one.body), bound) if failed else None
            for one, failed in zip(deliveries, outcomes, strict=True)
        ]
        beside = TransientDeliveryError(
            self._say("another event was larger than the server takes"), down=False
        )
        return [
            large or (beside if any(too_large) else self._meaning(failed)) if failed else None
            for large, failed in zip(too_large, outcomes, strict=True)
        ]

    async def _bound(self, largest: int) -> int | None:
        """The most bytes that the server takes, if `largest` may be more: it does not always say that. None: nobody knows."""
        if largest < SMALLEST_BOUND:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                told: Any = await self._redis.config_get(BOUND)
        except (exceptions.RedisError, OSError):  # it is away, or does not tell everybody
            return None
        return int(_first(told) or 0) or None

    def _too_large(self, size: int, bound: int | None) -> DeliveryError | None:
        if bound is None or size <= bound:
            return None
        return PermanentDeliveryError(
            self._say(f"the event has {size} bytes, more than the server's {BOUND}")
        )

    def _meaning(self, error: Exception) -> DeliveryError:
        code = _code(error)
        if isinstance(error, exceptions.AuthenticationError) or code in _REFUSED:
            return MisconfiguredSinkError(self._say(error, "check the user, the password and their rights"))
        if "invalid bulk length" in str(error):
            return PermanentDeliveryError(self._say(f"the event is larger than the server's {BOUND}"))
        if isinstance(error, (exceptions.ResponseError, exceptions.DataError)) and code not in _PASSING:
            return MisconfiguredSinkError(self._say(error, _ADVICE.get(code, "")))
        return TransientDeliveryError(self._say(error))


_REFUSED: Final = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})
_PASSING: Final = frozenset(
    {
        *("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "UNBLOCKED"),
        *("OOM", "MISCONF"),
    }
)
"""What a server says that is starting, failing over, or full."""
_ADVICE: Final = {
    "WRONGTYPE": "the sink's stream is the key of something else",
    "MOVED": "a Redis Cluster is not supported; name a single server, or a proxy that hides the cluster",
}
_IN_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")
"""A server before 7.0 says of a script only that it failed, and quotes why."""


def _code(error: Exception) -> str:
    """What kind of refusal it is. The client takes some of the codes off the text."""
    text = str(error)
    if (inner := _IN_SCRIPT.search(text)) is not None:
        return inner[1]
    return getattr(error, "status_code", None) or text.partition(" ")[0]


class _Encrypted(SSLConnection):
    """With our own context: the client's would trust the system's authorities beside the given ones, and reads files on the loop."""

    def __init__(self, *, context: ssl.SSLContext, **settings: Any) -> None:
        super().__init__(**settings)
        self.ssl_context.context = context


class _Pool(ConnectionPool):
    """Each attempt takes any idle connection, the last one first."""

    async def drop_idle(self) -> None:
        """Let go of what nobody uses at the moment. Waits for nothing, so nobody is given one meanwhile."""
        for idle in tuple(self._available_connections):
            await idle.disconnect(nowait=True)


def _pool(url: str, timeout_s: float, tls: ssl.SSLContext | None) -> _Pool:
    parts = urlsplit(url)
    user, password = brokers.login(parts)
    encrypted: Any = {} if tls is None else {"connection_class": _Encrypted, "context": tls}
    return _Pool(
        **encrypted,
        host=parts.hostname,
        port=parts.port or PORT,
        db=database(url),
        username=user,
        password=password,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        protocol=2,
        client_name="reserve-listener",
    )


def _is_older(outcome: Exception | None) -> bool:
    """Whether a server says in this way that it does not know IDMP: one takes it for an id, another for a mistake."""
    text = str(outcome).lower()
    return isinstance(outcome, exceptions.ResponseError) and (
        "invalid stream id" in text or "syntax error" in text
    )


def _beside(stream: str, known_as: str) -> str:
    """A key in the stream's hash slot: a cluster behind a proxy wants both on one node."""
    tagged = stream if "{" in stream else f"{{{stream}}}"
    return f"{tagged}:reserve-listener:{known_as}"


def _first(told: Any) -> Any:
    return next(iter(told.values()), None) if isinstance(told, dict) else None
