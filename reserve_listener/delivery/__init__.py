"""Delivery: one worker per sink carries its own rows out of the store."""

from reserve_listener.delivery.worker import SinkHealth, Worker
from reserve_listener.delivery.workers import SinkSpec, Workers

__all__ = ["SinkHealth", "SinkSpec", "Worker", "Workers"]
