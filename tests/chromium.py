"""Headless Chromium, driven over its debugging pipe: no package, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60
"""How long an answer may take on a busy machine."""

_FLAGS = (
    "--headless",
    # In a container, root has no user namespaces to make a sandbox of; the pages are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-component-update",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

# Chromium reads its messages from descriptor 3 and answers on 4.
_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One tab; keeps what its page logged and asked for."""

    def __init__(self, browser: _Browser) -> None:
        self._browser = browser
        self.problems: list[str] = []
        """Errors and warnings of the console, exceptions that nobody caught, and what the policy refused."""
        self.requests: list[str] = []
        self._loaded: set[str] = set()
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.listeners[self._session] = self._listen
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def _listen(self, method: str, values: dict[str, Any]) -> None:
        if method == "Page.lifecycleEvent" and values["name"] == "load":
            self._loaded.add(values["loaderId"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(values["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.problems.append(str(values["args"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.problems.append(values["entry"]["text"])

    def open(self, path: Path) -> None:
        """Load a page and wait for it, and for its first paint."""
        loader = self.call("Page.navigate", url=path.as_uri())["loaderId"]
        self._browser.listen_until(lambda: loader in self._loaded)
        self.painted()

    def follow(self, link: str) -> None:
        """Click on what a selector finds, and wait for the page that it leads to."""
        before = set(self._loaded)
        self.run(f"document.querySelector({json.dumps(link)}).click()")
        self._browser.listen_until(lambda: bool(self._loaded - before))
        self.painted()

    def run(self, script: str) -> Any:
        """Return the value of an expression, of a promise when it is kept."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def painted(self) -> None:
        """Wait until what was changed so far is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        self.run(
            "new Promise((done) => { const look = () => "
            f"({condition}) ? done() : setTimeout(look, 10); look(); }})"
        )

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Press and release a key, as a keyboard does."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def look(self, width: int = 1400, height: int = 900, dark: bool = False, phone: bool = False) -> None:
        """Choose the window's size and the system's theme."""
        # A tab behind another gets no frames.
        self.call("Page.bringToFront")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.painted()

    def screenshot(self, path: Path, whole: bool = False) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


class _Browser:
    """The messages: JSON, each ended by a NUL."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._buffer, self._last = b"", 0
        self.listeners: dict[str, Any] = {}

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self._writing, rest) :]
        deadline = time.monotonic() + SECONDS
        while (answer := self._receive(deadline)).get("id") != self._last:
            self._tell(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def listen_until(self, there: Callable[[], bool]) -> None:
        """Hand on what is told until a condition holds."""
        deadline = time.monotonic() + SECONDS
        while not there():
            self._tell(self._receive(deadline))

    def _tell(self, event: dict[str, Any]) -> None:
        listener = self.listeners.get(event.get("sessionId", ""))
        if listener and "method" in event:
            listener(event["method"], event["params"])

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reading], [], [], max(0, deadline - time.monotonic()))
            part = os.read(self._reading, 1 << 16) if ready else b""
            if not part:
                raise AssertionError("Chromium has ended" if ready else f"no answer in {SECONDS} s")
            self._buffer += part
        whole, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(whole)
        return message


def _pipe() -> tuple[int, int]:
    """Return a pipe whose ends are none of the descriptors 3 and 4, which Chromium reads and writes."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


@contextmanager
def browser(profile: Path) -> Iterator[_Browser]:
    """Give a browser, which is gone afterwards."""
    assert PROGRAM is not None
    to_read, to_write = _pipe(), _pipe()
    numbers = str(to_read[0]), str(to_write[1])
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *numbers, PROGRAM, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(to_read[0], to_write[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read[0])
    os.close(to_write[1])
    try:
        yield _Browser(to_write[0], to_read[1])
    finally:
        # Chromium leaves when its pipe closes.
        os.close(to_read[1])
        os.close(to_write[0])
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
