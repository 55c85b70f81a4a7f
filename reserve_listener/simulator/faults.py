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
    """A refused handshake, in the platform's `handshake-…` headers.

    514 with `autherrcode` 1000040350 means too many connections, 403 means forbidden.
    """

    status: int
    msg: str = "refused"
    autherrcode: int | None = None


@dataclass(kw_only=True)
class ApiFault:
    """A fault of API calls whose path contains `path`. Put it into `Faults.api`.

    It ends after `times` calls; None: when it is taken out again. With a `code`, or a `status` other than 200, the call does
    nothing and that is its answer; everything else happens to the finished answer.
    """

    path: str = ""
    scope_ids: frozenset[str] = frozenset()
    """If not empty: only calls for the limits of these scopes."""
    times: int | None = None
    status: int = 200
    code: int | None = None
    """`code` of the answer. Without it, a `status` other than 200 comes with an HTML page, as from a gateway."""
    msg: str = "simulated fault"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent in place of the answer's body."""
    content_type: str = "application/json; charset=utf-8"
    delay: float = 0.0
    """Seconds between reading the call and answering it."""
    hang: bool = False
    """No answer comes, and the connection stays open."""
    cut: bool = False
    """The connection breaks in the middle of the answer."""

    @classmethod
    def too_often(cls, times: int | None = None, *, path: str = "", reset_s: int = 1) -> ApiFault:
        """The platform's 429, with the seconds to wait."""
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
        """Refuse a valid token as if it had expired."""
        return cls(
            path=path,
            times=times,
            status=400,
            code=99991663,
            msg="Invalid access token for authorization.",
        )

    def spoils(self, path: str, scope_id: str | None) -> bool:
        """Whether it affects such a call."""
        return self.path in path and (not self.scope_ids or scope_id in self.scope_ids)

    @property
    def replaces(self) -> bool:
        """Whether it replaces the answer."""
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
"""Faults of the API that people can switch on by name, besides `NO_PERMISSION`."""


@dataclass(kw_only=True)
class Faults:
    """The faults in force. They are read at every step, so they can be set and cleared at any time.

    The endpoint's faults take precedence in the order below.
    """

    endpoint_stall: float = 0.0
    """Seconds before the endpoint says anything."""
    endpoint_status: int = 200
    """HTTP status of the endpoint. If not 200, the body is `{"code": …, "msg": …}` without a URL."""
    endpoint_body: bytes | None = None
    """Sent as the body of the endpoint's answer, e.g. bytes that are not JSON."""
    endpoint_code: int = 0
    """`code` in the endpoint's answer. If not 0, there is no URL, and credentials are not checked."""
    endpoint_msg: str = "simulated fault"
    """`msg` that goes with `endpoint_code` or `endpoint_status`."""
    endpoint_headers: dict[str, str] = field(default_factory=dict)
    """Further headers for every answer of the endpoint, e.g. `{"Retry-After": "3"}`."""

    handshake_refuse: Refusal | tuple[int, str] | tuple[int, str, int] | int | None = None
    """Refuse the WebSocket: `Refusal(status, msg, autherrcode)`, or a plain HTTP status without such headers."""

    stall: bool = False
    """Half-open: nothing is read, answered (not even WebSocket pings) or pushed, while the TCP connection stays.

    It affects all connections that are open while it is set. Once it is cleared they work again: what the client has sent
    meanwhile is read, and what was pushed meanwhile is lost.
    """
    no_app_pong: bool = False
    """App-level pings (control frames) get no pong; WebSocket pings are answered."""
    duplicate: float = 0.0
    """Probability (True: always) that an event is pushed twice, each with its own answer (`Push.copy`)."""
    reorder: bool = False
    """Of two events on a connection the second goes out first. A single event goes out after 0.2 s."""
    split: int = 1
    """How many parts an event is split into."""
    garbage: bool = False
    """A meaningless frame goes out before each event."""
    wrong_signature: bool = False
    """Webhook: pushes are signed with another key."""
    stale: bool = False
    """Webhook: the signature's timestamp is two days old."""
    wrong_token: bool = False
    """Webhook: pushes carry another verification token."""
    plain: bool = False
    """Webhook: pushes are not encrypted, although there is a key."""
    drop_every: float = 0.0
    """How often, in seconds, all connections are reset; 0: never."""

    api: list[ApiFault] = field(default_factory=list)
    """Faults of the HTTP API. If several match a call, the first one counts."""
    missing_permissions: set[str] = field(default_factory=set)
    """Permissions that the app lacks, e.g. `vc:room:readonly`."""
    before_answer: Callable[[Call], object] | None = None
    """Called (and awaited if possible) after a call's answer is made and before it is sent, so that a change pushed here is newer
    than the answer."""

    def switch_api(self, name: str) -> bool:
        """Switch a fault of `API_FAULTS`, or `NO_PERMISSION`, on or off. Returns whether it is on now."""
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
        """The fault for a call with this path and scope; this counts as one of its `times`."""
        fault = next((each for each in self.api if each.times != 0 and each.spoils(path, scope_id)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
        return fault


def garbage(random: Random) -> bytes:
    """A message that no client can make sense of: random bytes, or a frame that lacks something essential."""
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
