"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

_HANG_SECONDS = 60
# The paths of Debian and others.
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Page:
    """A tab. All calls wait for the page itself, not for a time.

    Attributes:
        problems: errors of the page's console, such as violations of its content security policy.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """Make a call and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = self._next()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def open(self, address: str) -> None:
        """Open a page and wait until it has loaded."""
        self.send("Page.navigate", url=address)
        self.loaded()

    def loaded(self) -> None:
        """Wait for the end of the next load."""
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """Run a script; return its value, or that of its promise."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a condition of the page is true. Check it at each frame, and fail if the page hangs."""
        self.run(
            f"new Promise((done, fail) => {{ setTimeout(() => fail(new Error('it hangs')), {_HANG_SECONDS * 1000});"
            f" const look = () => ({condition}) ? done() : requestAnimationFrame(look); look(); }})"
        )

    def click(self, selector: str) -> None:
        """Click an element, and wait for the page that it opens."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self.loaded()

    def type(self, text: str) -> None:
        """Type keys into the element that has the focus."""
        for character in text:
            key = "Enter" if character == "\r" else character
            code = 13 if character == "\r" else 0
            pressed = {"key": key, "text": character, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", type="keyDown", **pressed)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def show(self, width: int, *, dark: bool = False) -> None:
        """Set the width of the window and the color scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page, in its name's format."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        kind = path.suffix.removeprefix(".")
        taken = self.send("Page.captureScreenshot", format=kind, captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        match message.get("method"):
            case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                entry = message["params"]["entry"]
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")
            case "Runtime.exceptionThrown":
                self.problems.append(str(message["params"]["exceptionDetails"]))
        return message


@contextmanager
def browser() -> Iterator[Page]:
    """Start a browser with a new profile, and end it."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert program is not None, f"none of {', '.join(NAMES)} is installed; on Debian: apt install chromium"
    with (
        tempfile.TemporaryDirectory(prefix="fal-browser-", ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            [
                *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--no-first-run", "--disable-background-networking", "--hide-scrollbars"),
                *("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"),
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process,
    ):
        try:
            with connect(_address_of(process), max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()


def _address_of(process: subprocess.Popen[str]) -> str:
    """Return the tab's DevTools address."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("DevTools listening on ws://"):
            port = line.split("ws://127.0.0.1:")[1].split("/")[0]
            with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                address: str = next(each for each in json.load(answer) if each["type"] == "page")[
                    "webSocketDebuggerUrl"
                ]
                return address
    raise AssertionError(f"the browser ended with {process.wait()}")
