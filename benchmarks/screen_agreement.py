"""The same answers as others where the question is the same: limma, ashrink, R's qvalue.

    python benchmarks/screen_agreement.py                printed
    python benchmarks/screen_agreement.py --ashrink      ashrink's default grid on the HIV data, too (minutes)

- `fi.moderate(method="empirical")` beside limma's eBayes: prostate (two groups), airway (~ celltype + dex) and pasilla
  (two groups) as log2(cpm + 0.5), with and without a trend in average expression; largest relative differences.
- `fi.screen(method="empirical", null="theoretical")` on the HIV z-values: the point-normal optimum and the mixture of
  normals, beside the likelihood of all being null and beside ashrink.
- Storey's q-value as the simulations have it, beside R's package.

Exits with 1 if anything that could be compared differs by more than `SAME`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from bench import interpreter
from common import HERE, SHARED, LeftOutError, Worker
from screen_methods import qvalue_agreement

import finetti as fi

Floats = npt.NDArray[np.float64]

TESTING = SHARED.parent / "testing"
# largest relative difference; of log-likelihoods absolute; of q-values (limma and qvalue iterate to 1e-4 or so)
SAME, SAME_LIKELIHOOD, SAME_Q = 1e-6, 1e-5, 1e-4
ASHRINK_LIMIT = 1200.0


def log_cpm(file: Path) -> tuple[Floats, list[str]]:
    """Counts per million as log2(cpm + 0.5), and the samples' names."""
    counts = pd.read_csv(file, index_col=0)
    return np.log2(counts.to_numpy() / counts.sum(axis=0).to_numpy() * 1e6 + 0.5), list(counts.columns)


def matrices() -> dict[str, tuple[Floats, Floats]]:
    """Matrix and design by name; the coefficient of interest is the last."""
    out = {}
    file = TESTING / "prostate_singh2002_expression.csv.gz"
    if file.exists():
        data = pd.read_csv(file, index_col=0)
        out["prostate"] = data.to_numpy(), _two([c.startswith("cancer") for c in data.columns])
    file, samples = TESTING / "airway_counts.csv.gz", TESTING / "airway_samples.csv"
    if file.exists():
        Y, names = log_cpm(file)
        about = pd.read_csv(samples).set_index("id").loc[names]
        donors = pd.get_dummies(about["celltype"], drop_first=True, dtype=float).to_numpy()
        treated = (about["dex"] == "treated").to_numpy(dtype=float)
        out["airway"] = Y, np.column_stack([np.ones(len(names)), donors, treated])
    file = TESTING / "pasilla_counts.csv"
    if file.exists():
        Y, names = log_cpm(file)
        out["pasilla"] = Y, _two([name.startswith("treated") for name in names])
    return out


def _two(second: list[bool]) -> Floats:
    return np.column_stack([np.ones(len(second)), np.asarray(second, dtype=float)])


