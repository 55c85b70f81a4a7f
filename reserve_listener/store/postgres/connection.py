"""A connection to PostgreSQL that takes the statements of `store.shared` and speaks as `sqlite3` does.

So the work on rows (appending, claiming, retention and the rest) is written once, for both stores. What of their statements
PostgreSQL says differently is in `dialect`.

What must stay true: everything runs in a transaction that says itself where the tables are, how long it may take and that
its commit waits for the disk. Nothing depends on a session, so a pooler that hands out connections by transaction is fine.
Statements are sent ahead and their results read when somebody asks for them (a pipeline): a transaction takes as many round
trips as it has questions.
"""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.types.numeric import Int8Dumper

from reserve_listener.errors import WrongStoreError
from reserve_listener.store.postgres import dialect, waiting
from reserve_listener.store.shared.medium import MediumError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from reserve_listener.store.postgres.waiting import BoundedConnection

logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # what it warns of is raised as well

T = TypeVar("T")

Values: TypeAlias = "Sequence[Any] | Mapping[str, Any]"

SCHEMA: Final = "reserve_listener"
"""Where the tables are: an own schema, so that no other program's names are in the way."""

IDLE_TIMEOUT_S: Final = 5
"""A replica that is frozen in a transaction would hold up the others: the server ends it then."""

APPEND_LOCK: Final = 0x5265734C
"""The advisory lock of those who append ("ResL")."""

_BEGIN: Final = f"""
SELECT set_config('search_path', '{SCHEMA}', true), set_config('statement_timeout', %s, true),
  set_config('lock_timeout', '0', true),
  set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT_S}s', true),
  set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)
"""
"""With its isolation, all that a role's or a database's defaults could spoil: whoever has waited for the append lock has to see what
was committed meanwhile, and waits as long as for any other statement."""

_NOT_THE_MEDIUM: Final = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)
"""A single job's own mistake: running the jobs one by one helps the others."""

_CONFLICTS: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
"""Another replica, or a command, was in the way. Once more, and alone, it works."""

SKIPPED: Final = 20_000
"""Numbers that are left out after a connection was lost: more events than a standby may lack that is worth promoting. So
nobody who has seen an event that is lost takes another for it, or is ahead of what comes."""

_SEVERAL: Final = "Multiple connection attempts failed. All failures were:"
_OURS: Final = re.compile(r"^(- host: .*?, hostaddr: \S+: )?(connection (failed|is bad): (?=\S))?")
"""What psycopg puts before libpq's own words."""

TRIES: Final = 3
"""Of a transaction that somebody was in the way of."""

_AS_KNOWN: Final = "SELECT 1 / (number <= %s)::integer FROM version"
"""Fails, and with it the transaction, if the tables are of a newer version: without a question, so without a round trip."""


class OutdatedError(WrongStoreError):
    """A newer version has changed the tables since this process connected: it can only end."""


class NotAllowedError(WrongStoreError):
    """The role lacks a right."""


class UnclearError(Exception):
    """Something went wrong in a transaction without savepoints: see `Connection.transaction`."""


