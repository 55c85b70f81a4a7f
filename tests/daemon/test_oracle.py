"""The daemon in worlds full of faults, judged by an oracle; and the oracle itself."""

from __future__ import annotations

import asyncio
import json
import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.simulator import sample_event
from tests.oracle import Evidence, Post, World, problems

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("worlds", "kills"), [(2, 5), pytest.param(4, 60, marks=pytest.mark.long)])
@pytest.mark.slow
async def test_whatever_fails_what_was_answered_is_delivered_in_order(
    tmp_path: Path, worlds: int, kills: int
) -> None:
    """Through kills, stops, resets, refusals, a failing receiver and full disks every answered push reaches every sink."""
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"SEED={seed}")  # shown when the test fails; give it back in the environment
    lives = [World(tmp_path / f"world-{number}", seed + number) for number in range(worlds)]
    found = await asyncio.gather(*(world.run(kills) for world in lives))
    for world in lives:
        print(dict(world.counts))
    broken = [problem for each in found for problem in each]
    assert not broken, "\n".join(broken)
    assert all(world.counts["answered 200"] > kills for world in lives)


def _event(event_id: str, scope: str, days: int) -> dict[str, Any]:
    envelope = sample_event(event_id=event_id, scope_id=scope)
    envelope["event"]["time_config"]["days_in_advance"] = days
    return envelope


def _body(event_id: str, envelope: dict[str, Any]) -> bytes:
    event = envelope["event"]
    return json.dumps({"id": event_id, "subject": event["scope_id"], "data": event}).encode()


PUSHED = {"a1": _event("a1", "a", 1), "b1": _event("b1", "b", 2), "a2": _event("a2", "a", 3)}
BODIES = {event_id: _body(event_id, envelope) for event_id, envelope in PUSHED.items()}


def _posts(*event_ids: str) -> list[Post]:
    return [Post(event_id=event_id, body=BODIES[event_id], accepted=True) for event_id in event_ids]


def _file(*event_ids: str) -> bytes:
    return b"".join(BODIES[event_id] + b"\n" for event_id in event_ids)


def _log(*event_ids: str) -> list[dict[str, Any]]:
    return [{"event_id": event_id, "data": PUSHED[event_id]["event"]} for event_id in event_ids]


SOUND = Evidence(
    pushed=PUSHED,
    acknowledged=set(PUSHED),
    stored=["a1", "b1", "a2"],
    integrity="ok",
    unsettled=0,
    dead=0,
    log=_log("a1", "b1", "a2"),
    file=_file("a1", "b1", "a2"),
    posts=_posts("a1", "b1", "a2"),
    stderr="",
)


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param(SOUND, id="each once"),
        pytest.param(replace(SOUND, file=_file("a1", "b1", "a2", "a1", "a2")), id="again after a crash"),
        pytest.param(replace(SOUND, log=_log("b1", "a1", "a2")), id="scopes are strangers"),
        pytest.param(replace(SOUND, acknowledged={"a1"}), id="stored but the answer was lost"),
        pytest.param(
            replace(SOUND, posts=[replace(_posts("a1")[0], accepted=False), *SOUND.posts]), id="tried again"
        ),
    ],
)
def test_the_oracle_is_content_with_at_least_once(evidence: Evidence) -> None:
    """Repetitions, another order between scopes and lost answers are no broken promises."""
    assert problems(evidence) == []


REFUSED_A1 = [replace(_posts("a1")[0], accepted=False)]


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (replace(SOUND, stored=["a1", "b1"]), "store: answered 200 and not stored"),
        (replace(SOUND, stored=["a1", "b1", "a2", "a1"]), "store: stored twice"),
        (replace(SOUND, integrity="row 7 missing from index"), "store: damaged"),
        (replace(SOUND, unsettled=1), "store: 1 deliveries are not settled"),
        (replace(SOUND, dead=1), "store: 1 dead letters"),
        (replace(SOUND, log=_log("a1", "b1")), "log: answered 200 and not delivered"),
        (replace(SOUND, file=_file("a1", "b1")), "file: answered 200 and not delivered"),
        (replace(SOUND, posts=_posts("a1", "b1")), "http: answered 200 and not delivered"),
        (replace(SOUND, acknowledged=set(), file=_file("a1", "b1")), "file: stored and not delivered"),
        (replace(SOUND, pushed={"a1": PUSHED["a1"], "b1": PUSHED["b1"]}), "http: delivered and never pushed"),
        (replace(SOUND, log=_log("a2", "b1", "a1")), "log: before an older one of its scope"),
        (replace(SOUND, file=_file("b1", "a2", "a1")), "file: before an older one of its scope"),
        (replace(SOUND, posts=_posts("a2", "b1", "a1")), "http: before an older one of its scope"),
        (
            replace(SOUND, posts=REFUSED_A1 + _posts("a2", "b1", "a1")),
            "http: before an older one of its scope",
        ),
        (replace(SOUND, file=SOUND.file[:-9]), "file: the last line has no end"),
        (replace(SOUND, file=SOUND.file + b'{"id": "a\n'), "file: line 4 is not whole"),
        (replace(SOUND, posts=[*SOUND.posts, replace(SOUND.posts[0], body=BODIES["a1"] + b" ")]), "differ"),
        (replace(SOUND, posts=[*SOUND.posts, replace(SOUND.posts[0], event_id="b1")]), "not the body's id"),
        (
            replace(SOUND, file=SOUND.file.replace(b'"days_in_advance": 3', b'"days_in_advance": 1')),
            "body of another push",
        ),
        (replace(SOUND, log=[*SOUND.log, {"event_id": "a1", "data": {}}]), "log: other data"),
        (replace(SOUND, stderr="Traceback (most recent call last)"), "standard error: Traceback"),
    ],
)
def test_the_oracle_sees_each_broken_promise(evidence: Evidence, problem: str) -> None:
    """Evidence with one thing wrong is found wanting, and the sentence says in what."""
    assert any(problem in each for each in problems(evidence))
