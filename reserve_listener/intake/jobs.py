"""What a reconciler has to read, and in which order: a pass over everything, or what somebody asked for. No I/O.

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
"""How often a job tries a scope that is itself at fault. Failures that pass by themselves are waited out and do not count."""

BEHIND: Final = 3
"""How many others are read before a scope that failed comes again: their answers show whether the scope was at fault."""

DIFFERENCES_KEPT: Final = 10_000
"""How many are kept for whoever waits for the job, some 10 MiB; further ones are only counted. The history has them all."""

RESUME: Final = "resume"
REQUEST: Final = "request"
DOUBT: Final = "doubt"


class Target(NamedTuple):
    """A scope to read."""

    scope_type: ScopeType
    scope_id: str


class Job:
    """Scopes to read, and the results. A pass has a number; a job without one is for a person or a doubt."""

    def __init__(self, why: str, *, now_ms: int, dry_run: bool = False) -> None:
        self.id = secrets.token_hex(8)
        self.why = why
        self.dry_run = dry_run
        self.number = 0
        self.started_ms = now_ms
        self.ended_ms: int | None = None
        self.is_begun = False
        """Whether it is known what to read."""
        self.problem: str | None = None
        """Why it makes no progress at the moment; once it has ended, why it got no further."""
        self.hint: str | None = None
        self.is_stuck = False
        """Whether it waits for a person to act."""
        self.not_before_s = 0.0
        """When it may go on, on the monotonic clock."""
        self.total = 0
        self.left: deque[Target] = deque()
        self.unlisted: tuple[str, str | None] | None = None
        """Why it reads only the known scopes rather than all there are, and what to do about it."""
        self.is_listed_again = False
        """Whether listing was tried again, after all known scopes had been read."""
        self.found: list[HistoryEntry] = []
        """The differences, or the first of them. Those that the pass before found, while somebody waited for this one, come first."""
        self.differences = 0
        self.before = 0
        """How many differences the pass before found while somebody waited for this one."""
        self.earlier = 0
        """How many differences this pass found in an earlier run of the daemon."""
        self.is_awaited = False
        """Whether a person is waiting for this pass."""
        self.heir: Job | None = None
        """The pass after it, if a person is already waiting for that one."""
        self.gone = 0
        self.failed = 0
        """How many scopes could not be read."""
        self.unread: tuple[str, str | None] | None = None
        """The latest scope that could not be read, and what to do about it."""
        self._failures: dict[Target, tuple[int, int]] = {}
        self._outdated: Counter[Target] = Counter()

    @property
    def is_pass(self) -> bool:
        """Whether it is a pass: over everything, and recorded in the store."""
        return self.number > 0

    @property
    def done(self) -> int:
        """How many scopes it has finished with."""
        return self.total - len(self.left)

    def begin(self, targets: Collection[Target], total: int) -> None:
        """Set what to read; `total` includes what an earlier run of the daemon has read."""
        self.left = deque(targets)
        self.total = total
        self.is_begun = True

    def has_failed(self, answers: int) -> bool:
        """Whether the first scope has failed before and nothing was answered since (see `put_back`)."""
        return self._failures.get(self.left[0], (0, -1))[1] == answers

    def put_back(self, answers: int, *, about_it: bool) -> bool:
        """The first scope could not be read, so put it back behind some others. False if it is at fault itself: then it stays first.

        A failure counts only if others were answered since its last one (`answers`: how many there were so far), or, if there
        are no others, if it seems to be `about_it` rather than about everything.
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
        """Put the first scope behind all others. False if it had its turns: then it stays first."""
        target = self.left[0]
        self._outdated[target] += 1
        if self._outdated[target] >= TRIES:
            return False
        self.left.rotate(-1)
        return True

    @property
    def comes_round(self) -> bool:
        """Whether a round is complete: all scopes that are left have been outdated equally often."""
        return self._outdated[self.left[0]] >= self._outdated[self.left[-1]]

    def take(self, entry: HistoryEntry, *, own: bool = True) -> None:
        """Record a difference; one that is not its `own` was found by the pass before."""
        self.differences += own
        self.before += not own
        if len(self.found) < DIFFERENCES_KEPT:
            self.found.append(entry)
        if self.heir is not None:
            self.heir.take(entry, own=False)

    def wait(self, problem: str, hint: str | None, *, until_s: float) -> None:
        """It cannot go on before `until_s`."""
        self.problem, self.hint, self.not_before_s = problem, hint, until_s

    def go_on(self) -> None:
        """It can go on."""
        self.problem, self.hint, self.is_stuck, self.not_before_s = None, None, False, 0.0

    def end(self, now_ms: int) -> None:
        """It has ended."""
        self.ended_ms = now_ms


def whole(
    places: Iterable[Target],
    asked: Iterable[Asked],
    is_gone: Callable[[str, str], bool],
    number: int | None = None,
) -> tuple[list[Target], int]:
    """What the pass with this number (None: a new one) still has to read, longest ago first, and how many scopes it has in all.

    Those are all listed scopes and all known ones, since lists may hide some; but not those that are gone.
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
    """The type in the words of the API; None if the API has no such type."""
    if scope_type == ROOM:
        return "room"
    return "level" if scope_type == LEVEL else None
