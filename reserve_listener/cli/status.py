"""`reserve-listener status`: the daemon's state, and the reasons for it."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from reserve_listener.cli.listing import at_terminal, json_text, local_time, short_id
from reserve_listener.cli.options import ConfigOption, JsonOption
from reserve_listener.cli.stores import locate_store
from reserve_listener.cli.streams import until_interrupted
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from reserve_listener.web.answers import FailedDelivery, Gap, SinkStatus, Status

EXIT_CODES = {"ok": 0, "stopped": 3}
"""Of a verdict; 1 for every other."""

WATCH_S = 2.0
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
CLEAR = "\x1b[H\x1b[2J"

BELOW = {"reason": "", "hint": "  → ", "attempt": "  "}
"""What stands below another line, and how it begins there."""


def status(
    config: ConfigOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every two seconds, until Ctrl-C.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing; only set the exit code.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how the daemon is doing. It is ok, degraded, failing or stopped; also shows why, and what to do about it.

    Exit codes: 0 ok, 1 degraded or failing, 3 no daemon is running. Takes at most 5 seconds, whatever the daemon is doing.

    Example: reserve-listener status --json
    """
    store = locate_store(config, quiet=quiet).store.url
    if watch:
        with until_interrupted():
            _watch(store, as_json=as_json)
    found = _look(store)
    if not quiet:
        typer.echo(_json(found, indent=2) if as_json else "\n".join(_lines(found)))
    raise typer.Exit(EXIT_CODES.get(found.status, 1))


def _watch(store: str, *, as_json: bool) -> "NoReturn":
    import time

    while True:
        found = _look(store)
        if as_json:
            typer.echo(_json(found, indent=None))
        elif at_terminal() and os.environ.get("TERM") != "dumb":
            typer.echo(CLEAR + "\n".join(_lines(found)))
        else:
            typer.echo("\n".join([*_lines(found), ""]))
        sys.stdout.flush()
        time.sleep(WATCH_S)


def _look(store: str) -> "Status":
    """The daemon's own answer, or what can be said without it."""
    from reserve_listener.errors import NoAnswerError
    from reserve_listener.store import backend
    from reserve_listener.web.answers import Status
    from reserve_listener.web.client import STATUS_TIMEOUT_S, get

    try:
        found = get(store, "/status", Status, timeout_s=STATUS_TIMEOUT_S)
    except NoAnswerError as error:
        process = backend(store).holder()
        hint = f"process {process or 'unknown'} hangs or is stopped (SIGSTOP), or the machine is overloaded; its log may say why"
        return _unanswered(store, process, str(error), hint)
    if found is not None:
        return found
    if process := backend(store).holder():
        text = f"process {process} holds the store, but does not listen on its control socket"
        return _unanswered(
            store, process, text, "it may just be starting or stopping; if the socket was removed, restart it"
        )
    return _without_answer(store)


def _unanswered(store: str, process: str | None, reason: str, hint: str) -> "Status":
    """A daemon that does not say how it is: what the store knows has to do."""
    from msgspec.structs import replace

    from reserve_listener.web.answers import Reason

    why = Reason(part="daemon", since=None, reason=reason, hint=hint)
    pid = int(process) if process is not None and process.isdecimal() else None
    found = _without_answer(store)
    others = (
        found.reasons if found.status != "stopped" else []
    )  # replicas on other machines do what this one does not
    status = "degraded" if found.status in {"ok", "degraded"} else "failing"
    return replace(found, status=status, reasons=[why, *others], pid=pid)


def _without_answer(store: str) -> "Status":
    """What can be said of a store while no daemon on this machine says more."""
    from reserve_listener.daemon.elsewhere import unknown, without_answer
    from reserve_listener.daemon.snapshot import stopped
    from reserve_listener.errors import ReserveListenerError
    from reserve_listener.store import backend, open_reader

    found = backend(store)
    try:
        with open_reader(store) as reader:
            insight = reader.insight(gaps_since_ms=0)
    except ReserveListenerError as error:
        if found.files:
            return stopped(found.name, None, problem=str(error))
        return unknown(found.name, str(error))  # daemons may run on other machines
    return without_answer(found.name, insight)


def _json(found: "Status", *, indent: int | None) -> str:
    from msgspec import to_builtins

    return json_text(to_builtins(found), indent=indent)


