"""`finetti screen`: real screens through the command line, their files, and one line for every refusal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.show import cli, shell


@pytest.fixture
def effects(tmp_path):
    rng = np.random.default_rng(1)
    b = np.where(np.arange(300) < 40, rng.normal(0, 4, 300), 0.0)
    frame = pd.DataFrame({"gene": [f"g{i}" for i in range(300)], "lfc": b + rng.normal(size=300), "se": 1.0, "df": 30})
    frame["set"] = np.where(np.arange(300) < 100, "a", "b")
    frame.to_csv(tmp_path / "effects.csv", index=False)
    frame.loc[[4, 9], "se"] = np.nan
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    return tmp_path


@pytest.fixture
def matrix(tmp_path):
    rng = np.random.default_rng(2)
    sd = np.sqrt(8 / rng.chisquare(8, size=(80, 1)))
    values = rng.normal(size=(80, 8)) * sd
    values[:10, 4:] += 6.0
    frame = pd.DataFrame(values, columns=[f"s{i}" for i in range(8)])
    frame.insert(0, "gene", [f"g{i}" for i in range(80)])
    frame.to_csv(tmp_path / "matrix.csv", index=False)
    samples = pd.DataFrame({"id": [f"s{i}" for i in range(8)], "group": ["a"] * 4 + ["b"] * 4, "lot": [0, 1, 2, 3] * 2})
    samples.sample(frac=1.0, random_state=1).to_csv(tmp_path / "samples.csv", index=False)
    return tmp_path


QUICK = ("--method", "empirical", "--null", "theoretical")


def test_it_prints_what_the_function_returns(run, effects):
    path = effects / "effects.csv"
    status, out, err = run("screen", path, "--effect", "lfc", "--se", "se", "--labels", "gene", "--seed", 3, "--df",
                           "df", "--prior", "pi0=beta(5, 1)")  # fmt: skip
    assert (status, err) == (0, "")
    found = fi.screen("lfc", "se", data=path, labels="gene", df="df", seed=3, priors={"pi0": fi.beta(5, 1)})
    made = found.discoveries(0.05)
    assert f"{made.n} discoveries at a false discovery rate of 5 %" in " ".join(out.split())
    (line,) = [line for line in out.splitlines() if line.strip().startswith("pi0")]
    np.testing.assert_allclose([float(v) for v in line.split()[1:6]], found.hyper().loc["pi0"][:5], rtol=0.01)
    at = out.index("Discoveries")
    rows = [
        line.split()[0] for line in out[at:].splitlines() if line.strip().startswith("g") and line.split()[0] != "gene"
    ]
    assert rows == made.labels[:20].tolist()
    assert "π₀ ~ beta(5, 1)" in out
    assert "\x1b" not in out


def test_every_file(run, effects):
    folder = effects / "results"
    status, out, err = run("screen", effects / "effects.csv", "--effect", "lfc", "--se", "se", "--labels", "gene",
                           "--df", "30", "--fdr", 0.1, "--at-least", 0.5, "--slab", "laplace", *QUICK, "--out",
                           folder, "-q")  # fmt: skip
    assert (status, out, err) == (0, "", "")
    found = fi.screen("lfc", "se", data=effects / "effects.csv", labels="gene", df=30, slab="laplace",
                      method="empirical", null="theoretical")  # fmt: skip
    table = pd.read_csv(folder / "table.csv", index_col=0)
    pd.testing.assert_frame_equal(table, found.table(), rtol=1e-9)
    made = pd.read_csv(folder / "discoveries.csv", index_col=0)
    assert made.index.tolist() == found.discoveries(0.1, at_least=0.5).labels.tolist()
    assert "prob_at_least" in made.columns
    assert pd.read_csv(folder / "hyper.csv", index_col=0).index.tolist() == ["pi0", "slab_sd", "null_mean", "null_sd"]
    for name in ("histogram", "volcano", "shrinkage", "discoveries"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
        assert "<svg" in (folder / f"{name}.svg").read_text("utf-8")
    assert "Laplace" in (folder / "model.txt").read_text("utf-8")
    assert "passed its own check" in (folder / "diagnostics.txt").read_text("utf-8")
    page = (folder / "report.html").read_text("utf-8")
    for words in ("--at-least", "slab=&#x27;laplace&#x27;", "df=30.0", "of effects of at least 0.5", 'value="10"'):
        assert words in page
    assert not (folder / "groups.csv").exists()


def test_by_a_covariate(run, effects):
    folder = effects / "by"
    status, out, err = run("screen", effects / "effects.csv", "--effect", "lfc", "--se", "se", "--by", "set", *QUICK,
                           "--out", folder)  # fmt: skip
    assert (status, err) == (0, "")
    assert "Groups of tests" in out
    assert pd.read_csv(folder / "groups.csv", index_col=0).index.tolist() == ["a", "b"]
    assert "by=&#x27;set&#x27;" in (folder / "report.html").read_text("utf-8")


def test_z_values_and_no_discovery(run, tmp_path):
    z = np.random.default_rng(3).normal(size=200) * 0.9
    pd.DataFrame({"z": z}).to_csv(tmp_path / "z.csv", index=False)
    status, out, err = run("screen", tmp_path / "z.csv", "--effect", "z", *QUICK)
    assert (status, err) == (0, "")
    assert "No discovery at a false discovery rate of 5 % among 200 tests" in " ".join(out.split())
    assert "Most convincing tests" in out
    assert " se " not in out[out.index("Most convincing tests") :].splitlines()[1]


def test_rows_with_gaps_are_named_or_dropped_and_counted(run, effects):
    path = effects / "gaps.csv"
    status, out, err = run("screen", path, "--effect", "lfc", "--se", "se", "--labels", "gene")
    assert (status, out) == (2, "")
    for words in ("Row 5 ", "(g4)", "'se'", "2 of 300 rows", "--missing drop"):
        assert words in err
    status, out, err = run("screen", path, "--effect", "lfc", "--se", "se", "--labels", "gene", "--missing", "drop",
                           "--out", effects / "out", *QUICK)  # fmt: skip
    assert (status, err) == (0, "")
    assert "298 tests; 2 rows with missing values dropped" in out
    table = pd.read_csv(effects / "out" / "table.csv", index_col=0)
    assert len(table) == 298
    assert not {"g4", "g9"} & set(table.index)
    page = (effects / "out" / "report.html").read_text("utf-8")
    assert "2 rows with missing values dropped" in page
    assert ".dropna(subset=[&#x27;lfc&#x27;, &#x27;se&#x27;])" in page
    # without names, tests keep the number that they have in the file
    status, _, err = run("screen", path, "--effect", "lfc", "--se", "se", "--missing", "drop", "--out", effects / "out",
                         "-q", *QUICK)  # fmt: skip
    assert (status, err) == (0, "")
    table = pd.read_csv(effects / "out" / "table.csv", index_col=0)
    assert table.index.tolist() == [i for i in range(300) if i not in (4, 9)]
    assert "labels=data.index" in (effects / "out" / "report.html").read_text("utf-8")


def test_names_may_repeat(run, effects):
    frame = pd.read_csv(effects / "effects.csv")
    frame["gene"] = [f"g{i // 2}" for i in range(300)]
    frame.to_csv(effects / "twice.csv", index=False)
    status, out, err = run("screen", effects / "twice.csv", "--effect", "lfc", "--se", "se", "--labels", "gene",
                           "--at-least", 3, *QUICK)  # fmt: skip
    assert (status, err) == (0, "")
    made = fi.screen("lfc", "se", data=frame, labels="gene", method="empirical", null="theoretical").discoveries(
        0.05, at_least=3
    )
    shown = [line.split()[:2] for line in out[out.index("of at least 3 at FDR") :].splitlines()[2:]]
    first = next(iter(made.table["effect"]))
    assert any(cells[0] == made.labels[0] and float(cells[1]) == pytest.approx(first, rel=0.01)
               for cells in shown if len(cells) == 2)  # fmt: skip


def test_many_groups_are_in_a_file_of_their_own(run, effects):
    frame = pd.read_csv(effects / "effects.csv").assign(depth=np.arange(300.0))
    frame.to_csv(effects / "depth.csv", index=False)
    status, out, err = run("screen", effects / "depth.csv", "--effect", "lfc", "--se", "se", "--by", "depth", "--out",
                           effects / "out", *QUICK)  # fmt: skip
    assert (status, err) == (0, "")
    groups = pd.read_csv(effects / "out" / "groups.csv")
    assert f"({len(groups) - 20} more; all in {effects / 'out' / 'groups.csv'})" in "".join(out.splitlines())


def test_what_became_of_the_rows_of_a_matrix_is_said(run, matrix):
    frame = pd.read_csv(matrix / "matrix.csv")
    frame.iloc[3, 1:] = np.nan
    frame.iloc[5, 2] = np.nan
    frame.to_csv(matrix / "holes.csv", index=False)
    status, out, err = run("screen", matrix / "holes.csv", "--design", "~ group", "--samples", matrix / "samples.csv",
                           *QUICK)  # fmt: skip
    assert (status, err) == (0, "")
    said = " ".join(out.split())
    assert "Counted: genes 80, samples 8, with missing values 1, dropped: no value 1, genes kept 79." in said


def test_from_a_matrix_to_discoveries(run, matrix):
    folder = matrix / "out"
    status, out, err = run("screen", matrix / "matrix.csv", "--design", "~ group", "--samples", matrix / "samples.csv",
                           "--sample-column", "id", "--labels", "gene", "--out", folder, *QUICK)  # fmt: skip
    assert (status, err) == (0, "")
    moderated = fi.moderate(matrix / "matrix.csv", "~ group", data=pd.read_csv(matrix / "samples.csv"), labels="gene")
    found = fi.screen(moderated, method="empirical", null="theoretical")
    table = pd.read_csv(folder / "table.csv", index_col=0)
    np.testing.assert_allclose(table["mean"], found.table()["mean"], rtol=1e-6, atol=1e-9)
    assert set(table.index[table["qvalue"] < 0.05]) == {f"g{i}" for i in range(10)}
    assert "Variances of the genes" in out
    effects = pd.read_csv(folder / "effects.csv")
    assert effects.columns.tolist() == ["gene", "contrast", "effect", "se", "df"]
    assert (folder / "variances.csv").is_file()
    page = (folder / "report.html").read_text("utf-8")
    assert "fi.moderate(" in page
    assert "data=&#x27;" in page
    status, out, err = run("screen", matrix / "matrix.csv", "--design", "~ 0 + group", "--samples",
                           matrix / "samples.csv", "--contrast", "group[b] - group[a]", "--labels", "gene",
                           "--trend", *QUICK)  # fmt: skip
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--effect COL"),
        (["--effect", "lfx", "--se", "se"], "did you mean 'lfc'"),
        (["--effect", "lfc", "--se", "se", "--labels", "gen"], "did you mean 'gene'"),
        (["--effect", "lfc", "--design", "~ group"], "exclude each other"),
        (["--effect", "lfc", "--contrast", "b - a"], "--contrast cannot be used"),
        (["--design", "~ group", "--se", "se"], "--se cannot be used"),
        (["--design", "~ group"], "--samples SAMPLES.csv"),
        (["--design", "~ group", "--samples", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["--effect", "lfc", "--fdr", "5"], "between 0 and 1"),
        (["--effect", "lfc", "--at-least", "-1"], "from 0 up"),
        (["--effect", "lfc", "--missing", "skip"], "error or drop"),
        (["--effect", "lfc", "--null", "fre"], "'free'"),
        (["--effect", "lfc", "--slab", "mixture"], "method='empirical'"),
        (["--effect", "gene"], "'gene'"),
        (["--effect", "lfc", "--prior", "pi0=bta(1, 1)"], "'beta'"),
    ],
)
def test_a_refusal_is_one_line_and_status_2(run, effects, arguments, words):
    status, out, err = run("screen", effects / "effects.csv", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_design_of_several_coefficients_needs_a_contrast(run, matrix):
    status, out, err = run("screen", matrix / "matrix.csv", "--design", "~ group + lot", "--samples",
                           matrix / "samples.csv", *QUICK)  # fmt: skip
    assert (status, out) == (2, "")
    assert "--contrast" in err
    assert "lot" in err
    assert err.count("\n") == 1


def test_a_failed_check_is_loud(run, effects, monkeypatch):
    from dataclasses import replace

    from finetti.studies import screen as module

    real = module.diagnose
    monkeypatch.setattr(module, "diagnose", lambda s: replace(real(s), ok=False, warnings=("it went wrong",)))
    status, out, _ = run("screen", effects / "effects.csv", "--effect", "lfc", "--se", "se", *QUICK)
    assert status == 0
    assert out.count("DO NOT USE THIS RESULT") == 2
    assert "it went wrong" in out


def test_help_needs_nothing_slow(run):
    status, out, _ = run("screen", "--help")
    assert status == 0
    for words in ("--effect", "--design", "--contrast", "--at-least", "--by"):
        assert words in out
    assert cli.app.registered_commands


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(FinettiError, match="is a directory"):
        shell.data_file(str(tmp_path))
