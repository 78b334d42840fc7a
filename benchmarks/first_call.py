"""What a new user waits for: the import, and the very first fit with no compiled kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

IMPORT = "import time; t = time.perf_counter(); import finetti; print(time.perf_counter() - t)"
FIRST = """
import time
import finetti as fi
data = fi.datasets.load("sleepstudy")
for what in ("first", "second"):
    t = time.perf_counter()
    fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", data)
    fit.summary(), fit.groups(), fit.posterior
    print(what, round(time.perf_counter() - t, 2))
"""


def run(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print the figures."""
    print("import finetti (s), best of 5:", round(min(float(run(IMPORT)) for _ in range(5)), 3))
    with tempfile.TemporaryDirectory() as cache:
        print("fit, summary, groups and draws, no kernels cached (s):", run(FIRST, NUMBA_CACHE_DIR=cache).split())
        print("the same in a new process (s):                        ", run(FIRST, NUMBA_CACHE_DIR=cache).split())


if __name__ == "__main__":
    main()