def _lines(found: "Status") -> "Iterator[str]":
    yield _line("status", found.status)
    for reason in found.reasons:
        since = f" (since {_when(reason.since)})" if reason.since else ""
        yield _line("reason", f"{reason.part}: {reason.reason}{since}")
        if reason.hint:
            yield _line("hint", reason.hint)
    if found.running_s is not None:
        yield _line("running", f"{_span(found.running_s)}, process {found.pid}, version {found.version}")
    for alert in found.alerts:
        yield _line("alert", f"{alert.summary} (since {_when(alert.since)})")
    yield from _connection(found)
    yield _line("last event", _when(found.last_event) or "none")
    size = "" if found.store.size_mb is None else f", {found.store.size_mb} MiB"
    bound = "" if found.store.max_size_mb is None else f" of {found.store.max_size_mb}"
    yield _line("store", f"{found.store.path}{size}{bound}")
    for sink in found.sinks:
        yield _line("sink", _sink(sink))
    for replica in found.replicas:
        leads = ", ".join(replica.leads) or "nothing"
        yield _line(
            "replica",
            f"{replica.host}, process {replica.pid}, version {replica.version}, {replica.connection};"
            f" seen {_when(replica.seen)}; leads {leads}",
        )
    for failure in found.failures:
        yield from _failure(failure)
    for gap in found.gaps:
        yield _line("gap", f"{_when(gap.from_)} to {_when(gap.to)}: {_found_after(gap)}")
    yield from _reconciling(found)


def _found_after(gap: "Gap") -> str:
    if gap.found is None:
        return "changes may be lost"
    unread = gap.not_read or 0
    left = (
        f"; {unread} {'room or level' if unread == 1 else 'rooms or levels'} could not be read"
        if unread
        else ""
    )
    return f"changes were missed; {gap.found} found by comparing limits with the platform's{left}"


def _reconciling(found: "Status") -> "Iterator[str]":
    now = found.reconcile
    if now is None:
        return
    facts = [now.state if now.reason is None else f"{now.state}: {now.reason}"]
    if now.total:
        facts.append(f"{now.done} of {now.total} rooms and levels")
        facts.append(f"{now.differences} {'change' if now.differences == 1 else 'changes'} found")
        facts += [f"{now.gone} gone"] if now.gone else []
        facts += [f"{now.not_read} not read"] if now.not_read else []
    for name, moment in (("started", now.started), ("ended", now.ended), ("next", now.next)):
        facts += [f"{name} {_when(moment)}"] if moment else []
    yield _line("reconcile", ", ".join(facts))
    if now.hint and now.state != "off":
        yield _line("hint", now.hint)


def _connection(found: "Status") -> "Iterator[str]":
    connection = found.connection
    if connection is None:
        return
    facts = [connection.text]
    if connection.since:
        facts.append(f"since {_when(connection.since)}")
    if connection.next_attempt:
        facts.append(f"next attempt {_when(connection.next_attempt)}")
    if connection.last_frame:
        facts.append(f"last frame {_when(connection.last_frame)}")
    if connection.reconnects_last_hour:
        facts.append(f"reconnects in the last hour: {connection.reconnects_last_hour}")
    yield _line("connection", ", ".join(facts))


def _sink(sink: "SinkStatus") -> str:
    parts = [f"{sink.name}: {sink.state}", f"{sink.pending} pending"]
    if sink.dead_letters:
        parts.append(f"{sink.dead_letters} dead letters")
    if sink.last_error:
        since = f"since {_when(sink.failing_since)}: " if sink.failing_since else ""
        parts.append(since + sink.last_error)
    if sink.next_attempt:
        parts.append(f"next attempt {_when(sink.next_attempt)}")
    return ", ".join(parts)


def _failure(failure: "FailedDelivery") -> "Iterator[str]":
    ending = f", next attempt {_when(failure.next_attempt)}" if failure.next_attempt else ""
    name = failure.scope_name if at_terminal() else None
    where = f"{failure.scope_type} {name or _id(failure.scope_id)}"
    yield _line(
        "failure", f"{failure.sink}: event {_id(failure.event_id)} of {where}: {failure.state}{ending}"
    )
    for attempt in failure.attempts:
        took = "" if attempt.duration_s is None else f", took {attempt.duration_s} s"
        error = f": {attempt.error}" if attempt.error else ""
        yield _line("attempt", f"{_when(attempt.time)}  {attempt.outcome}{took}{error}")


def _line(name: str, value: str) -> str:
    """For a program each line has its name; a person sees which belong to the one above."""
    if not at_terminal():
        return f"{name}\t{visible(value)}"
    label, mark = ("", BELOW[name]) if name in BELOW else (name, "")
    return f"{label:<11} {mark}{visible(value)}"


def _when(rfc3339: str | None) -> str:
    return local_time(rfc3339) if rfc3339 and at_terminal() else rfc3339 or ""


def _span(seconds: int) -> str:
    """`2 d 3 h` for a person, seconds for a program."""
    if not at_terminal() or seconds < MINUTE_S:
        return f"{seconds} s"
    if seconds < HOUR_S:
        return f"{seconds // MINUTE_S} min"
    if seconds < DAY_S:
        return f"{seconds // HOUR_S} h {seconds % HOUR_S // MINUTE_S} min"
    return f"{seconds // DAY_S} d {seconds % DAY_S // HOUR_S} h"


def _id(text: str) -> str:
    return short_id(text) if at_terminal() else text
