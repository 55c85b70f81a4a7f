"""What the simulator tells a watcher, e.g. the command `simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reserve_listener.simulator.openapi import Call
    from reserve_listener.simulator.pushes import Attempt, Push


class Watcher:
    """Told what happens, in the loop and at once; a method that is not overridden does nothing."""

    def endpoint_answered(self, code: int) -> None:
        """The endpoint has answered with this code: 0 is a URL, an HTTP status other than 200 stands for itself."""

    def connected(self, connections: int) -> None:
        """A client has connected; so many are open now."""

    def disconnected(self, connections: int, code: int | None) -> None:
        """A connection has ended with this close code (1006: without a close frame); so many are open now."""

    def concluded(self, push: Push, attempt: Attempt, again_in: float | None) -> None:
        """An attempt is over; the next one follows in so many seconds, None when there is none."""

    def api_answered(self, call: Call) -> None:
        """A call of the HTTP API is answered, or about to be left without an answer."""
