"""What reconciling found and how far it is, as people are told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from reserve_listener.clock import now_ms, rfc3339
from reserve_listener.web.answers import Change, Comparison, HistoryRow, ReconcileStatus

if TYPE_CHECKING:
    from reserve_listener.intake.jobs import Job
    from reserve_listener.intake.reconciler import Reconciler
    from reserve_listener.model import HistoryEntry
    from reserve_listener.protocols.store import Directory

AT_ONCE: Final = 500
"""Differences in one answer."""


def status_of(reconciler: Reconciler | None, off: str | None) -> ReconcileStatus:
    """How reconciling is. `off`: why there is none."""
    reason = off if reconciler is None else reconciler.off
    job = None if reconciler is None else reconciler.agenda.current
    if reconciler is None or reason is not None or job is None:
        return ReconcileStatus(state="waiting" if reason is None else "off", reason=reason)
    due_s = reconciler.next_s
    return ReconcileStatus(
        state=_state(job),
        reason=job.problem,
        hint=job.hint,
        total=job.total,
        done=job.done,
        differences=job.differences + job.earlier,
        gone=job.gone,
        not_read=job.failed,
        started=rfc3339(job.started_ms) if job.is_pass else None,
        ended=None if job.ended_ms is None else rfc3339(job.ended_ms),
        next=None if due_s is None else rfc3339(now_ms() + round((due_s - time.monotonic()) * 1000)),
    )


def comparison_of(job: Job, after: int, directory: Directory, *, ahead: int = 0) -> Comparison:
    """What came of a job, with the differences from that number on; for whoever waits for it.

    It has failed, too, if something could not be read. `ahead`: scopes that a pass before it has still to read.
    """
    found = job.found[after : after + AT_ONCE]
    problem, hint = job.problem, job.hint
    state = _state(job)
    if state == "done" and job.unread is not None:
        state, (problem, hint) = "failed", job.unread
    return Comparison(
        id=job.id,
        state=state,
        dry_run=job.dry_run,
        total=job.total,
        done=job.done,
        differences=job.differences + job.before,
        gone=job.gone,
        not_read=job.failed,
        problem=problem,
        hint=hint,
        found=[_difference(entry, directory) for entry in found],
        more=after + len(found) < len(job.found),
        stuck=job.is_stuck,
        ahead=ahead,
    )


_decode_changes = msgspec.json.Decoder(list[Change] | None).decode


def _state(job: Job) -> str:
    if job.ended_ms is not None:
        return "done" if job.problem is None else "failed"
    return "waiting" if job.problem is not None or not job.is_begun else "running"


def _difference(entry: HistoryEntry, directory: Directory) -> HistoryRow:
    scope = entry.scope
    return HistoryRow(
        event_id=entry.event_id,
        time=None if entry.created_ms is None else rfc3339(entry.created_ms),
        received=rfc3339(entry.received_ms),
        scope_id=scope.scope_id,
        scope_type=scope.scope_type,
        scope_name=directory.name(scope.scope_type, scope.scope_id),
        revision=entry.revision,
        changes=_decode_changes(entry.changes or "null"),
        summary=entry.summary,
        superseded=False,
        origin=entry.origin,
    )
