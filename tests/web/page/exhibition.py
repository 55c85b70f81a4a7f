"""An office on one of its days, always the same: what the pictures in the docs show, and what the browser is shown in tests."""

from __future__ import annotations

import random
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.web.answers import (
    Attempt,
    ConnectionStatus,
    FailedDelivery,
    Reason,
    SinkStatus,
    Status,
    StoreStatus,
)
from tests.daemon.test_control import Notebook
from tests.helpers import append
from tests.web.furnished import HOUR_MS, MINUTE_MS, changed, place
from tests.web.looking import looked_into

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import httpx2

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

ZONE: Final = "Asia/Shanghai"
NOW_MS: Final = 1_795_673_343_000
"""2026-11-26 14:09:03 there, a Thursday."""

PEOPLE: Final = {"ou_lilei": "李雷", "ou_hanmeimei": "韩梅梅", "ou_wang": "Wang Fang", "ou_chen": "Chen Jing"}
BUILDINGS: Final = {
    "Shanghai HQ": {
        "Tower A": {"8F": ["Boardroom", "Bund", "Pudong"], "12F": ["西湖厅", "太湖厅", "Suzhou Creek"]},
        "Tower B": {"3F": ["3F-Ada", "3F-Grace", "3F-Hopper"], "5F": ["5F-Turing", "5F-Lovelace", "5F-Shannon"]},
    },
    "北京 Beijing": {"望京 SOHO": {"21F": ["长城", "颐和园", "Hutong"], "22F": ["鼓楼", "景山"]}},
    "深圳 Shenzhen": {"科兴 B4": {"15F": ["梧桐山", "大梅沙", "Coral"]}},
}  # fmt: skip
BUSY: Final = (0, 0, 0, 0, 0, 0, 0, 1, 5, 9, 12, 7, 3, 8, 10, 9, 6, 3, 1, 1, 0, 0, 1, 0)
"""Changes in each hour of the day."""

Sections = dict[str, dict[str, Any]]


def someone(*open_ids: str) -> list[dict[str, str]]:
    """People, as an event names them."""
    return [{"open_id": one, "union_id": f"on{one}", "user_id": one[-6:]} for one in open_ids]


