"""The platform's wishes about timing (`ClientConfig`), taken within reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PING_INTERVAL_S: Final = (5.0, 120.0)
NONCE_LIMIT_S: Final = 60.0
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """In seconds; the defaults are the SDK's (lark_oapi/ws/client.py, `Client.__init__`)."""

    ping_interval_s: float = 120.0
    reconnect_nonce_s: float = 30.0
    """The first retry after a close by the server is spread over this."""
    reconnect_interval_s: float = 0.0
    """A lower bound for the wait between attempts; counts up to `backoff_cap`."""

    def updated(self, config: Mapping[str, Any]) -> Timing:
        """With what `config` holds that is usable. `ReconnectCount` is ignored: we never stop trying."""
        ping = _number(config.get("PingInterval"))
        nonce = _number(config.get("ReconnectNonce"))
        interval = _number(config.get("ReconnectInterval"))
        return replace(
            self,
            ping_interval_s=self.ping_interval_s
            if ping is None
            else min(max(ping, PING_INTERVAL_S[0]), PING_INTERVAL_S[1]),
            reconnect_nonce_s=self.reconnect_nonce_s if nonce is None else min(nonce, NONCE_LIMIT_S),
            reconnect_interval_s=self.reconnect_interval_s if interval is None else min(interval, DAY_S),
        )


def _number(value: Any) -> float | None:
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        return None
    return float(min(value, DAY_S))  # an int can be larger than any float