class Connection:
    """Used by one thread. `name`: what messages call the store."""

    def __init__(self, real: BoundedConnection, name: str) -> None:
        self._real = real
        self._name = name
        self._pipeline: psycopg.Pipeline | None = None
        real.adapters.register_dumper(int, Int8Dumper)
        self._has_append_lock = False
        self._careful = False
        self._known: int | None = None
        self._skips = False

    def expect(self, version: int) -> None:
        """From now on transactions fail with `OutdatedError` if the tables are newer: who was frozen may not know."""
        self._known = version

    def skip(self) -> None:
        """Before anything is appended, leave out numbers: another connection was lost, and this one may be to a standby."""
        self._skips = True

    @property
    def in_transaction(self) -> bool:
        """Whether one is open, also one that has failed."""
        return self._real.info.transaction_status is not TransactionStatus.IDLE

    @property
    def is_usable(self) -> bool:
        """Whether another transaction may be begun."""
        return not self._real.closed and not self.in_transaction

    def is_pooled(self) -> bool:
        """Whether a pooler lends out connections here: what is said of the session then stays with whoever gets it next."""
        (number,) = self.query("SELECT pg_backend_pid()").fetchone()
        return bool(number != self._real.info.backend_pid)

    @contextlib.contextmanager
    def transaction(
        self, *, reads: bool = False, timeout_s: float | None = None, careful: bool = False
    ) -> Iterator[None]:
        """`reads`: what is in it sees the store as of one moment, and nothing that it writes stays.

        `careful`: with savepoints, and what goes wrong is known before one is released, at a round trip each. Without it
        anything that goes wrong ends the whole transaction: the next one is careful.
        """
        timeout_s = waiting.STATEMENT_TIMEOUT_S if timeout_s is None else timeout_s
        self._real.allow(timeout_s + waiting.GRACE_S)
        self._careful = careful
        with self._explained():
            try:
                with self._real.pipeline() as self._pipeline:  # whose end waits for all answers
                    self._send(f"BEGIN ISOLATION LEVEL {'REPEATABLE READ' if reads else 'READ COMMITTED'}")
                    self._send(_BEGIN, (f"{max(1, int(timeout_s * 1000))}ms",))
                    if self._known is not None:
                        self._send(_AS_KNOWN, (self._known,))
                    if careful:  # nothing that follows is blamed for it
                        self.sync()
                    yield
                    self._send("ROLLBACK" if reads else "COMMIT")
            except BaseException as error:
                self._pipeline = None
                with contextlib.suppress(psycopg.Error):  # the first error is the one to tell
                    self._roll_back("ROLLBACK")
                if isinstance(error, psycopg.errors.DivisionByZero):
                    raise OutdatedError(
                        f"the store {self._name} has been changed by a newer reserve-listener since this process started."
                        " Install that version here, too, and start it again."
                    ) from None
                raise
            finally:
                self._pipeline = None
                self._has_append_lock = False

    def do(self, work: Callable[[Connection], T], *, reads: bool = False) -> T:
        """Work in a transaction of its own; once more if somebody was in the way, so it has to bear being repeated."""
        tries = 1
        while True:
            try:
                with self.transaction(reads=reads):
                    return work(self)
            except Exception as error:
                if not (self.is_usable and is_worth_another(error, tries)):
                    raise
            tries += 1

    def lock_appends(self) -> None:
        """Until the end of the transaction nobody else appends.

        So events are numbered in the order in which they are committed, and each is compared with what was stored before
        it, whichever replica stored that. Locks for each scope would let two replicas append at once; but then a cursor had
        to be held back by the oldest transaction of the whole server, which may be another program's and last for hours.
        """
        if not self._has_append_lock:
            self._send(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})")
            self._has_append_lock = True
            if self._skips:
                self._send(f"SELECT setval('events_seq', last_value + {SKIPPED}) FROM events_seq")
                self._skips = False  # what a sequence has given is not taken back by a rollback

    def execute(self, statement: str, values: Values = ()) -> Cursor:
        """As `sqlite3.Connection.execute`; in a transaction."""
        with self._explained():
            match statement.split():
                case ["BEGIN", *_]:  # inside a transaction: to try something out
                    return self._send("SAVEPOINT trial")
                case ["ROLLBACK"]:
                    return self._roll_back("ROLLBACK TO trial")
                case ["SAVEPOINT" | "RELEASE", *_] if not self._careful:
                    return Cursor(self._real.cursor(), self, count=0)
                case ["ROLLBACK", *_] if not self._careful:
                    raise UnclearError("there is nothing to roll back to")
                case ["ROLLBACK", *_]:
                    return self._roll_back(statement)
                case ["RELEASE", *_]:
                    done = self._send(statement)
                    self.sync()  # what went wrong has to be known while it can be taken back
                    return done
            text, kept = dialect.translated(statement, values)
            real = self._real.execute(text, kept)
            return Cursor(real, self, is_json=dialect.gives_json(statement))

    def query(self, text: str, values: Values = ()) -> Cursor:
        """As `execute`, of a statement that is PostgreSQL's already, with its own places for values."""
        with self._explained():
            return self._send(text, values)

    def script(self, text: str) -> None:
        """Several statements."""
        with self._explained():
            for statement in text.split(";\n"):
                if any(line and not line.startswith("--") for line in statement.split("\n")):
                    self._send(statement)
            self.sync()

    def executemany(self, statement: str, rows: Sequence[Values]) -> Cursor:
        """As `sqlite3.Connection.executemany`."""
        with self._explained():
            cursor = self._real.cursor()
            if rows:
                text, _ = dialect.translated(statement, rows[0])
                cursor.executemany(text, [dialect.values_of(statement, row) for row in rows])
            return Cursor(cursor, self, count=None if rows else 0)

    def notices(self, timeout_s: float) -> Iterator[str]:
        """What was told on the channels that this connection listens to, for so long."""
        self._real.allow(timeout_s + waiting.STATEMENT_TIMEOUT_S)
        with self._explained():
            for notice in self._real.notifies(timeout=timeout_s):
                yield notice.payload

    def sync(self) -> None:
        """Until all that was sent is done. Raises what went wrong."""
        if self._pipeline is not None:
            with self._explained():
                self._pipeline.sync()

    def end_within(self, seconds: float) -> None:
        """After so long nothing is waited for any more. May be called in any thread."""
        self._real.end_within(seconds)

    def close(self) -> None:
        """Give it back. Does not raise."""
        with contextlib.suppress(psycopg.Error):
            self._real.close()

    def _send(self, text: str, values: Values | None = None) -> Cursor:
        return Cursor(self._real.execute(text, values), self)

    def _roll_back(self, statement: str) -> Cursor:
        if self._real.info.transaction_status is TransactionStatus.UNKNOWN or self._real.closed:
            raise psycopg.OperationalError("the connection is closed")
        if self._pipeline is not None and self._pipeline.status is PipelineStatus.ABORTED:
            if not self._careful:
                raise UnclearError("something before it went wrong")
            with contextlib.suppress(psycopg.Error):  # it was raised before
                self._pipeline.sync()
        done = self._send(statement)
        self.sync()
        return done

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotAllowedError(
                f"the store {self._name} cannot be used: {told(error)}. Let the role of store.url own the schema {SCHEMA} and its"
                " tables, or grant it all that their owner may."
            ) from error
        except _NOT_THE_MEDIUM:
            raise
        except psycopg.Error as error:
            raise MediumError(f"the store {self._name} failed: {told(error)}") from error


