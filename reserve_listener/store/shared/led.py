"""What one daemon does at a time, of several that share a store."""

from __future__ import annotations

from typing import Final

RETENTION: Final = "retention"
RECONCILE: Final = "reconcile"
ALERTS: Final = "alerts"
