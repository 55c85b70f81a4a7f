"""Delivery: one worker per sink carries its own rows out of the store."""

from reserve_listener.delivery.worker import Worker
from reserve_listener.delivery.workers import Workers

__all__ = ["Worker", "Workers"]
