"""Draws docs/img/screen-*.png from the leukaemia data that ship with finetti.

    .venv/bin/python benchmarks/screen_figures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

import finetti as fi

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "img"


def main() -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = fi.screen("estimate", "se", df="df", labels="gene", data=fi.datasets.load("leukaemia"))
    for name in ("histogram", "shrinkage", "volcano", "discoveries"):
        figure, ax = plt.subplots(figsize=(7.2, 4.8))
        getattr(found.plot, name)(ax=ax)
        figure.savefig(IMAGES / f"screen-{name}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)
    print(found)
    print(found.discoveries(fdr=0.05))
    print(found.discoveries(fsr=0.05, at_least=0.2))


if __name__ == "__main__":
    main()