def ago(**span: float) -> str:
    """A moment of that day, as the API writes it."""
    ms = span.get("hours", 0) * HOUR_MS + span.get("minutes", 0) * MINUTE_MS + span.get("seconds", 0) * 1000
    moment = time.gmtime((NOW_MS - ms) / 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", moment)


REFUSED: Final = "503 Service Unavailable: the room calendar is being updated"
SINKS: Final = [
    SinkStatus(name="audit", state="ok", pending=0, dead_letters=0, last_delivered=ago(minutes=2)),
    SinkStatus(
        name="booking", state="down", pending=12, dead_letters=1, last_error=REFUSED, failing_since=ago(minutes=11),
        next_attempt=ago(minutes=-1), last_delivered=ago(minutes=11, seconds=4),
    ),
    SinkStatus(name="facility-group", state="ok", pending=0, dead_letters=0, last_delivered=ago(minutes=2)),
]  # fmt: skip
FAILURES: Final = [
    FailedDelivery(
        sink="booking", event_id="b51e07d2a94c4f6f", scope_type="room", scope_id="omm_3f2dada", state="pending",
        next_attempt=ago(minutes=-1),
        attempts=[
            Attempt(time=ago(minutes=minutes), outcome="retry", status=503, duration_s=0.021, error=REFUSED)
            for minutes in (11, 9, 5, 1)
        ],
    )
]  # fmt: skip
STORE: Final = StoreStatus(path="/var/lib/reserve-listener/events.db")
CONNECTED: Final = ConnectionStatus(state="connected", text="connected", since=ago(hours=76))
AWAY: Final = ConnectionStatus(
    state="waiting", text="waiting", since=ago(minutes=6), next_attempt=ago(seconds=-9)
)

WELL: Final[dict[str, Any]] = {
    "status": "ok",
    "reasons": [],
    "sinks": [SINKS[0], SinkStatus(name="booking", state="ok", pending=0, dead_letters=0, last_delivered=ago(minutes=2)), SINKS[2]],
    "connection": CONNECTED,
}  # fmt: skip
LATE: Final[dict[str, Any]] = {
    "status": "degraded",
    "reasons": [
        Reason(
            part="sink booking", since=ago(minutes=11), reason=f"down: {REFUSED}",
            hint="12 wait; it is probed every 60 s",
        ),
        Reason(part="dead_letters", since=ago(hours=3), reason="1 delivery was given up", hint=None),
    ],
    "sinks": SINKS,
    "failures": FAILURES,
    "dead_letters": 1,
    "connection": CONNECTED,
}  # fmt: skip
DEAF: Final[dict[str, Any]] = {
    "status": "failing",
    "reasons": [
        Reason(part="connection", since=ago(minutes=6), reason="not connected: connection refused", hint=None)
    ],
    "sinks": WELL["sinks"],
    "connection": AWAY,
}


class Told(Notebook):
    """Actions of a daemon that is as it is told to be."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.how: dict[str, Any] = {"version": "1", "store": STORE, "status": "ok", "reasons": []} | how

    async def status(self) -> Status:
        """See `Actions`."""
        await self._note("status")
        return Status(**self.how)


@contextmanager
def that_day(monkeypatch: Any) -> Iterator[None]:
    """It is then and there."""
    monkeypatch.setattr("reserve_listener.web.page.frame.now_ms", lambda: NOW_MS)
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    try:
        yield
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


@asynccontextmanager
async def exhibition(backend: Backend, **parts: Any) -> AsyncIterator[tuple[Store, httpx2.AsyncClient]]:
    """The page over that office."""
    async with looked_into(backend, "audit", "booking", "facility-group", **parts) as (store, client):
        await _furnish(store)
        _deliver(backend)
        if parts["actions"].how["status"] == "degraded":
            _fail(backend)
        yield store, client


def id_of(name: str) -> str:
    """Of a room or level: its name, as far as letters go."""
    return "omm_" + "".join(
        one if one.isalnum() and one.isascii() else f"{ord(one):x}" for one in name.lower()
    )


async def _furnish(store: Store) -> None:
    places, rooms, levels = [], [], []

    def build(below: Any, parent: str | None) -> None:
        for name in below:
            if isinstance(below, dict):
                level = id_of(f"{parent or ''}{name}").replace("omm_", "omb_").replace("omb_omb", "omb_")
                levels.append(level)
                places.append(place("level", level, name, parent))
                build(below[name], level)
            else:
                rooms.append(id_of(name))
                places.append(place("room", id_of(name), name, parent))

    build(BUILDINGS, None)
    await store.keep_places(places)
    await store.keep_people(PEOPLE)
    chance = random.Random(7)
    number = 0
    known: dict[str, Sections] = {}

    async def change(scope: str, at_ms: float, **sections: Any) -> None:
        nonlocal number
        number += 1
        for section, values in sections.items():
            known[scope][section] = known[scope].get(section, {}) | values
        event_id = f"{chance.getrandbits(64):016x}"
        await append(store, changed(event_id, scope, round(at_ms), **known[scope]))

    for scope in [*rooms, *levels]:
        known[scope] = {}
        await change(scope, NOW_MS - 40 * HOUR_MS + number * 3000)
    moments = sorted(
        at
        for hour, count in enumerate(BUSY)
        for _ in range(count)
        if (at := _moment(hour, chance)) < NOW_MS - 40 * MINUTE_MS
    )
    for at in moments:
        scope = chance.choice(rooms if chance.random() < 0.9 else levels)
        await change(scope, at, **_some(chance, known[scope]))
    for scope, minutes, sections in LAST:
        await change(scope, NOW_MS - minutes * MINUTE_MS, **sections)


LAST: Final[list[tuple[str, float, Sections]]] = [
    ("omm_5f2dturing", 36, {"time": {"days_in_advance": 60}}),
    ("omm_boardroom", 17, {"members": {"allow_all_users": 0, "allow_users": someone("ou_lilei", "ou_wang", "ou_chen")}}),
    ("omm_897f6e565385", 11, {"time": {"start_time": "32400", "end_time": "64800"}}),
    ("omm_3f2dada", 2, {
        "time": {"max_duration": 2},
        "approve": {"approval_switch": 1, "approval_condition": 1, "meeting_duration": 1, "approvers": someone("ou_lilei")},
    }),
]  # fmt: skip


def _moment(hour: int, chance: random.Random) -> float:
    """In that hour, here; today's if it has been, else yesterday's."""
    midnight = NOW_MS - (14 * HOUR_MS + 9 * MINUTE_MS + 3000)
    at = midnight + hour * HOUR_MS + chance.random() * HOUR_MS
    return at if at < NOW_MS else at - 24 * HOUR_MS


def _some(chance: random.Random, known: Sections) -> Sections:
    """A change as an administrator makes it: one limit, seldom two."""
    times, approval = known.get("time", {}), known.get("approve", {})
    kinds: list[Sections] = [
        {"time": {"max_duration": chance.choice([n for n in (1, 2, 4, 8, 12) if n != times.get("max_duration")])}},
        {"time": {"days_in_advance": chance.choice([n for n in (7, 14, 30, 60, 90) if n != times.get("days_in_advance", 30)])}},
        {"time": {"start_time": str(chance.choice([7, 8, 9]) * 3600 + 1800), "end_time": str(chance.choice([18, 19, 20, 21]) * 3600)}},
        {"approve": {"approval_switch": 1 - approval.get("approval_switch", 0), "approvers": someone(chance.choice(list(PEOPLE)))}},
        {"members": {"allow_all_users": 0, "allow_users": someone(*chance.sample(list(PEOPLE), 2))}},
    ]  # fmt: skip
    return chance.choice(kinds)


def _deliver(backend: Backend) -> None:
    """All of it within moments, but for one that took its time."""
    backend.rows(
        "UPDATE deliveries SET state = 1, attempts = 1, settled_ms = 40 + seq % 90 +"
        " (SELECT received_ms FROM events WHERE events.seq = deliveries.seq)"
    )
    backend.rows(
        f"UPDATE deliveries SET settled_ms = settled_ms + 312000 WHERE {BOOKING}"
        f" AND seq = (SELECT max(seq) FROM events WHERE received_ms < {NOW_MS - 4 * HOUR_MS})"
    )


BOOKING: Final = "sink = (SELECT id FROM sinks WHERE name = 'booking')"


def _fail(backend: Backend) -> None:
    """What came last waits for `booking`; one delivery was given up."""
    since = NOW_MS - 11.5 * MINUTE_MS
    backend.rows(
        f"UPDATE deliveries SET state = 0, settled_ms = NULL, attempts = 2 WHERE {BOOKING}"
        f" AND seq IN (SELECT seq FROM events WHERE received_ms > {since:.0f})"
    )
    backend.rows(
        "UPDATE deliveries SET state = 2, attempts = 12, last_error = '410 Gone: no calendar for this room'"
        f" WHERE {BOOKING} AND seq = (SELECT max(seq) FROM events WHERE received_ms < {NOW_MS - 3 * HOUR_MS})"
    )