def limma(Y: Floats, X: Floats, trend: bool) -> tuple[dict[str, Floats], str] | None:
    """limma's d0, s0^2, t and p of the last coefficient, and its version; None where it is not installed."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("Y", "X", "out")]
        for values, file in zip((Y, X), files, strict=False):
            np.ascontiguousarray(values.T, dtype="<f8").tofile(file)
        script = ["Rscript", "--vanilla", str(HERE / "peers" / "limma.R")]
        run = subprocess.run([*script, files[0], str(len(Y)), files[1], str(X.shape[1]), str(trend).upper(), files[2]],
                             capture_output=True, text=True)  # fmt: skip
        if run.returncode:
            return None
        out = np.fromfile(files[2], dtype="<f8")
    s0, t, p = out[1:].reshape(3, -1)
    return {"d0": out[:1], "s0²": s0, "t": t, "p": p}, run.stdout.strip()


def gap(mine: Floats, theirs: Floats) -> float:
    """Largest relative difference; of equal infinities and zeros 0."""
    with np.errstate(invalid="ignore"):
        relative = np.abs(mine - theirs) / np.maximum(np.abs(theirs), np.finfo(float).tiny)
    return float(np.max(np.where(mine == theirs, 0.0, relative)))


def compare_limma() -> list[bool]:
    """Print a row for every matrix, with and without trend."""
    print(f"{'moderate beside limma':24}{'d0':>10}{'s0²':>10}   largest relative differences: d0, s0², t, p")
    good = []
    for name, (Y, X) in matrices().items():
        for trend in (False, True):
            found = fi.moderate(Y, X, trend=trend, method="empirical")
            table = found.table(found.contrasts[-1])
            mine = {"d0": found.nodes.d0, "s0²": np.broadcast_to(found.prior_variance[0], len(Y)),
                    "t": table["t"].to_numpy(), "p": table["p"].to_numpy()}  # fmt: skip
            label = f"{name}{', trend' if trend else ''}"
            said = limma(Y, X, trend)
            if said is None:
                print(f"{label:24}limma is not installed")
                continue
            gaps = {k: gap(np.asarray(mine[k]), said[0][k]) for k in mine}
            d0, s0 = float(mine["d0"][0]), float(np.exp(np.mean(np.log(mine["s0²"]))))
            top = np.argsort(-np.abs(mine["t"]))[:3]
            rows = ", ".join(f"{i + 1} ({mine['t'][i]:.3f})" for i in top)
            same_top = set(top) == set(np.argsort(-np.abs(said[0]["t"]))[:3])
            print(f"{label:24}{d0:10.4f}{s0:10.5f}   " + ", ".join(f"{v:.1e}" for v in gaps.values())
                  + f"; top rows {rows}, limma's {'the same' if same_top else 'OTHERS'}; limma {said[1]}")  # fmt: skip
            good.append(max(gaps.values()) < SAME and same_top)
    return good


def compare_hiv(ashrink: bool) -> list[bool]:
    """The point-normal optimum, and the mixture beside ashrink's."""
    file = TESTING / "hiv_vantwout2003_z.csv"
    if not file.exists():
        return []
    z, good = pd.read_csv(file)["z"].to_numpy(), []
    null = float(-0.5 * np.sum(z * z) - 0.5 * z.size * np.log(2.0 * np.pi))
    options: dict[str, Any] = {"null": "theoretical", "method": "empirical"}
    point = fi.screen(z, **options)
    mixture = fi.screen(z, slab="mixture", priors={"pi0": fi.beta(1, 1)}, **options)
    print(f"\nHIV, {z.size} z-values; log-likelihoods:\n  all null           {null:.6f}")
    for label, found in (("point normal", point), ("mixture of normals", mixture)):
        pi0, sd = found.hyper()["mean"].iloc[:2]
        print(f"  {label:19}{found.log_likelihood:.6f} at pi0 {pi0:.6f}, slab sd {sd:.4f}")
        good.append(found.log_likelihood > null)
    if ashrink:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "z.npy"
            np.save(data, np.column_stack([z, np.ones_like(z)]))
            spec = json.dumps({"file": str(data), "what": "screen", "options": {}})
            try:
                python = interpreter("FINETTI_PEERS_PYTHON", ".venv-peers")
                worker = Worker([python, str(HERE / "peers" / "fit_ashrink.py"), spec], ASHRINK_LIMIT)
                took, said = worker.ask("go")["seconds"], worker.ask("estimates")
                worker.stop()
            except LeftOutError as reason:
                print(f"  ashrink            left out: {reason}")
            else:
                off = abs(said["log_likelihood"] - mixture.log_likelihood)
                print(f"  {said['version']:19}{said['log_likelihood']:.6f} at pi0 {said['estimates']['pi0']:.6f}, its "
                      f"mixture of normals; off by {off:.1e}; {took:.1f} s")  # fmt: skip
                good.append(off < SAME_LIKELIHOOD)
    return good


def main(argv: list[str]) -> int:
    """Compare, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ashrink", action="store_true")
    asked = parser.parse_args(argv)
    good = compare_limma() + compare_hiv(asked.ashrink)
    said = qvalue_agreement(10_000)
    if said is None:
        print("\nR's qvalue is not installed")
    else:
        print(f"\nStorey's q-value beside qvalue {said['version']}: {json.dumps(said)}")
        good.append(said["qvalue"] < SAME_Q)
    print(f"\n{sum(good)} of {len(good)} agree")
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
