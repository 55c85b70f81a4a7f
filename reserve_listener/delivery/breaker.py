"""The circuit breaker: a sink that is down is probed now and then instead of being tried with every delivery.

It opens after `THRESHOLD` failures in a row that mean that the whole sink is down, and closes at the first attempt that the
sink accepts or refuses: a 4xx answer shows that the receiver is up.
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
    """When the next probe is due, while it is open."""
    _asked_ms: int = 0
    _failures: int = 0
    _probes: int = 0

    def may_probe(self, now_ms: int) -> bool:
        """Whether a probe is due. One is, too, if the clock was set back to before the last one."""
        return not self._asked_ms <= now_ms < self.probe_ms

    def up(self) -> bool:
        """An attempt showed that the sink is up. Returns whether that closed the breaker."""
        was_open = self.is_open
        self.is_open, self._failures, self._probes = False, 0, 0
        return was_open

    def down(self, error: Exception, *, now_ms: int, jitter: float, probing: bool) -> bool:
        """An attempt showed that the sink is down. Returns whether that opened the breaker. `jitter`: 0 to 1."""
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
