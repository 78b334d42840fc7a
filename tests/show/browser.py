"""A real browser for tests: headless Chromium reads a page in a frame of a given width and says what it found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

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
    "--virtual-time-budget=10000",
)

# The wrapper's own script measures the page in the frame; the page itself may run none.
WRAPPER = """<!doctype html><meta charset="utf-8"><iframe id="f" width="{width}" height="900" style="border:0"
srcdoc="{page}"></iframe><pre id="out">waiting</pre><script>
const frame = document.getElementById("f");
frame.addEventListener("load", () => {{
  const page = frame.contentDocument, root = page.documentElement, images = [...page.images];
  const wide = [...page.body.querySelectorAll("*")].filter(e => !e.closest(".scroll, pre"))
    .filter(e => e.getBoundingClientRect().right > {width} + 1).map(e => e.tagName + " " + e.textContent.slice(0, 40));
  document.getElementById("out").textContent = JSON.stringify({{
    title: page.title, width: root.scrollWidth, wide, images: images.length,
    loaded: images.filter(i => i.complete && i.naturalWidth > 300).length,
    alts: images.map(i => i.alt), headings: [...page.querySelectorAll("h2")].map(e => e.textContent),
    scripts: page.scripts.length, text: page.body.innerText, marked: page.body.dataset.owned || "",
    columns: [...page.querySelectorAll("table th")].filter(e => e.getClientRects().length).map(e => e.textContent),
  }});
}});
</script>"""


def _run(folder: Path, *arguments: str) -> str:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: the report is not looked at in a browser")
    command = [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    return done.stdout.decode("utf-8", "replace")


def look(page: str, width: int, folder: Path) -> dict:
    """Open `page` in a frame of `width` pixels and return what a reader would find."""
    wrapper = folder / f"wrapper-{width}.html"
    wrapper.write_text(WRAPPER.format(width=width, page=html.escape(page)), encoding="utf-8")
    dom = _run(folder, "--dump-dom", wrapper.as_uri())
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, flags=re.S)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found.group(1)))


def to_pdf(path: Path, folder: Path) -> bytes:
    """Print a page as a person would, and return the PDF."""
    _run(folder, f"--print-to-pdf={folder / 'page.pdf'}", path.as_uri())
    return (folder / "page.pdf").read_bytes()
