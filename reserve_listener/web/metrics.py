"""`/metrics`, in the form that whoever asks takes best."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric
    from starlette.requests import Request


class Metrics(Protocol):
    """What there is to measure."""

    async def collect(self) -> Sequence[Metric]:
        """All of it, as it is now. Bounded in time; does not raise."""


class _Found:
    """What an encoder takes for a registry: it asks for the metrics and nothing else."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        yield from self._metrics
        yield from PROCESS.collect()


PROCESS: Final = ProcessCollector(registry=None)


def route(metrics: Metrics) -> Route:
    """The endpoint."""

    async def answer(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        found = _Found(await metrics.collect())
        text = await asyncio.to_thread(encode, found)  # some milliseconds, which the loop does not have
        return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})

    return Route("/metrics", answer)
