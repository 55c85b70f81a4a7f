"""What the simulator tells a watcher, e.g. the command `simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reserve_listener.simulator.openapi import Call
    from reserve_listener.simulator.pushes import Attempt, Push


class Watcher:
    """Is told what happens, at once and on the loop. A method that is not overridden does nothing."""

    def endpoint_answered(self, code: int) -> None:
        """The endpoint has answered with this code (0: a URL), or with this HTTP status if it is not 200."""

    def connected(self, connections: int) -> None:
        """A client has connected. Gets how many connections are open now."""

    def disconnected(self, connections: int, code: int | None) -> None:
        """A connection has ended with this close code (1006: no close frame). Gets how many are open now."""

    def concluded(self, push: Push, attempt: Attempt, again_in: float | None) -> None:
        """An attempt is over. Gets the seconds until the next one; None if there is none."""

    def api_answered(self, call: Call) -> None:
        """A call of the HTTP API has been answered, or will get no answer."""
