"""The shipped tables are the published ones: sizes, ids as text, sums known from the literature."""

import re
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from finetti import datasets
from finetti.datasets.catalogue import CATALOGUE
from finetti.errors import DataError

FOLDER = files("finetti.datasets")
README = FOLDER.joinpath("README.md").read_text(encoding="utf-8")
EVERY = datasets.names()


def test_the_catalogue_and_the_files_are_the_same_list():
    shipped = {file.name.removesuffix(".csv") for file in FOLDER.iterdir() if file.name.endswith(".csv")}
    assert shipped == set(EVERY) == set(CATALOGUE)


@pytest.mark.parametrize("name", EVERY)
def test_every_table_is_as_described(name):
    frame, entry = datasets.load(name), CATALOGUE[name]
    assert len(frame) == entry.rows
    assert list(frame.columns) == list(entry.columns)
    assert not frame.isna().any(axis=None)
    assert len(FOLDER.joinpath(f"{name}.csv").read_bytes()) < 200_000
    for column in frame:
        if column in entry.ids:
            categories = frame[column].cat.categories
            assert all(isinstance(level, str) for level in categories)
            assert list(categories) == sorted(set(frame[column]))
            counts = re.search(r"\((\d+)\)", entry.columns[column])
            assert counts is None or len(categories) == int(counts[1])
        else:
            assert pd.api.types.is_numeric_dtype(frame[column])


@pytest.mark.parametrize("name", EVERY)
def test_the_readme_names_every_table_column_and_source(name):
    section = re.split(r"^## ", README, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(f"{name}\n"))
    if name != "eight_schools_unrounded":  # says "columns as in `eight_schools`"
        assert all(f"`{column}`" in text for column in CATALOGUE[name].columns)
    assert f"{CATALOGUE[name].rows} rows" in text
    year = re.search(r"\((\d{4})\)", CATALOGUE[name].source)
    assert year is not None and f"({year[1]})" in text
    row = next(line for line in section[0].splitlines() if line.startswith(f"| `{name}` "))
    assert f"| {CATALOGUE[name].rows} |" in row
    assert f"`{CATALOGUE[name].formula}`" in row.replace("\\|", "|")


@pytest.mark.parametrize("name", EVERY)
def test_describe_says_what_where_from_and_what_to_try(name):
    text = datasets.describe(name)
    assert text.startswith(f"{name}: ")
    assert f"({CATALOGUE[name].rows} rows)" in text and "Source: " in text and "Try: " in text
    assert max(map(len, text.splitlines())) <= 110


def test_eight_schools_round_to_each_other():
    rounded, exact = datasets.load("eight_schools"), datasets.load("eight_schools_unrounded")
    assert rounded["effect"].tolist() == [28, 8, -3, 7, -1, 1, 18, 12]  # BDA3 table 5.2
    assert rounded["se"].tolist() == [15, 10, 16, 11, 9, 11, 10, 18]
    assert (rounded["school"] == exact["school"]).all()
    assert (rounded[["effect", "se"]] - exact[["effect", "se"]]).abs().max(axis=None) <= 0.5


def test_one_way_tables_have_the_published_analysis_of_variance():
    """Box & Tiao 1973, tables 5.1.2 and 5.1.4: mean squares between and within batches."""
    for name, between, within in [("dyestuff", 11271.50, 2451.25), ("dyestuff2", 8.3362, 14.9459)]:
        batches = datasets.load(name).groupby("Batch", observed=True)["Yield"]
        assert 5 * batches.mean().var() == pytest.approx(between, abs=5e-5 * between)
        assert batches.var().mean() == pytest.approx(within, abs=5e-5 * within)


def test_designs_are_the_published_ones():
    sleep = datasets.load("sleepstudy")
    assert pd.crosstab(sleep["Subject"], sleep["Days"]).eq(1).all(axis=None)
    assert sleep["Subject"].cat.categories[0] == "308" and sleep["Subject"].nunique() == 18
    penicillin = datasets.load("penicillin")
    assert pd.crosstab(penicillin["plate"], penicillin["sample"]).eq(1).all(axis=None)
    pastes = datasets.load("pastes")
    assert (pastes["batch"].astype(str) + ":" + pastes["cask"].astype(str) == pastes["sample"].astype(str)).all()
    assert pastes["sample"].value_counts().eq(2).all()
    radon = datasets.load("radon")
    assert radon["county"].nunique() == 85 and radon["floor"].isin([0, 1]).all()
    assert radon.groupby("county", observed=True)["log_uranium"].nunique().eq(1).all()