class Cursor:
    """What came of a statement, read when it is asked for."""

    def __init__(
        self,
        real: psycopg.Cursor[Any],
        connection: Connection,
        *,
        count: int | None = None,
        is_json: bool = False,
    ) -> None:
        self._real = real
        self._connection = connection
        self._count = count
        self._is_json = is_json

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        if self._count is None:
            if self._real.pgresult is None:
                self._connection.sync()
            self._count = max(0, self._real.rowcount)
        return self._count

    @property
    def lastrowid(self) -> int:
        """The number of the row that was put in, by a statement that ends in RETURNING."""
        return int(self.fetchone()[0])

    @property
    def has_rows(self) -> bool:
        """Whether it is a question."""
        self._connection.sync()
        return self._real.description is not None

    def fetchone(self) -> Any:
        """The next row, or None."""
        with self._connection._explained():  # noqa: SLF001  # one thing in two classes
            return dialect.row_of(self._real.fetchone(), is_json=self._is_json)

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        with self._connection._explained():  # noqa: SLF001
            return [dialect.row_of(row, is_json=self._is_json) for row in self._real.fetchall()]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


def is_conflict(error: BaseException) -> bool:
    """Whether it was somebody else who was in the way."""
    return isinstance(error, _CONFLICTS) or isinstance(error.__cause__, _CONFLICTS)


def is_worth_another(error: BaseException, tries: int) -> bool:
    """Whether a transaction that failed so, tried as often as that, is tried once more."""
    return is_conflict(error) and tries < TRIES


def told(error: psycopg.Error) -> str:
    """What the server, or the way there, says is wrong, on one line and without a full stop.

    libpq's advice, in lines that begin with a tab, is left out: what to do is said by whoever knows the configuration. Of several
    hosts each is told once.
    """
    text = error.diag.message_primary or str(error).partition(_SEVERAL)[2] or str(error)
    lines = [_OURS.sub("", " ".join(line.split())) for line in text.splitlines() if not line.startswith("\t")]
    return "; ".join(dict.fromkeys(filter(None, lines))).rstrip(".?!") or type(error).__name__
