"""The command line's own work, with a stand-in for the fit: wiring, files, exit statuses, silence."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import xarray as xr

import finetti
from finetti.errors import DataError
from finetti.show import cli
from finetti.show.outputs import write_entry
from finetti.show.report import Entry
from show.fakes import eight_schools, many, sleepstudy


@pytest.fixture
def calls(monkeypatch):
    """Replace `finetti.posterior.api.fit`; returns the list of calls, and what they give or raise can be set."""
    made = []

    def fit(formula, data, **options):
        made.append((formula, data, options))
        if isinstance(fit.result, BaseException):
            raise fit.result
        return fit.result or (many(85) if "county" in formula else eight_schools())

    fit.result = None
    made_api = ModuleType("finetti.posterior.api")
    made_api.fit = fit
    monkeypatch.setitem(sys.modules, "finetti.posterior.api", made_api)
    if find_spec("finetti.posterior") is None:
        monkeypatch.setitem(sys.modules, "finetti.posterior", ModuleType("finetti.posterior"))
    made_api.calls = made
    return made_api


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "schools.csv"
    path.write_text("school,effect,se\nA,28,15\nB,8,10\nC,-3,16\n")
    return path


def test_options_reach_the_fit(run, calls, table):
    status, out, err = run(
        "fit", table, "effect | se(se) ~ 1 + (1 | school)", "--prior", "sd=half_cauchy(5)", "--prior",
        "beta[Intercept]=normal(0, 10)", "--pooling", "school=none", "--missing", "drop", "--method", "auto", "--draws",
        100, "--seed", 7, "--probs", "0.1,0.9",
    )  # fmt: skip
    assert (status, err) == (0, "")
    ((formula, data, options),) = calls.calls
    assert (formula, data) == ("effect | se(se) ~ 1 + (1 | school)", table)
    assert {k: str(v) for k, v in options.pop("priors").items()} == {
        "sd": "half_cauchy(5)", "beta[Intercept]": "normal(0, 10)"
    }  # fmt: skip
    assert options.pop("progress") is None
    assert options == {
        "family": "gaussian", "pooling": {"school": "none"}, "missing": "drop", "method": "auto", "draws": 100,
        "seed": 7,
    }  # fmt: skip
    assert "10 %" in out
    assert "\x1b" not in out


def test_out_writes_everything(run, calls, table, tmp_path):
    status, out, _ = run("fit", table, "y ~ (1 | school)", "--out", tmp_path / "new" / "results", "--draws", 50)
    folder = tmp_path / "new" / "results"
    assert status == 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "diagnostics.txt", "groups-school.csv", "model.txt", "posterior.nc", "priors.csv", "report.html",
        "shrinkage.png", "shrinkage.svg", "summary.csv",
    ]  # fmt: skip
    assert "report.html" in out
    pd.testing.assert_frame_equal(pd.read_csv(folder / "groups-school.csv"), eight_schools().groups("school"))
    summary = pd.read_csv(folder / "summary.csv", index_col="label")
    pd.testing.assert_frame_equal(summary, eight_schools().summary())
    with xr.open_dataset(folder / "posterior.nc", engine="h5netcdf") as draws:
        assert draws["sigma"].shape == (4, 10)
    page = (folder / "report.html").read_text("utf-8")
    assert "draws=50, seed=0" in page
    assert "schools.csv" in page


def test_quiet_prints_nothing_and_still_writes(run, calls, table, tmp_path):
    assert run("fit", table, "y ~ (1 | g)", "--quiet", "--out", tmp_path / "o") == (0, "", "")
    assert (tmp_path / "o" / "report.html").exists()


def test_demo_prints_both_and_writes_one_report(run, calls, tmp_path):
    status, out, err = run("demo", "--out", tmp_path / "demo")
    assert (status, err) == (0, "")
    assert [formula for formula, _, _ in calls.calls] == [
        "effect | se(se) ~ 1 + (1 | school)", "log_radon ~ 1 + floor + log_uranium + (1 | county)"
    ]  # fmt: skip
    for words in ("Eight schools", "Radon in 85 counties", "… 73 more", "Time taken", "report.html"):
        assert words in out
    page = (tmp_path / "demo" / "report.html").read_text("utf-8")
    assert page.count("<img") == 2
    for folder in ("eight_schools", "radon"):
        assert (tmp_path / "demo" / folder / "shrinkage.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "demo" / folder / "summary.csv").exists()


def test_group_names_that_collide_get_files_of_their_own(tmp_path):
    fit = sleepstudy()
    fit._tables = dict.fromkeys(("a:b", "a-b", "A/B"), fit._tables["Subject"])
    fit.group_names = tuple(fit._tables)
    _, files = write_entry(Entry("E", fit), tmp_path, vector=False)
    assert len({str(f).casefold() for f in files}) == len(files) == 5 + 3 + 6
    assert all(f.parent == tmp_path for f in files)


def test_a_refusal_is_one_line_and_status_2(run, calls, table):
    calls.fit.result = DataError("Column 'x' holds\n 3 missing values.")
    assert run("fit", table, "y ~ x") == (2, "", "finetti: Column 'x' holds 3 missing values.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv", "y ~ 1"], "'nowhere.csv' does not exist"),
        ([".", "y ~ 1"], "is a directory"),
        (["{table}", "y ~ 1", "--prior", "sd=exec('x')"], "no prior called 'exec'"),
        (["{table}", "y ~ 1", "--pooling", "all"], "no pooling 'all'"),
        (["{table}", "y ~ 1", "--probs", "5"], "--probs got '5'"),
        (["{table}", "y ~ 1", "--out", "{table}"], "is a file"),
    ],
)
def test_refused_before_anything_is_computed(run, calls, table, arguments, words):
    status, out, err = run("fit", *(a.replace("{table}", str(table)) for a in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert calls.calls == []


def test_interruption_is_130(run, calls, table):
    calls.fit.result = KeyboardInterrupt()
    assert run("fit", table, "y ~ 1")[0] == 130


def test_the_system_refusing_is_one_line(run, calls, table):
    calls.fit.result = PermissionError(13, "Permission denied", "secret.csv")
    assert run("fit", table, "y ~ 1") == (2, "", "finetti: the system refused 'secret.csv': Permission denied\n")


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch, calls, table):
    calls.fit.result = ZeroDivisionError("a bug")
    monkeypatch.setattr(sys, "argv", ["finetti", "fit", str(table), "y ~ 1"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_failed_check_is_told_in_text_and_files(run, calls, table, tmp_path):
    calls.fit.result = eight_schools(ok=False, warnings=("Pareto k is 0.92.",))
    status, out, _ = run("fit", table, "y ~ (1 | g)", "--out", tmp_path / "o")
    assert status == 0
    assert "DO NOT USE THIS RESULT" in out
    assert "FAILED its own check" in (tmp_path / "o" / "diagnostics.txt").read_text("utf-8")


def command(*arguments, **kind):
    import os

    environment = {**os.environ, "PYTHONPATH": str(Path(finetti.__file__).parents[1]), **kind.pop("env", {})}
    line = [sys.executable, "-m", "finetti.show.cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, encoding="utf-8", env=environment, check=False, **kind)


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["demo", "--help"]])
def test_help_is_plain_text_with_examples(arguments):
    done = command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finetti demo" in done.stdout or "finetti fit" in done.stdout
    for markup in ("[bold]", "[dim]", "[/", "\\[", "\x1b"):
        assert markup not in done.stdout
    if arguments[0] == "fit":
        assert '--prior "beta[Days]=normal(0, 20)"' in done.stdout
        assert 'finetti fit sleepstudy.parquet "Reaction ~ 1 + Days + (1 | Subject)" \\' in done.stdout


def test_version_and_no_arguments():
    assert command("--version").stdout == f"finetti {finetti.__version__}\n"
    assert "Usage: finetti" in command().stdout + command().stderr


def test_usage_errors_are_2_without_traceback():
    for arguments in (["fit"], ["fit", "a.csv", "y ~ 1", "--draws", "x"], ["fot"], ["fit", "--frobnicate"]):
        done = command(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_help_imports_nothing_slow():
    code = (
        "import sys\nsys.argv = ['finetti', 'fit', '--help']\nfrom finetti.show.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "slow = {'numpy', 'pandas', 'matplotlib', 'numba', 'scipy', 'formulaic', 'xarray', 'arviz'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)"
    )
    import os

    environment = {**os.environ, "PYTHONPATH": str(Path(finetti.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == "[]\n"
