"""What can go wrong on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from reserve_listener.lark import frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from reserve_listener.simulator.openapi.calls import Call


class Refusal(NamedTuple):
    """A refused handshake as the platform words it, in its `handshake-…` headers.

    514 with `autherrcode` 1000040350 means too many connections; 403 forbidden.
    """

    status: int
    msg: str = "refused"
    autherrcode: int | None = None


@dataclass(kw_only=True)
class ApiFault:
    """What goes wrong with calls of the API whose path contains `path`: put it into `Faults.api`.

    It is over after `times` calls (None: when it is taken out again). A `code` or a `status` other than 200 comes instead
    of the answer, and the call does nothing; all else is done to the answer when it has been made.
    """

    path: str = ""
    scope_ids: frozenset[str] = frozenset()
    """Only calls for the limits of these, if any are named."""
    times: int | None = None
    status: int = 200
    code: int | None = None
    """`code` of the answer; without it a `status` other than 200 comes with a page of HTML, as from a gateway."""
    msg: str = "simulated fault"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent instead of the answer's body."""
    content_type: str = "application/json; charset=utf-8"
    delay: float = 0.0
    """Seconds between reading and answering."""
    hang: bool = False
    """There is no answer; the connection stays."""
    cut: bool = False
    """The connection ends in the middle of the answer."""

    @classmethod
    def too_often(cls, times: int | None = None, *, path: str = "", reset_s: int = 1) -> ApiFault:
        """429 as the platform has it, with the seconds to wait."""
        headers = {"x-ogw-ratelimit-limit": "100", "x-ogw-ratelimit-reset": str(reset_s)}
        return cls(
            path=path,
            times=times,
            status=429,
            code=99991400,
            msg="request trigger frequency limit",
            headers=headers,
        )

    @classmethod
    def token_refused(cls, times: int | None = None, *, path: str = "/v1/") -> ApiFault:
        """The token is taken for a dead one, though it lives."""
        return cls(
            path=path,
            times=times,
            status=400,
            code=99991663,
            msg="Invalid access token for authorization.",
        )

    def spoils(self, path: str, scope_id: str | None) -> bool:
        """Whether it is one of such a call."""
        return self.path in path and (not self.scope_ids or scope_id in self.scope_ids)

    @property
    def replaces(self) -> bool:
        """Whether it comes instead of the answer."""
        return self.code is not None or self.status != 200  # noqa: PLR2004


NO_PERMISSION: Final = "api-permission"
READING: Final = "vc:room:readonly"
API_FAULTS: Final = {
    "api-token": ApiFault.token_refused(),
    "api-too-often": ApiFault.too_often(reset_s=5),
    "api-broken": ApiFault(status=502),
    "api-hang": ApiFault(hang=True),
    "api-cut": ApiFault(cut=True),
    "api-garbage": ApiFault(body=b"\x00garbage"),
    "api-slow": ApiFault(delay=3.0),
}
"""Faults of the API that a person can have by name; besides them `NO_PERMISSION`."""


@dataclass(kw_only=True)
class Faults:
    """Faults in force; each is read anew at every step, so they can be set and taken back at any time.

    The endpoint's come one before another in the order below.
    """

    endpoint_stall: float = 0.0
    """Seconds before the endpoint says anything."""
    endpoint_status: int = 200
    """HTTP status of the endpoint; other than 200 the body is `{"code": …, "msg": …}` without a URL."""
    endpoint_body: bytes | None = None
    """Sent as the body of the endpoint's answer, e.g. bytes that are no JSON."""
    endpoint_code: int = 0
    """`code` in the endpoint's answer; other than 0 there is no URL. It goes before the check of the credentials."""
    endpoint_msg: str = "simulated fault"
    """`msg` that goes with `endpoint_code` or `endpoint_status`."""
    endpoint_headers: dict[str, str] = field(default_factory=dict)
    """More headers on every answer of the endpoint, e.g. `{"Retry-After": "3"}`."""

    handshake_refuse: Refusal | tuple[int, str] | tuple[int, str, int] | int | None = None
    """Refuse the WebSocket: `Refusal(status, msg, autherrcode)`, or a plain HTTP status without such headers."""

    stall: bool = False
    """Half-open: nothing is read or answered (no WebSocket pong either) nor pushed, the TCP connection stays.

    Holds for all connections that are open while it is set. Once it is taken back they come to life again, and
    what the client has sent meanwhile is read; what was pushed meanwhile is lost.
    """
    no_app_pong: bool = False
    """App-level pings (control frames) stay without a pong; WebSocket pings are answered."""
    duplicate: float = 0.0
    """Probability (True: always) that an event is pushed twice, each with its own answer (`Push.copy`)."""
    reorder: bool = False
    """Of two events on a connection the second goes out first. One that stays alone goes out after 0.2 s."""
    split: int = 1
    """Parts that an event comes in."""
    garbage: bool = False
    """Before each event goes a frame that means nothing."""
    wrong_signature: bool = False
    """Webhook: pushes are signed with another key."""
    stale: bool = False
    """Webhook: the signature's timestamp is two days old."""
    wrong_token: bool = False
    """Webhook: pushes carry another verification token."""
    plain: bool = False
    """Webhook: pushes are not encrypted although there is a key."""
    drop_every: float = 0.0
    """Seconds after which all connections are reset, again and again; 0 is never."""

    api: list[ApiFault] = field(default_factory=list)
    """Faults of the HTTP API; of several that fit a call the first counts."""
    missing_permissions: set[str] = field(default_factory=set)
    """Permissions that are taken from the app, e.g. `vc:room:readonly`."""
    before_answer: Callable[[Call], object] | None = None
    """Called, and awaited if it can be, when a call's answer is made and not yet sent: a change that is pushed here is
    newer than the answer."""

    def switch_api(self, name: str) -> bool:
        """Turn a fault of `API_FAULTS`, or `NO_PERMISSION`, on or off; returns whether it is on now."""
        if name == NO_PERMISSION:
            self.missing_permissions ^= {READING}
            return READING in self.missing_permissions
        fault = API_FAULTS[name]
        if fault in self.api:
            self.api.remove(fault)
        else:
            self.api.append(fault)
        return fault in self.api

    def of_call(self, path: str, scope_id: str | None = None) -> ApiFault | None:
        """The fault of a call with this path, for the limits of that, which counts as one of its times."""
        fault = next((each for each in self.api if each.times != 0 and each.spoils(path, scope_id)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
        return fault


def garbage(random: Random) -> bytes:
    """A message that no client can make sense of: random bytes, or a frame with something essential amiss."""
    event = {frames.TYPE: frames.EVENT, frames.MESSAGE_ID: "garbage", frames.SUM: "1", frames.SEQ: "0"}
    return random.choice(
        [
            b"",
            random.randbytes(random.randrange(1, 200)),
            _frame(frames.DATA, {}),
            _frame(frames.DATA, {**event, frames.SUM: "many"}),
            _frame(frames.CONTROL, {frames.TYPE: "nonsense"}),
            _frame(7, event),
        ]
    )


def _frame(method: int, headers: dict[str, str]) -> bytes:
    return frames.encode(frames.new(service=1, method=method, headers=headers))
