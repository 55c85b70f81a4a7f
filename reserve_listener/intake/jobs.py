"""What a reconciler has to read, and in which order: a pass over all there is, or what somebody asked for. No I/O.

What must stay true: those that were looked at longest ago come first; and what a pass is done with, a restart leaves out.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from reserve_listener.intake.directory import LEVEL, ROOM, is_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from reserve_listener.lark.api.answers import ScopeType
    from reserve_listener.model import Asked, HistoryEntry

TRIES: Final = 3
"""At one scope in a job. What passes by itself is waited out before each; then the scope itself is what is wrong."""

DIFFERENCES_KEPT: Final = 10_000
"""For whoever waits for the job, some 10 MiB; beyond that they are only counted. All are in the history."""


class Target(NamedTuple):
    """A scope to be read."""

    scope_type: ScopeType
    scope_id: str


class Job:
    """Scopes to be read, and what came of that. A pass has a number; a job without one is for a person, or for a doubt."""

    def __init__(self, why: str, *, now_ms: int, dry_run: bool = False, is_whole: bool = False) -> None:
        """`is_whole`: all there are are to be read, which are not known yet."""
        self.id = secrets.token_hex(8)
        self.why = why
        self.dry_run = dry_run
        self.is_whole = is_whole
        self.number = 0
        self.started_ms = now_ms
        self.ended_ms: int | None = None
        self.problem: str | None = None
        """Why it goes no further at the moment; if it has ended: why no further at all."""
        self.hint: str | None = None
        self.is_stuck = False
        """Whether a person has to do something first."""
        self.total = 0
        self.left: deque[Target] = deque()
        self.found: list[HistoryEntry] = []
        """The differences, or the first of them."""
        self.differences = 0
        self.gone = 0
        self.unread: tuple[str, str | None] | None = None
        """Of a job that is no pass: what could not be read last, and what to do."""
        self.failed = 0
        """Scopes that could not be read."""
        self._tries: Counter[Target] = Counter()

    @property
    def is_pass(self) -> bool:
        """Whether it is one over all there is that the store knows of."""
        return self.number > 0

    @property
    def done(self) -> int:
        """Scopes that it is done with."""
        return self.total - len(self.left)

    def begin(self, targets: Collection[Target], total: int) -> None:
        """These are to be read; `total` also counts those that an earlier life has read."""
        self.left = deque(targets)
        self.total = total

    def again(self, target: Target) -> bool:
        """The first one comes once more, after the others; False: it did often enough, and is done with."""
        self._tries[target] += 1
        self.left.popleft()
        if self._tries[target] >= TRIES:
            return False
        self.left.append(target)
        return True

    def take(self, entry: HistoryEntry) -> None:
        """A difference."""
        self.differences += 1
        if len(self.found) < DIFFERENCES_KEPT:
            self.found.append(entry)

    def end(self, now_ms: int) -> None:
        """Nothing more comes of it."""
        self.ended_ms = now_ms


def whole(
    places: Iterable[Target],
    asked: Iterable[Asked],
    is_gone: Callable[[str, str], bool],
    number: int | None = None,
) -> tuple[list[Target], int]:
    """What the pass with this number (None: a new one) has still to read, the one looked at longest ago first; and how many it has in all.

    All that there are, and all that are known, which may be hidden from the list of those; but what is gone is left alone.
    """
    looked = {
        Target(kind, one.scope_id): one
        for one in asked
        if (kind := kind_of(one.scope_type)) is not None and is_id(one.scope_id)
    }
    everything = dict.fromkeys([*places, *(target for target in looked if not is_gone(*target))])
    left = [
        target
        for target in everything
        if number is None or target not in looked or looked[target].in_pass < number
    ]
    left.sort(key=lambda target: looked[target].looked_ms if target in looked else 0)
    return left, len(everything)


def kind_of(scope_type: str) -> ScopeType | None:
    """The type as the API knows it; None: it knows no such type."""
    if scope_type == ROOM:
        return "room"
    return "level" if scope_type == LEVEL else None
