"""The whole path on real files: the command line in a process of its own, the real fit, the files it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import finetti
from finetti import datasets
from finetti.show import plots
from show.browser import look

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(finetti.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}
CLI = [sys.executable, "-m", "finetti.show.cli"]
SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"


def command(*arguments, **kind):
    kind = {"capture_output": True, "text": True, "encoding": "utf-8", "env": ENVIRONMENT, "timeout": 300, **kind}
    return subprocess.run([*CLI, *map(str, arguments)], check=False, **kind)


@pytest.fixture(scope="module")
def schools(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "schools.csv"
    datasets.load("eight_schools").to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = command("demo", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "out"


def test_demo_says_what_was_learned(demo):
    done, _ = demo
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    for words in ("Eight schools", "Radon in 85 counties", "school", "county", "sd_county[Intercept]", "beta[floor]"):
        assert words in done.stdout
    assert "DO NOT USE" not in done.stdout
    assert not any("…" in line and "more" not in line for line in done.stdout.splitlines()), "a number or name was cut"


def test_demo_writes_files_that_open(demo):
    _, folder = demo
    counties = pd.read_csv(folder / "radon" / "groups-county.csv")
    assert counties["level"].nunique() == 85
    summary = pd.read_csv(folder / "radon" / "summary.csv", index_col="label")
    # Gelman & Hill's varying-intercept model with the county's uranium: about -0.67 and 0.72.
    assert summary.loc["beta[floor]", "mean"] == pytest.approx(-0.67, abs=0.05)
    assert summary.loc["beta[log_uranium]", "mean"] == pytest.approx(0.72, abs=0.06)
    with xr.open_dataset(folder / "radon" / "posterior.nc", engine="h5netcdf") as draws:
        assert np.isfinite(draws["sigma"]).all()
    for study in ("eight_schools", "radon"):
        assert (folder / study / "shrinkage.png").stat().st_size > 20_000
        assert (folder / study / "shrinkage.svg").read_text("utf-8").rstrip().endswith("</svg>")


def test_demo_report_in_a_browser(demo, tmp_path):
    _, folder = demo
    seen = look((folder / "report.html").read_text("utf-8"), 400, tmp_path)
    assert seen["width"] <= 400
    assert seen["wide"] == []
    assert seen["loaded"] == 2
    assert seen["headings"] == ["Eight schools", "Radon in 85 counties", "How to reproduce"]


def test_the_numbers_printed_are_the_numbers_of_the_fit(schools):
    fit = finetti.fit(SCHOOLS, schools, priors={"sd": finetti.half_cauchy(5)}, seed=3)
    done = command("fit", schools, SCHOOLS, "--prior", "sd=half_cauchy(5)", "--seed", 3)
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("beta[Intercept]"))
    truth = fit.summary().loc["beta[Intercept]"]
    assert float(row[1]) == pytest.approx(truth["mean"], abs=0.006)
    assert float(row[2]) == pytest.approx(truth["sd"], abs=0.006)
    assert "half_cauchy(5)" in done.stdout


@pytest.mark.parametrize(
    ("formula", "options", "words"),
    [
        ("effect ~ 1 + (1 | skool)", [], "skool"),
        ("effect ~ __import__('os')", [], ""),
        ("effect", [], ""),
        (SCHOOLS, ["--prior", "sd=half_cauchy(-5)"], "half_cauchy"),
        (SCHOOLS, ["--prior", "sd_nobody=half_cauchy(5)"], "sd_nobody"),
        (SCHOOLS, ["--pooling", "nobody=none"], "nobody"),
        (SCHOOLS, ["--family", "cauchy"], "cauchy"),
        (SCHOOLS, ["--method", "magic"], "magic"),
        (SCHOOLS, ["--missing", "guess"], "guess"),
    ],
)
def test_refusals_are_one_line_and_status_2(schools, formula, options, words):
    done = command("fit", schools, formula, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("finetti: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_data_that_are_no_table(tmp_path):
    for name, content in (("a.csv", b""), ("b.csv", b"\x00\xff\xfe"), ("c.parquet", b"no parquet"), ("d.xyz", b"1")):
        (tmp_path / name).write_bytes(content)
        done = command("fit", tmp_path / name, "y ~ 1 + (1 | g)")
        assert done.returncode == 2, (name, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_does_not_stop_the_files(schools, tmp_path):
    line = f'{" ".join(CLI)} fit {schools} "{SCHOOLS}" --out {tmp_path / "out"} | head -1'
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, env=ENVIRONMENT,
                          check=False, timeout=300)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "60"}, {"NO_COLOR": "1"}])
def test_odd_terminals(schools, environment):
    done = command("fit", schools, SCHOOLS, env={**ENVIRONMENT, **environment})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "28.00" in done.stdout


def test_on_a_terminal_there_is_colour_unless_refused(schools):
    if not hasattr(os, "openpty"):
        pytest.skip("no pseudo-terminals on this system")
    shown = {}
    for name, extra in (("colour", {}), ("plain", {"NO_COLOR": "1"})):
        leader, follower = os.openpty()
        environment = {k: v for k, v in ENVIRONMENT.items() if k not in ("NO_COLOR", "COLUMNS")}
        environment |= {"TERM": "xterm-256color", **extra}
        process = subprocess.Popen(
            [*CLI, "fit", str(schools), SCHOOLS], stdout=follower, stderr=follower, env=environment
        )
        os.close(follower)
        text = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux says so when the other end has closed
                break
            if not part:
                break
            text += part
        os.close(leader)
        assert process.wait(timeout=60) == 0
        shown[name] = text.decode("utf-8", "replace")
    assert "\x1b[1m" in shown["colour"]
    assert "\x1b[3" not in shown["plain"]
    assert all("28.00" in text for text in shown.values())


@pytest.mark.skipif(os.name == "nt", reason="interruption by signal is a thing of POSIX")
def test_interrupted_is_130_without_traceback(tmp_path):
    rng = np.random.default_rng(0)
    n = 400_000
    frame = pd.DataFrame({"y": rng.normal(size=n), "a": rng.integers(0, 3000, n), "b": rng.integers(0, 3000, n)})
    frame.to_csv(tmp_path / "big.csv", index=False)
    line = [*CLI, "fit", str(tmp_path / "big.csv"), "y ~ 1 + (1 | a) + (1 | b)"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    time.sleep(3.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_shrinkage_of_a_real_fit():
    fit = finetti.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", datasets.load("sleepstudy"))
    ax = fit.plot.shrinkage("Subject", "Days")
    assert ax.get_xlabel() == "Reaction: coefficient of Days by Subject"
    import matplotlib.pyplot as plt

    plt.close(ax.figure)
    figure = plots.shrinkage_figure(fit)
    assert "18 Subject estimates" in " ".join(figure.axes[0].get_title(loc="left").split())
