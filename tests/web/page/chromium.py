"""Debian's Chromium, driven through its DevTools protocol: one process per session, a profile of its own for each page."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reserve_listener.simulator import patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PROGRAM: Final = shutil.which("chromium")
# The list below Chromium's address bar is made of pages, too: each new window loads them and their scripts, and on two cores the
# page that was asked for waits for that (first paint 172 ms with it, 120 ms without).
OPTIONS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup",
    "--hide-scrollbars", "--force-color-profile=srgb", "--font-render-hinting=none", "--remote-debugging-port=0",
)  # fmt: skip
START_TIMEOUT_S: Final = 30.0
ANSWER_TIMEOUT_S: Final = 20.0
WIDTH, HEIGHT = 1180, 900


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """A browser; gives the address of its DevTools."""
    assert PROGRAM is not None
    process = subprocess.Popen(
        [PROGRAM, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _address(folder / "DevToolsActivePort", process)
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + patience(START_TIMEOUT_S)
    while time.monotonic() < deadline and process.poll() is None:
        lines = file.read_text().split() if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)  # another process writes the file
    raise AssertionError(f"Chromium did not start (exit code {process.poll()})")


@dataclass
class Page:
    """A page in a profile of its own. `complaints`: what the browser says in its console, and scripts that failed."""

    socket: ClientConnection
    session: str = ""
    complaints: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Addresses that were asked for in vain."""
    loads: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _waiting: dict[int, asyncio.Future[Any]] = field(default_factory=dict)

    # -- the protocol ----------------------------------------------------------------------------------------------------------

    async def ask(self, method: str, **params: Any) -> Any:
        """A command of the protocol, and its answer."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        command: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        await self.socket.send(json.dumps(command))
        return await asyncio.wait_for(answer, patience(ANSWER_TIMEOUT_S))

    async def listen(self) -> None:
        """Take what the browser says, to its end."""
        try:
            async for text in self.socket:
                self._take(json.loads(text))
        except ConnectionClosed:
            pass

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answer = self._waiting.pop(message["id"])
            if "error" in message:
                answer.set_exception(AssertionError(message["error"]["message"]))
            elif not answer.done():
                answer.set_result(message["result"])
            return
        told = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif message["method"] == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(told["args"]))
        elif message["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif message["method"] == "Network.responseReceived" and told["response"]["status"] >= 400:
            self.failed.append(f"{told['response']['status']} {told['response']['url']}")
        elif message["method"] == "Page.loadEventFired":
            self.loads += 1

    # -- what a person does ----------------------------------------------------------------------------------------------------

    async def open(self, url: str) -> None:
        """Go to an address, and wait until everything of it is there."""
        await self.loaded(self.ask("Page.navigate", url=url))

    async def loaded(self, doing: Any) -> None:
        """Do what loads another page, and wait for that."""
        before = self.loads
        await doing
        async with asyncio.timeout(patience(ANSWER_TIMEOUT_S)):
            while self.loads == before:
                await asyncio.sleep(0.01)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = await self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        try:
            async with asyncio.timeout(patience(ANSWER_TIMEOUT_S)):
                while not await self.run(f"Boolean({script})"):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"never true: {script}\n{await self.text()}") from None

    async def text(self, selector: str = "body") -> str:
        """What a person reads there."""
        text: str = await self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return " ".join(text.split())

    async def click(self, selector: str) -> None:
        """With the mouse, in the middle of its first line."""
        x, y = await self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView({{block: 'center'}});"
            " const box = one.getClientRects()[0]; return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, buttons=1
            )

    async def write(self, selector: str, text: str) -> None:
        """Into a field, letter by letter, in place of what is there."""
        await self.run(f"document.querySelector({json.dumps(selector)}).select()")
        for letter in text:
            await self.ask("Input.insertText", text=letter)

    async def press(self, key: str) -> None:
        """A key, as `KeyboardEvent.key` names it."""
        more = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {"windowsVirtualKeyCode": 9}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **more)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    # -- how it is looked at ---------------------------------------------------------------------------------------------------

    async def size(self, width: int, height: int = HEIGHT, *, scale: float = 1) -> None:
        """Of the window."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 500,
        )  # fmt: skip

    async def look(self, *, dark: bool = False, media: str = "screen") -> None:
        """In light or dark, on a screen or on paper; nothing moves."""
        features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        await self.ask(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": name, "value": value} for name, value in features.items()],
        )

    async def speak(self, language: str) -> None:
        """What the browser asks for."""
        agent = (await self.ask("Browser.getVersion"))["userAgent"]
        await self.ask("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)

    async def picture(self, *, whole: bool = True) -> bytes:
        """A PNG of the window, or of the whole page."""
        taken = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])


@asynccontextmanager
async def page_in(devtools: str) -> AsyncIterator[Page]:
    """A page in a profile of its own, that goes with it."""
    async with connect(devtools, max_size=None, proxy=None) as socket:
        page = Page(socket)
        listener = asyncio.create_task(page.listen(), name="devtools")
        profile = (await page.ask("Target.createBrowserContext"))["browserContextId"]
        target = (await page.ask("Target.createTarget", url="about:blank", browserContextId=profile))[
            "targetId"
        ]
        session = (await page.ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page.session = session
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.ask(f"{domain}.enable")
            await page.size(WIDTH)
            await page.look()
            await page.speak("en")
            yield page
        finally:
            page.session = ""
            await page.ask("Target.disposeBrowserContext", browserContextId=profile)
            await socket.close()
            await listener
