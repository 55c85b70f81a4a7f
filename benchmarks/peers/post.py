"""The bar for the http sink: a bare httpx2 loop that posts one body again and again, so many at a time."""

from __future__ import annotations

import asyncio
import sys
import time

import httpx2


async def main(url: str, in_flight: int, count: int, body: bytes) -> None:
    """Print requests a second."""
    left = iter(range(count))

    async def post(client: httpx2.AsyncClient) -> None:
        for _ in left:
            (await client.post(url, content=body)).raise_for_status()

    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx2.AsyncClient(limits=limits, trust_env=False) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(post(client) for _ in range(in_flight)))
        print(count / (time.perf_counter() - begun))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), b"x" * 700))
