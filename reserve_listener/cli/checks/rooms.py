"""Whether the app may ask what `[rooms]` wants to know: one call of each kind. The daemon works without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from reserve_listener.cli.checks.findings import Finding
from reserve_listener.lark.api.errors import ApiError, GoneError, PermissionMissingError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from reserve_listener.config import Config, RoomsConfig
    from reserve_listener.lark.api.client import Client

T = TypeVar("T")

NAMES: Final = "names of rooms"
LIMITS: Final = "reconciling"
PEOPLE: Final = "names of people"
NO_NAMES: Final = "rooms and levels are known by their IDs only"
NO_LIMITS: Final = "changes missed while the daemon is away are not found"
NO_PEOPLE: Final = "people are known by their IDs only"
NOBODY: Final = "ou_00000000000000000000000000000000"
"""Permissions are looked at before ids are: without them nobody is asked about either."""


def without_secret(config: Config) -> Finding | None:
    """What is off because there is no secret to ask with; None: nothing is."""
    rooms = config.rooms
    wanted = [
        what
        for what, on in ((NAMES, rooms.names), (LIMITS, rooms.reconcile), (PEOPLE, rooms.people_names))
        if on
    ]
    if config.lark.has_app_secret or not wanted:
        return None
    return Finding(
        where="rooms",
        level="warn",
        what=f"off, because there is no secret to ask the platform with: {', '.join(wanted)}",
        do="set lark.app_secret_file; for a store app, which has none, set names = false and reconcile = false in [rooms]",
    )


async def look(api: Client, rooms: RoomsConfig) -> list[Finding]:
    """Nothing that is missing is a failure."""
    findings: list[Finding] = []
    if rooms.names or rooms.reconcile:
        losses = ((rooms.names, NO_NAMES), (rooms.reconcile, NO_LIMITS))
        loss = ", and ".join(what for wanted, what in losses if wanted)
        finding, sample = await _try(NAMES, api.sample(), loss)
        findings.append(finding)
        if rooms.reconcile and sample is not None:
            limits = api.limits(sample.scope_type, sample.scope_id)
            findings.append((await _try(LIMITS, limits, NO_LIMITS))[0])
    if rooms.people_names:
        findings.append((await _try(PEOPLE, api.people([NOBODY]), NO_PEOPLE))[0])
    return findings


async def _try(where: str, asking: Awaitable[T], loss: str) -> tuple[Finding, T | None]:
    fine = Finding(where=where, what=f"the app may ask for {'the limits' if where == LIMITS else 'them'}")
    try:
        return fine, await asking
    except ApiError as error:
        if type(error) in (ApiError, GoneError):
            return fine, None  # of this room or person; whoever lacks the permission does not come as far
        why = str(error) if isinstance(error, PermissionMissingError) else f"cannot be asked for now: {error}"
        advice = (
            error.hint
            or "try again; if the problem persists, look at what is between this machine and the platform"
        )
        return Finding(where=where, level="warn", what=f"{why}; {loss}", do=advice), None
