"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource
from typing import Final

WANTED: Final = 8_192
"""A thousand connections of the webhook, as many posts of a sink, and room for several such sinks. The limit that a service
or a shell starts with is often 1,024, while 4,096 and more may be had for the asking."""


def raise_limit() -> None:
    """Ask for what the daemon may need, as far as it may have it without being root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def share(wanted: int) -> int:
    """So many, but never more than half of what there is: store, sinks and the platform's connection need the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // 2))
