"""Chromium without a window, driven over a pipe by its own protocol: no other package, no port, no network."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL in software
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
]


class Browser:
    """One page. Messages go to the browser's descriptor 3 and come from its 4, each ended by a zero byte."""

    def __init__(self, write: int, read: int, seconds: float) -> None:
        self._write, self._read, self._seconds = write, read, seconds
        self._ids, self._buffer, self._session = itertools.count(1), b"", ""
        self.problems: list[str] = []  # uncaught exceptions, errors and warnings on the console, files asked for
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression is true, as long as for an answer."""
        end = time.monotonic() + self._seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"waited in vain for {condition}; {self.problems}"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return path

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], self._seconds)
            assert ready, f"no answer in {self._seconds} s; {self.problems}"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.problems.append(json.dumps(parameters["args"]))
        elif method == "Log.entryAdded":
            level, text = parameters["entry"]["level"], parameters["entry"]["text"]
            if level == "error" or "WebGL contexts" in text:  # other warnings are of the driver, about speed
                self.problems.append(text)
        elif method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("data:", "blob:", "about:")):
                self.problems.append(url[:200])


@contextmanager
def open_browser(profile: Path, *, width: int, height: int, seconds: float = 30) -> Iterator[Browser]:
    """A browser with a window of that size, ended after use.

    Args:
        profile: an empty folder.
        seconds: how long to wait for an answer or a condition.
    """
    assert CHROME is not None
    ours, theirs = os.pipe(), os.pipe()  # to the browser, from the browser
    read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1]))  # clear of 3 and 4

    def descriptors() -> None:
        os.dup2(read, 3)
        os.dup2(write, 4)

    command = [CHROME, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(command, preexec_fn=descriptors, pass_fds=(3, 4), stdout=log, stderr=log)
    for fd in (ours[0], theirs[1], read, write):
        os.close(fd)
    try:
        browser = Browser(ours[1], theirs[0], seconds)
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        yield browser
        browser._session = ""
        browser.call("Browser.close")
        process.wait(10)
    finally:
        process.kill()
        process.wait()
        os.close(ours[1])
        os.close(theirs[0])
