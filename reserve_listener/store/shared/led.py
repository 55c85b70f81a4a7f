"""Work that only one of the daemons that share a store does at a time."""

from __future__ import annotations

from typing import Final

RETENTION: Final = "retention"
RECONCILE: Final = "reconcile"
ALERTS: Final = "alerts"
