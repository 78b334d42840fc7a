"""`finetti meta`: real fits through the command line, its files, and one line for every refusal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.show.arguments import parse_prior, read_square


@pytest.fixture
def trials(tmp_path):
    path = tmp_path / "trials.csv"
    fi.datasets.load("eight_schools").assign(vi=lambda d: d["se"] ** 2, x=range(8), paper=list("aabbccdd")).to_csv(
        path, index=False
    )
    return path


def test_it_prints_what_the_function_returns(run, trials):
    status, out, err = run(
        "meta", trials, "--effect", "effect", "--se", "se", "--labels", "school", "--prior", "beta=flat()", "--prior",
        "sd=jeffreys()", "--probs", "0.025,0.5,0.975", "--seed", 3,
    )  # fmt: skip
    assert (status, err) == (0, "")
    fit = fi.meta("effect", "se", trials, labels="school", priors={"beta": fi.flat(), "sd": fi.jeffreys()}, seed=3)
    overall = fit.overall((0.025, 0.5, 0.975)).loc["overall"]
    (line,) = [line for line in out.splitlines() if line.strip().startswith("overall")]
    np.testing.assert_allclose([float(v) for v in line.split()[1:]], overall, atol=0.01)
    for words in ("Overall effect", "8 studies", "new study", "Heterogeneity", "I2", "Studies", "2.5 %", "jeffreys()"):
        assert words in out
    assert "Groups: study" not in out
    assert "\x1b" not in out


def test_every_option_and_every_file(run, trials, tmp_path):
    V = np.diag(pd.read_csv(trials)["vi"].astype(float))
    V[0, 1] = V[1, 0] = 60.0
    pd.DataFrame(V).to_csv(tmp_path / "V.csv", index=False, header=False)
    folder = tmp_path / "results"
    status, out, err = run(
        "meta", trials, "--effect", "effect", "--se", "sqrt(vi)", "--labels", "school", "--moderators", "x",
        "--cluster", "paper", "--vcov", tmp_path / "V.csv", "--method", "auto", "--draws", 100,
        "--missing", "drop", "--out", folder, "-q",
    )  # fmt: skip
    assert (status, out, err) == (0, "", "")
    for name in ("studies.csv", "overall.csv", "heterogeneity.csv", "summary.csv", "report.html", "model.txt"):
        assert (folder / name).stat().st_size > 0
    fit = fi.meta("effect", None, trials, labels="school", moderators="x", cluster="paper", V=V)
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "studies.csv"), fit.studies(), check_dtype=False, rtol=1e-6, check_column_type=False
    )
    assert "known covariance V" in (folder / "model.txt").read_text("utf-8")
    page = (folder / "report.html").read_text("utf-8")
    assert "--vcov" in page
    assert "fi.meta" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--effect", "effect"], "Standard errors are needed"),
        (["--effect", "efect", "--se", "se"], "no column 'efect'"),
        (["--effect", "effect", "--se", "se", "--labels", "paper"], "'a' names 2 rows"),
        (["--effect", "effect", "--se", "se", "--prior", "sd=jefreys()"], "'jeffreys'"),
        (["--effect", "effect", "--se", "se", "--vcov", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["--effect", "effect", "--se", "se", "--probs", "2"], "--probs got '2'"),
        (["--effect", "effect", "--se", "se", "--vcov", "{trials}"], "square matrix"),
    ],
)
def test_a_refusal_is_one_line_and_status_2(run, trials, arguments, words):
    status, out, err = run("meta", trials, *(a.replace("{trials}", str(trials)) for a in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "1,0.5\n0.5,2\n",
        '"","V1","V2"\n"1",1,0.5\n"2",0.5,2\n',
        "a,b\n1,0.5\n0.5,2\n",
        ",a,b\na,1,0.5\nb,0.5,2\n",
        '"a","b"\r\n"x",1, 0.5\r\n"y",0.5,2\r\n\r\n',
    ],
)
def test_a_square_matrix_with_or_without_names(tmp_path, text):
    path = tmp_path / "V.csv"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_square(path), [[1, 0.5], [0.5, 2]])


@pytest.mark.parametrize("text", ["", "a,b\n", "1,2,3\n4,5,6\n", "1,2\n3,x\n", "1,2\n3\n", "\xff\xfe"])
def test_what_is_no_square_matrix(tmp_path, text):
    path = tmp_path / "V.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FinettiError, match=r"--vcov|cannot be read"):
        read_square(path)


def test_the_new_priors_can_be_typed():
    assert parse_prior("jeffreys()") == fi.jeffreys()
    assert parse_prior("dumouchel(2)") == fi.dumouchel(2)
    assert parse_prior("uniform_shrinkage(s0=0.5)") == fi.uniform_shrinkage(0.5)
