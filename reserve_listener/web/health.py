"""Health for machines: is it alive, is it ready. Answered from memory, for anybody, without a word that is secret.

The paths and `?verbose` are those of Kubernetes' own servers; the JSON is for monitors that read a body.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from reserve_listener.web.answers import Check, Health
from reserve_listener.web.replies import reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

OK: Final = "ok"
FAILING: Final = "failing"


class Probes(Protocol):
    """What there is to ask; each answers at once."""

    def live(self) -> Mapping[str, Check]:
        """Whether a restart would help."""

    def ready(self) -> Mapping[str, Check]:
        """Whether events are heard and taken."""


def routes(probes: Probes) -> list[Route]:
    """`/livez`, which is also `/healthz`, and `/readyz`."""
    asked = {"livez": probes.live, "healthz": probes.live, "readyz": probes.ready}
    return [Route(f"/{name}", _answering(name, look)) for name, look in asked.items()]


def _answering(
    name: str, look: Callable[[], Mapping[str, Check]]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        checks = dict(look())
        is_well = all(check.status == OK for check in checks.values())
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" in request.query_params:
            text = _verbose(name, checks, is_well=is_well)
            return PlainTextResponse(text, status, {"cache-control": "no-store"})
        return reply(Health(status=OK if is_well else FAILING, checks=checks), status)

    return answer


def _verbose(name: str, checks: Mapping[str, Check], *, is_well: bool) -> str:
    lines = [
        f"[+]{part} ok" if check.status == OK else f"[-]{part} failed: {check.reason}"
        for part, check in checks.items()
    ]
    return "\n".join([*lines, f"{name} check {'passed' if is_well else 'failed'}", ""])
