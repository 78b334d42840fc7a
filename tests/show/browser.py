"""A real browser for tests: headless Chromium, driven through its DevTools protocol over a pair of pipes.

No package is needed for that: messages are JSON that ends in a zero byte (`--remote-debugging-pipe`). Clicks and keys
are those of a person (trusted events), the width is that of a phone, and everything that a page says on its
console, and every request that it makes, is kept.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PLACE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE = 60.0  # seconds for any one answer
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), " ": (32, " ")}

# What a reader finds, and whether anything sticks out of the page.
SEEN = """(() => {
  const page = document, images = [...page.images], edge = page.documentElement.clientWidth + 1;
  const shown = e => e.getClientRects().length > 0;
  return {
    title: page.title, width: page.documentElement.scrollWidth, images: images.length,
    wide: [...page.body.querySelectorAll("*")].filter(e => !e.closest(".scroll, pre, .line"))
      .filter(e => e.getBoundingClientRect().right > edge).map(e => e.tagName + " " + e.textContent.slice(0, 40)),
    loaded: images.filter(i => i.complete && i.naturalWidth > 300).length, alts: images.map(i => i.alt),
    headings: [...page.querySelectorAll("h2")].map(e => e.textContent), text: page.body.innerText,
    scripts: page.scripts.length, marked: page.body.dataset.owned || "",
    columns: [...page.querySelectorAll("table th")].filter(shown).map(e => e.textContent.trim()),
    maths: [...page.querySelectorAll("math")].filter(shown).map(e => e.getBoundingClientRect())
      .map(r => [r.width, r.height]),
  };
})()"""


def chromium() -> str | None:
    """Where Chromium is, if there is one that can be driven from here."""
    if os.name == "nt":
        return None
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One Chromium with one page; `open` it, look, click, press keys, print."""

    def __init__(self, program: str, profile: Path) -> None:
        import fcntl

        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        # Chromium wants descriptors 3 and 4: the ends meant for it go above those first, lest one overwrite the other.
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (reads, writes)]
        command = [sys.executable, "-c", PLACE, *map(str, ends), program, *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=ends)
        for fd in (reads, writes, *ends):
            os.close(fd)
        self._last, self._rest, self._session = 0, b"", None
        self.events: list[dict] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{part}.enable")

    def close(self) -> None:
        self._session = None
        self._send("Browser.close", {})
        self._process.wait(timeout=PATIENCE)
        os.close(self._to)
        os.close(self._from)

    # --- the protocol -----------------------------------------------------------------------------

    def ask(self, method: str, **params: object) -> dict:
        """Send one command and return its answer; what happens meanwhile is kept in `events`."""
        number = self._send(method, params)
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def _send(self, method: str, params: dict) -> int:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        return self._last

    def _receive(self) -> dict:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._from, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("Chromium does not answer")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    # --- what a person does -------------------------------------------------------------------------

    def open(self, path: Path, width: int = 1100, *, dark: bool = False, script: bool = True) -> None:
        """Open a file in a window of that many pixels; below 500 as a phone does."""
        phone = width < 500
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=2 if phone else 1,
                 mobile=phone)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self.ask("Page.navigate", url=Path(path).absolute().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._receive())

    def run(self, expression: str) -> object:
        """Evaluate an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def seen(self) -> dict:
        """What a reader finds on the page."""
        return self.run(SEEN)

    def click(self, selector: str, nth: int = 0) -> None:
        """Click the middle of an element, where it is on the screen."""
        box = self.run(f"""(() => {{
          const e = document.querySelectorAll({json.dumps(selector)})[{nth}];
          e.scrollIntoView({{block: "center", inline: "center"}});
          const r = e.getBoundingClientRect();
          return [r.left + r.width / 2, r.top + r.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press one key, or type one letter, where the focus is."""
        code, text = KEYS.get(key, (ord(key[0].upper()), key))
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def shot(self, path: Path, *, whole: bool = True) -> None:
        """Take a picture of the page, or of the first screen."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"] if not whole else self._whole()
        Path(path).write_bytes(base64.b64decode(data))

    def _whole(self) -> str:
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]

    def pdf(self) -> bytes:
        """Print the page on A4, as a person would."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
        return base64.b64decode(self.ask("Page.printToPDF", **paper)["data"])

    # --- what the page did ----------------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """Everything on the console since `open`, refusals of the Content-Security-Policy included."""
        said = []
        for event in self.events:
            if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                said.append(json.dumps(event["params"])[:500])
        return said

    def requests(self) -> list[str]:
        """The addresses asked for since `open`, data within the page and the page itself apart."""
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in asked[1:] if not url.startswith("data:")]