def test_bcg_effects_follow_from_the_counts():
    bcg = datasets.load("bcg")
    n1, n0 = bcg["tpos"] + bcg["tneg"], bcg["cpos"] + bcg["cneg"]
    np.testing.assert_allclose(bcg["log_rr"], np.log(bcg["tpos"] / n1 / (bcg["cpos"] / n0)), atol=1e-6)
    np.testing.assert_allclose(bcg["se"] ** 2, 1 / bcg["tpos"] - 1 / n1 + 1 / bcg["cpos"] - 1 / n0, atol=2e-6)
    assert n1.sum() + n0.sum() == 357_347  # people in the 13 trials together


def test_no_count_of_bcg_was_changed_on_the_way(shared_data):
    theirs = pd.read_csv(shared_data / "meta/bcg.csv").rename(columns={"ablat": "latitude", "alloc": "allocation"})
    names = ["year", "tpos", "tneg", "cpos", "cneg", "latitude", "allocation"]
    assert datasets.load("bcg")[names].astype(str).equals(theirs[names].astype(str))


@pytest.mark.parametrize(
    ("shipped", "shared"),
    [
        ("eight_schools", "multilevel/eight_schools.csv"),
        ("eight_schools_unrounded", "meta/eight_schools_rubin1981.csv"),
        ("radon", "multilevel/radon.csv"),
        ("sleepstudy", "multilevel/sleepstudy.csv"),
        ("dyestuff", "multilevel/dyestuff.csv"),
        ("dyestuff2", "multilevel/dyestuff2.csv"),
        ("penicillin", "multilevel/penicillin.csv"),
        ("pastes", "multilevel/pastes.csv"),
    ],
)
def test_no_number_was_changed_on_the_way(shared_data, shipped, shared):
    ours = datasets.load(shipped)
    theirs = pd.read_csv(shared_data / shared).rename(columns={"stderr": "se"})[list(ours.columns)]
    for column in ours:
        assert ours[column].astype(str).tolist() == theirs[column].astype(str).tolist(), column


def test_leukaemia_is_what_72_patients_give(shared_data):
    """Gene by gene, from the expression matrix, and so are its rounded differences."""
    matrix = pd.read_csv(shared_data / "testing/leukemia_golub72_expression.csv.gz").set_index("gene")
    one, two = (matrix[[c for c in matrix if c.startswith(kind)]].to_numpy() for kind in ("ALL", "AML"))
    ours = datasets.load("leukaemia")
    pooled = ((one.shape[1] - 1) * one.var(axis=1, ddof=1) + (two.shape[1] - 1) * two.var(axis=1, ddof=1)) / 70
    np.testing.assert_allclose(ours["estimate"], two.mean(axis=1) - one.mean(axis=1), atol=6e-6)
    np.testing.assert_allclose(ours["se"], np.sqrt(pooled * (1 / one.shape[1] + 1 / two.shape[1])), atol=6e-6)
    assert (ours["df"] == 70).all() and (one.shape[1], two.shape[1]) == (47, 25)


def test_each_load_is_a_fresh_copy():
    spoilt = datasets.load("radon")
    spoilt["log_radon"] = 0.0
    assert datasets.load("radon")["log_radon"].std() > 0


@pytest.mark.parametrize("name", ["sleep_study", "", 8, ["radon"]])
def test_an_unknown_name_lists_the_known_ones(name):
    for function in (datasets.load, datasets.describe):
        with pytest.raises(DataError, match="no data set named") as caught:
            function(name)
        assert all(known in str(caught.value) for known in EVERY)
    if name == "sleep_study":
        assert "did you mean 'sleepstudy'?" in str(caught.value)


def test_pandas_is_loaded_only_when_a_table_is():
    code = "import sys, finetti.datasets as d; d.describe('radon'); sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
