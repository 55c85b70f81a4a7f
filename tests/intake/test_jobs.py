"""Work for the reconciler: the order in which its scopes have their turns."""

from __future__ import annotations

import pytest

from reserve_listener.intake.jobs import REQUEST, TRIES, Job, Target


@pytest.mark.parametrize("scopes", [1, 2, 5])
def test_scopes_of_which_something_newer_was_heard_come_round_together(scopes: int) -> None:
    """Only then is there anything to wait for: each has had its turn, however many they are, and none a second one."""
    job = Job(REQUEST, now_ms=0)
    job.begin([Target("room", f"omm_{number}") for number in range(scopes)], scopes)
    for _ in range(TRIES - 1):
        rounds = []
        for _ in range(scopes):
            assert job.again()
            rounds.append(job.comes_round)
        assert rounds == [False] * (scopes - 1) + [True]
    assert not job.again()


def test_a_scope_that_was_not_read_yet_is_not_waited_with() -> None:
    """Others are read first, and one that has been read is out of the round."""
    job = Job(REQUEST, now_ms=0)
    job.begin([Target("room", "omm_newer"), Target("room", "omm_2"), Target("room", "omm_newer_too")], 3)
    assert job.again()
    assert not job.comes_round
    job.left.popleft()
    assert job.again()
    assert job.comes_round
