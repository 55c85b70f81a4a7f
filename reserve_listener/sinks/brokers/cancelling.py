"""Who was cancelled: clients cancel what one waits for when a connection breaks, and asyncio cannot tell it from the caller's wish."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether the running task itself is to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
