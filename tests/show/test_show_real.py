"""The whole path on real files: the command line in a process of its own, the real fit, the files it leaves."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import finetti
from finetti import datasets
from finetti.show import plots

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
    tables = [line for line in done.stdout.splitlines() if not any(w in line for w in ("= 1, …,", "… 73 more"))]
    assert not any("…" in line for line in tables), "a number or name was cut"
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert done.stdout.count("u_county[j, Intercept] ~ Normal(0, sd_county[Intercept]²)") == 1


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
        assert len(pd.read_csv(folder / study / "data.csv")) == len(datasets.load(study))


def test_demo_report_in_a_browser(demo, look, browser):
    _, folder = demo
    seen = look(folder / "report.html", 400)
    assert seen["width"] <= 400
    assert seen["wide"] == []
    # shrinkage, hyper, predictive for each, and pairs where there are two hyperparameters
    assert seen["loaded"] == seen["images"] >= 6
    assert seen["headings"] == ["Eight schools", "Radon in 85 counties", "How to reproduce"]
    assert browser.complaints() == []
    assert (folder / "report.html").stat().st_size < 4_000_000


def test_the_numbers_printed_are_the_numbers_of_the_fit(run, schools):
    fit = finetti.fit(SCHOOLS, schools, priors={"sd": finetti.half_cauchy(5)}, seed=3)
    status, out, err = run("fit", schools, SCHOOLS, "--prior", "sd=half_cauchy(5)", "--seed", 3)
    assert (status, err) == (0, "")
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("beta[Intercept]"))
    truth = fit.summary().loc["beta[Intercept]"]
    assert float(row[1]) == pytest.approx(truth["mean"], abs=0.006)
    assert float(row[2]) == pytest.approx(truth["sd"], abs=0.006)
    assert "half_cauchy(5)" in out
    table = fit.groups("school").set_index("level")
    for level in table.index:
        row = next(line.split() for line in out.splitlines() if line.strip().startswith(f"{level} "))
        shown = table.loc[level, ["raw", "raw_se", "weight", "population", "mean", "sd", "q5", "q50", "q95"]]
        assert [float(cell) for cell in row[2:]] == pytest.approx(list(shown), abs=0.0051)


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
def test_refusals_are_one_line_and_status_2(run, schools, formula, options, words):
    status, out, err = run("fit", schools, formula, *options)
    assert (status, out) == (2, "")
    assert err.startswith("finetti: ")
    assert err.count("\n") == 1
    assert words in err


def test_a_refusal_in_a_process_of_its_own(schools):
    done = command("fit", schools, "effect ~ 1 + (1 | skool)")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("finetti: ") and done.stderr.count("\n") == 1
    assert "skool" in done.stderr


def test_missing_values_are_refused_or_dropped_and_counted(run, tmp_path):
    table = datasets.load("sleepstudy").astype({"Reaction": float})
    table.loc[3, "Reaction"] = np.nan
    table.to_csv(tmp_path / "sleep.csv", index=False)
    line = ["fit", tmp_path / "sleep.csv", "Reaction ~ 1 + Days + (1 | Subject)"]
    status, _, err = run(*line)
    assert status == 2
    assert "missing" in err
    status, out, err = run(*line, "--missing", "drop")
    assert (status, err) == (0, "")
    assert out.count("rows with missing values were dropped") == 1
    assert "179 rows" in out


@pytest.mark.parametrize(
    ("pooling", "words", "weight"),
    [
        ("none", "not pooled", 1.0),
        ("complete", "completely pooled", 0.0),
        ("Subject=empirical", "partially pooled", None),
    ],
)
def test_every_kind_of_pooling_is_named(run, tmp_path, pooling, words, weight):
    datasets.load("sleepstudy").to_csv(tmp_path / "sleep.csv", index=False)
    formula = "Reaction ~ 1 + Days + (1 | Subject)"
    status, out, err = run("fit", tmp_path / "sleep.csv", formula, "--pooling", pooling, "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    assert f"raw estimate → {words};" in out
    assert f"posterior mean, {words}" in (tmp_path / "out" / "report.html").read_text("utf-8")
    if weight is not None:
        assert pd.read_csv(tmp_path / "out" / "groups-Subject.csv")["weight"].to_numpy() == pytest.approx(
            weight, abs=1e-9
        )


def examples(*arguments):
    """Commands of the help, as a shell takes them."""
    text = re.sub(r"\\\s*\n", " ", command(*arguments).stdout)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(("finetti fit", "finetti demo"))]


def test_examples_of_the_help_run(run, demo, tmp_path, monkeypatch):
    _, folder = demo
    monkeypatch.chdir(tmp_path)
    Path("finetti-demo").symlink_to(folder)
    datasets.load("sleepstudy").to_csv("sleepstudy.csv", index=False)
    datasets.load("sleepstudy").to_parquet("sleepstudy.parquet")
    lines = [*examples("--help"), *examples("fit", "--help")]
    assert len(lines) == 7
    lines = [line for line in lines if line[0] == "fit" and "--help" not in line]
    assert len(lines) == 5
    for line in lines:
        status, out, err = run(*line)
        assert (status, err) == (0, ""), line
        assert "All checks passed." in out
    assert Path("results/report.html").exists()


def test_data_that_are_no_table(run, tmp_path):
    for name, content in (("a.csv", b""), ("b.csv", b"\x00\xff\xfe"), ("c.parquet", b"no parquet"), ("d.xyz", b"1")):
        (tmp_path / name).write_bytes(content)
        status, _, err = run("fit", tmp_path / name, "y ~ 1 + (1 | g)")
        assert status == 2, (name, err)
        assert err.count("\n") == 1


def test_a_reader_that_leaves_does_not_stop_the_files(schools, tmp_path):
    line = f'{" ".join(CLI)} fit {schools} "{SCHOOLS}" --out {tmp_path / "out"} | head -1'
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, env=ENVIRONMENT,
                          check=False, timeout=300)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii", "COLUMNS": "60"}, {"NO_COLOR": "1"}])
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


# Says so where the fit has begun, and then never ends by itself: no race between the signal and a fast machine.
ENDLESS = """
import sys
import time

from finetti.posterior import api
from finetti.show import cli

true_fit = api.fit

def fit(*arguments, **options):
    def progress(*_):
        print("fitting", file=sys.stderr, flush=True)
        time.sleep(600)

    return true_fit(*arguments, **{**options, "progress": progress})

api.fit = fit
cli.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="interruption by signal is a thing of POSIX")
def test_interrupted_is_130_without_traceback(schools):
    line = [sys.executable, "-c", ENDLESS, "fit", str(schools), SCHOOLS]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr.readline() == "fitting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_shrinkage_of_a_real_fit():
    fit = finetti.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", datasets.load("sleepstudy"))
    ax = fit.plot.shrinkage("Subject", "Days")
    assert ax.get_xlabel() == "change of Reaction per unit of Days, by Subject"
    import matplotlib.pyplot as plt

    plt.close(ax.figure)
    figure = plots.shrinkage_figure(fit)
    assert "18 Subject estimates" in " ".join(figure.axes[0].get_title(loc="left").split())
