"""The platform's HTTP API, as far as a listener for rooms' limits needs it: answers, codes, rate limits and traps."""

from reserve_listener.simulator.openapi.calls import Call
from reserve_listener.simulator.openapi.forms import Unstated

__all__ = ["Call", "Unstated"]
