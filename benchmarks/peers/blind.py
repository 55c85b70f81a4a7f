"""The floor: a bare WebSocket client that answers every frame with success and looks at nothing."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request

from websockets.asyncio.client import connect

from reserve_listener.lark import frames


def place(domain: str, app_id: str, app_secret: str) -> str:
    """Ask the endpoint where to connect."""
    request = urllib.request.Request(
        f"{domain}/callback/ws/endpoint",
        data=json.dumps({"AppID": app_id, "AppSecret": app_secret}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["data"]["URL"])


async def main(domain: str, app_id: str, app_secret: str) -> None:
    """Connect and answer until killed."""
    async with connect(place(domain, app_id, app_secret), compression=None, proxy=None) as connection:
        async for message in connection:
            frame = frames.decode(message if isinstance(message, bytes) else message.encode())
            if frame.method == frames.DATA:
                frame.payload = b'{"code":200}'
                await connection.send(frames.encode(frame))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
