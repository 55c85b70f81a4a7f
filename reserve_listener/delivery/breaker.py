"""The circuit breaker: a sink that is down is not asked again and again, but probed.

Open after `THRESHOLD` failures in a row that say that the sink as a whole is down; closed by the first attempt that it
takes, or refuses. An answer of the 400 class says that the receiver is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reserve_listener.delivery.retry import RetryPolicy, probe_delay_s, wished_s

THRESHOLD: Final = 5


@dataclass(slots=True)
class Breaker:
    """The state for one sink. Times are milliseconds since the epoch."""

    policy: RetryPolicy
    is_open: bool = False
    probe_ms: int = 0
    """When to probe next, while it is open."""
    _asked_ms: int = 0
    _failures: int = 0
    _probes: int = 0

    def may_probe(self, now_ms: int) -> bool:
        """Whether it is time for a probe. It is too when the clock was set back behind the last one."""
        return not self._asked_ms <= now_ms < self.probe_ms

    def up(self) -> bool:
        """An attempt showed that the sink is up; whether that closed the breaker."""
        was_open = self.is_open
        self.is_open, self._failures, self._probes = False, 0, 0
        return was_open

    def down(self, error: Exception, *, now_ms: int, jitter: float, probing: bool) -> bool:
        """An attempt showed that the sink is down; whether that opened the breaker. `jitter`: the jitter, 0 to 1."""
        self._failures += 1
        if self.is_open and not probing:  # it had begun before
            self.probe_ms = max(self.probe_ms, now_ms + round(wished_s(self.policy, error) * 1000))
            return False
        if self._failures < THRESHOLD:
            return False
        opened, self.is_open = not self.is_open, True
        delay_s = probe_delay_s(self.policy, error, probes=self._probes, jitter=jitter)
        self._asked_ms, self.probe_ms = now_ms, now_ms + round(delay_s * 1000)
        self._probes += 1
        return opened
