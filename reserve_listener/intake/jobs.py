"""What a reconciler has to read, and in which order: a pass over all there is, or what somebody asked for. No I/O.

What must stay true: scopes read longest ago come first; a restart skips scopes that the pass has finished; and a failure that
affects every scope counts against none.
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
"""At one scope in a job, if it is the scope that is wrong. What passes by itself is waited out before each."""

BEHIND: Final = 3
"""So many others are read before a scope that could not be read comes again: by their answers one knows whose fault it was."""

DIFFERENCES_KEPT: Final = 10_000
"""For whoever waits for the job, some 10 MiB; beyond that they are only counted. All are in the history."""

RESUME: Final = "resume"
REQUEST: Final = "request"
DOUBT: Final = "doubt"


class Target(NamedTuple):
    """A scope to be read."""

    scope_type: ScopeType
    scope_id: str


class Job:
    """Scopes to be read, and what came of that. A pass has a number; a job without one is for a person, or for a doubt."""

    def __init__(self, why: str, *, now_ms: int, dry_run: bool = False) -> None:
        self.id = secrets.token_hex(8)
        self.why = why
        self.dry_run = dry_run
        self.number = 0
        self.started_ms = now_ms
        self.ended_ms: int | None = None
        self.is_begun = False
        """Whether it is known what is to be read."""
        self.problem: str | None = None
        """Why it goes no further at the moment; if it has ended: why no further at all."""
        self.hint: str | None = None
        self.is_stuck = False
        """Whether a person has to do something first."""
        self.not_before_s = 0.0
        """It is left alone until then, on the monotonic clock."""
        self.total = 0
        self.left: deque[Target] = deque()
        self.unlisted: tuple[str, str | None] | None = None
        """Why only what is known already is read, not all there is; and what to do."""
        self.is_listed_again = False
        """Whether it was tried once more, when all that is known was read."""
        self.found: list[HistoryEntry] = []
        """The differences, or the first of them; before them those that the pass before it found while somebody waited for this."""
        self.differences = 0
        self.before = 0
        """Differences that the pass before it found while somebody waited for this one."""
        self.earlier = 0
        """Differences that this pass found in an earlier life of the daemon."""
        self.is_awaited = False
        """Whether a person waits for this pass."""
        self.heir: Job | None = None
        """The pass after it, if a person waits for that already."""
        self.gone = 0
        self.failed = 0
        """Scopes that could not be read."""
        self.unread: tuple[str, str | None] | None = None
        """What could not be read last, and what to do."""
        self._failures: dict[Target, tuple[int, int]] = {}
        self._outdated: Counter[Target] = Counter()

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
        self.is_begun = True

    def has_failed(self, answers: int) -> bool:
        """Whether the first one has failed before, and nobody was answered since (see `put_back`)."""
        return self._failures.get(self.left[0], (0, -1))[1] == answers

    def put_back(self, answers: int, *, about_it: bool) -> bool:
        """The first one could not be read, and comes again after some others; False: it is what is wrong, and stays the first.

        That counts only if others were answered since it failed last (`answers`: how many there ever were), or, when there are
        no others, if the failure is rather `about_it` than about everything.
        """
        target = self.left[0]
        failures, answers_before = self._failures.get(target, (0, -1))
        counts = answers > answers_before or (about_it and len(self.left) == 1)
        failures += counts
        self._failures[target] = failures, answers
        if failures >= TRIES:
            return False
        self.left.popleft()
        self.left.insert(BEHIND, target)
        return True

    def again(self) -> bool:
        """The first one comes once more, after all others; False: it did often enough, and stays the first."""
        target = self.left[0]
        self._outdated[target] += 1
        if self._outdated[target] >= TRIES:
            return False
        self.left.rotate(-1)
        return True

    @property
    def comes_round(self) -> bool:
        """Whether the next one has just had its turn, and so have all that are left: each was outdated as often."""
        return self._outdated[self.left[0]] >= self._outdated[self.left[-1]]

    def take(self, entry: HistoryEntry, *, own: bool = True) -> None:
        """A difference; one that is not its `own` was found by the pass before it."""
        self.differences += own
        self.before += not own
        if len(self.found) < DIFFERENCES_KEPT:
            self.found.append(entry)
        if self.heir is not None:
            self.heir.take(entry, own=False)

    def wait(self, problem: str, hint: str | None, *, until_s: float) -> None:
        """It goes no further now."""
        self.problem, self.hint, self.not_before_s = problem, hint, until_s

    def go_on(self) -> None:
        """It does again."""
        self.problem, self.hint, self.is_stuck, self.not_before_s = None, None, False, 0.0

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
