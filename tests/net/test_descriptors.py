"""The limit on open files, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from reserve_listener.net import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
descriptors.raise_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], descriptors.share(1000))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "limit", "share"),
    [
        (256, 4_096, 4_096, 1_000),
        (256, 512, 512, 256),
        (1_000, 1_000, 1_000, 500),
        (64, 20_000, 8_192, 1_000),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be(soft: int, hard: int, limit: int, share: int) -> None:
    """To the hard limit, up to what is needed; connections take half of what there is at the most."""
    script = SCRIPT.format(soft=soft, hard=hard)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(limit), str(share)]
