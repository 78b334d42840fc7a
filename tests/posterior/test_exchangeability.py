"""fit.exchangeability: surprises against quadrature, false flags at their level, planted groups and columns found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats

import finetti as fi
from finetti.errors import DataError, FinettiError
from finetti.posterior.exchangeability import LEVEL, Exchangeability
from finetti.posterior.exchangeability_words import column_words
from finetti.posterior.group_predictors import holm
from finetti.posterior.parent_check import _pits

SCHOOL_PRIORS = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}


def schools(**options: Any) -> Any:
    data = fi.datasets.load("eight_schools")
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", data, priors=SCHOOL_PRIORS, **options)


def sites(rng: np.random.Generator, J: int = 20, n: int = 4, tau: float = 0.7, slope: float = 0.0) -> pd.DataFrame:
    """A response, an x within sites; a number, a text, a date and a size that are known of each site."""
    index = np.repeat(np.arange(J), n)
    x = np.tile(np.linspace(-1.0, 1.0, n), J)
    height, region = rng.normal(size=J) * 100.0, rng.choice(["east", "north", "west"], J)
    u = rng.normal(0.0, tau, J)
    y = 1.0 + u[index] + slope * x * rng.normal(0.0, tau, J)[index] + rng.normal(size=J * n)
    first = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.permutation(J), unit="D")
    return pd.DataFrame(
        {
            "y": y, "x": x, "site": [f"s{j:02d}" for j in index], "height": height[index], "region": region[index],
            "first": first[index], "coast": (height > 0)[index],
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> tuple[Any, pd.DataFrame]:
    data = sites(np.random.default_rng(1))
    return fi.fit("y ~ 1 + x + (1 | site)", data), data


def test_eight_schools_against_quadrature() -> None:
    """Leave a school out, integrate over tau and mu given the other seven, predict it: no code of finetti in it."""
    data = fi.datasets.load("eight_schools")
    y, se = data["effect"].to_numpy(float), data["se"].to_numpy(float)
    found = schools().exchangeability().table
    t = np.linspace(0.0, 1.0, 40_001)[1:-1]
    tau = 5.0 * np.tan(0.5 * np.pi * t)  # equal masses of the half-Cauchy
    for j in range(8):
        others = np.delete(np.arange(8), j)
        v = tau[:, None] ** 2 + se[others] ** 2
        precision = 1.0 / 25.0 + np.sum(1.0 / v, axis=1)
        mean = np.sum(y[others] / v, axis=1) / precision
        log_p = -0.5 * np.sum(np.log(v) + y[others] ** 2 / v, axis=1) - 0.5 * np.log(precision)
        log_p += 0.5 * mean**2 * precision
        w = np.exp(log_p - log_p.max())
        w /= w.sum()
        sd = np.sqrt(tau**2 + se[j] ** 2 + 1.0 / precision)
        row = found.iloc[j]
        # the fit's own target: means to 2 % and quantiles to 5 % of a posterior sd
        assert row["pit"] == pytest.approx(w @ scipy.stats.norm.cdf((y[j] - mean) / sd), abs=0.004)
        assert row["estimate"] == pytest.approx(w @ (y[j] - mean), abs=0.15)


def test_false_flags_come_at_their_level() -> None:
    """Data drawn from the prior: every PIT is uniform, and any flag at all has a probability of about 5 %."""
    n_sims, J = 60, 12
    priors = {"Intercept": fi.normal(0, 1), "sd": fi.half_normal(1), "sigma": fi.half_normal(1)}
    any_flag, small, told, middle = 0, [], 0, []
    for s in range(n_sims):
        rng = np.random.default_rng(4000 + s)
        tau, sigma, mu = abs(rng.normal()), abs(rng.normal()), rng.normal()
        index = np.repeat(np.arange(J), 4)
        y = mu + rng.normal(0, tau, J)[index] + rng.normal(0, sigma, index.size)
        fit = fi.fit("y ~ 1 + (1 | g)", {"y": y, "g": index}, priors=priors, seed=s)
        found = fit.exchangeability(by=pd.Series(rng.normal(size=J), index=range(J), name="noise"))
        any_flag += bool(found.flagged)
        told += bool(found.informative)
        small.append(float(np.mean(found.table["p"] < 0.1)))
        middle.append(float(found.table["pit"].mean()))
    most = scipy.stats.binom.ppf(0.9995, n_sims, LEVEL)
    assert any_flag <= most and told <= most
    # means over data sets, in their own standard errors
    assert abs(np.mean(small) - 0.1) < 3.5 * np.std(small, ddof=1) / np.sqrt(n_sims)
    assert abs(np.mean(middle) - 0.5) < 3.5 * np.std(middle, ddof=1) / np.sqrt(n_sims)


def test_a_shifted_group_is_flagged() -> None:
    data = sites(np.random.default_rng(2), n=8)
    data.loc[data["site"] == "s07", "y"] += 4 * np.sqrt(0.7**2 + 1 / 8) + 1.0
    found = fi.fit("y ~ 1 + (1 | site)", data).exchangeability()
    assert found.flagged == ("s07",)
    assert "'s07' is surprising" in found.advice[0] and "above" in found.advice[0]
    assert "s07" in str(found)


def test_parents_that_are_not_normal_are_told() -> None:
    """Two clusters of groups: no group stands out, all together do."""
    rng = np.random.default_rng(5)
    J, n = 40, 10
    index = np.repeat(np.arange(J), n)
    y = rng.choice([-1.0, 1.0], J)[index] + rng.normal(size=index.size)
    found = fi.fit("y ~ 1 + (1 | g)", {"y": y, "g": index}).exchangeability()
    assert found.flagged == () and found.calibration["p_value"][0] < 0.05
    assert any("do not look like draws from one normal parent" in a for a in found.advice)


def test_planted_columns_are_found_and_others_are_not(plain: tuple[Any, pd.DataFrame]) -> None:
    _, data = plain
    rng = np.random.default_rng(8)
    data = data.assign(y=data["y"] + 0.02 * data["height"] + 2.5 * (data["region"] == "north"))
    data["noise"] = rng.normal(size=20)[pd.factorize(data["site"])[0]]
    found = fi.fit("y ~ 1 + x + (1 | site)", data).exchangeability(by=["height", "region", "noise"])
    assert set(found.informative) == {"height", "region"}
    columns = found.columns.set_index("column")
    assert columns.loc["region", "contrast"].startswith("north - ")
    assert columns.loc["height", "q5"] < 0.02 < columns.loc["height", "q95"]
    assert columns.loc["height", "explained"] > 0.3
    assert any("+ height" in a for a in found.advice)
    assert "does not predict" in columns.loc["noise", "advice"]


def test_the_slope_is_that_of_the_model_with_the_column(plain: tuple[Any, pd.DataFrame]) -> None:
    """Reweighted or refitted nodes against a fit of the model with the column, whose default priors are these."""
    _, data = plain
    for strength, how in ((0.0, "reweighted"), (0.05, "refitted")):
        data = data.assign(y=data["y"] + strength * data["height"])
        row = fi.fit("y ~ 1 + x + (1 | site)", data).exchangeability(by="height").columns.iloc[-1]
        assert row["how"] == how
        direct = fi.fit("y ~ 1 + x + height + (1 | site)", data).summary().loc["beta[height]"]
        assert row["effect"] == pytest.approx(direct["mean"], abs=0.1 * direct["sd"])
        for own in ("sd", "q5", "q95"):
            assert row[own] == pytest.approx(direct[own], abs=0.15 * direct["sd"])


def test_slopes_that_a_column_predicts() -> None:
    rng = np.random.default_rng(11)
    data = sites(rng, J=25, n=8, slope=0.5)
    data["y"] += 0.01 * data["height"] * data["x"]
    found = fi.fit("y ~ 1 + x + (1 + x | site)", data).exchangeability(by="height")
    told = found.columns[found.columns["informative"]]
    assert told[["column", "coefficient"]].to_numpy().tolist() == [["height", "x"]]
    assert "`+ height + height:x`" in told["advice"].iloc[0]
    assert list(found.calibration["coefficient"]) == ["Intercept", "x"]
    assert found.table.groupby("level")["p_joint"].nunique().max() == 1


def test_names_and_order_of_groups_mean_nothing(plain: tuple[Any, pd.DataFrame]) -> None:
    fit, data = plain
    rng = np.random.default_rng(3)
    name = dict(zip(sorted(set(data["site"])), rng.permutation([f"other {j}" for j in range(20)]), strict=True))
    moved = data.assign(site=data["site"].map(name)).sample(frac=1.0, random_state=4)
    one = fit.exchangeability(by="height")
    two = fi.fit("y ~ 1 + x + (1 | site)", moved).exchangeability(by="height")
    table = two.table.set_index("level").loc[[name[level] for level in one.table["level"]]]
    np.testing.assert_allclose(table["pit"].to_numpy(), one.table["pit"].to_numpy(), atol=1e-6)
    # its order of appearance is another one
    a, b = (e.columns.set_index("column").loc["height", ["effect", "sd"]].to_numpy(float) for e in (one, two))
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_every_kind_of_by(plain: tuple[Any, pd.DataFrame]) -> None:
    fit, data = plain
    columns = ["height", "region", "first", "coast"]
    levels = data.drop_duplicates("site").sample(frac=1.0, random_state=1)
    expected = fit.exchangeability(by=columns).columns
    assert expected["kind"].tolist() == ["numeric", "numeric", "category", "numeric", "numeric"]
    assert expected["p_value"].notna().all()
    per_row, per_level = data[["site", *columns]], levels[["site", *columns]]
    for by in (
        per_row, per_level, per_row[columns], per_level.set_index("site"), pl.from_pandas(per_level),
        {c: per_level[c].to_numpy() for c in per_level}, per_row.sample(frac=1.0, random_state=2),
    ):  # fmt: skip
        pd.testing.assert_frame_equal(fit.exchangeability(by=by).columns, expected)
    for series in (levels.set_index("site")["height"], dict(zip(levels["site"], levels["height"], strict=True))):
        (row,) = fit.exchangeability(by=series).columns.iloc[1:].to_dict("records")
        assert row["effect"] == expected["effect"][1]
    assert fit.exchangeability(by="height").columns["column"].tolist() == ["order of appearance", "height"]


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("hieght", "did you mean 'height'"),
        ("x", "not the same in all rows of level 's00'"),
        ("site", "the group itself"),
        (3.0, "not understood"),
        (pd.Series([1.0, 2.0], index=["s00", "s01"]), "no value for level 's02'"),
        (pd.DataFrame({"a": [1.0, 2.0]}), "has 2 rows and no column 'site'"),
        (pd.DataFrame({"site": ["s00"], "a": [1.0]}), "no row for level 's01'"),
        (pd.DataFrame({"site": ["s00"]}), "only the column 'site'"),
    ],
)
def test_by_that_cannot_be_read(plain: tuple[Any, pd.DataFrame], by: Any, words: str) -> None:
    with pytest.raises(FinettiError, match=words):
        plain[0].exchangeability(by=by)


def test_columns_that_say_nothing_are_named(plain: tuple[Any, pd.DataFrame]) -> None:
    _, data = plain
    data = data.assign(one=1.0, name="n" + data["site"], same="a", twice=2.0 * data["height"] + 3.0)
    fit = fi.fit("y ~ 1 + height + (1 | site)", data)
    found = fit.exchangeability(by=["one", "name", "same", "twice"]).columns.set_index("column")
    assert found.loc[["one", "name", "same", "twice"], "p_value"].isna().all()
    assert "the same in all groups" in found.loc["one", "advice"] and "'a' in all groups" in found.loc["same", "advice"]
    assert "(1 | name)" in found.loc["name", "advice"] and "in the model already" in found.loc["twice", "advice"]


def test_sizes_and_errors_are_columns_of_their_own() -> None:
    rng = np.random.default_rng(6)
    n = rng.integers(2, 30, 24)
    index = np.repeat(np.arange(24), n)
    y = 1.5 * np.log2(n)[index] + rng.normal(0, 0.5, 24)[index] + rng.normal(size=index.size)
    found = fi.fit("y ~ 1 + (1 | g)", {"y": y, "g": index}).exchangeability()
    assert found.informative == ("log2(n)",) and any("size of a group" in a for a in found.advice)
    se = rng.uniform(0.05, 1.0, 30)
    effect = 0.2 + 2.0 * se + rng.normal(0, 0.1, 30) + se * rng.normal(size=30)
    found = fi.meta(effect, se).exchangeability()
    assert "standard error" in found.informative and any("small studies" in a for a in found.advice)


def test_a_table_that_changed_and_one_that_is_gone(plain: tuple[Any, pd.DataFrame], tmp_path: Path) -> None:
    _, data = plain
    data = data.copy()
    fit = fi.fit("y ~ 1 + x + (1 | site)", data)
    fit.save(tmp_path / "fit.nc")
    loaded = fi.load(tmp_path / "fit.nc")
    pd.testing.assert_frame_equal(loaded.exchangeability().table, fit.exchangeability().table)
    with pytest.raises(DataError, match="pass the table"):
        loaded.exchangeability(by="height")
    assert "height" in set(loaded.exchangeability(by=data[["site", "height"]]).columns["column"])
    data["site"] = data["site"].to_numpy()[::-1].copy()
    with pytest.raises(DataError, match="changed since the fit"):
        fit.exchangeability(by="height")
    data["site"] = data["site"].to_numpy()[::-1].copy()
    assert "height" in set(fit.exchangeability(by="height").columns["column"])
    data.loc[len(data)] = data.loc[0]
    with pytest.raises(DataError, match="changed since the fit"):
        fit.exchangeability(by="height")


def test_rows_that_were_dropped_do_not_shift_a_column() -> None:
    data = sites(np.random.default_rng(9))
    data.loc[[0, 5, 50], "y"] = np.nan
    fit = fi.fit("y ~ 1 + (1 | site)", data, missing="drop")
    by_name, by_table = (fit.exchangeability(by=by).columns for by in ("height", data[["height"]]))
    pd.testing.assert_frame_equal(by_name, by_table)


def test_requests_without_an_answer(plain: tuple[Any, pd.DataFrame]) -> None:
    _, data = plain
    with pytest.raises(FinettiError, match=r"pooling='complete'.*pooling='partial'"):
        fi.fit("y ~ 1 + (1 | site)", data, pooling="complete").exchangeability()
    with pytest.raises(FinettiError, match="pooling='none'"):
        fi.fit("y ~ 1 + (1 | site)", data, pooling="none").exchangeability()
    with pytest.raises(FinettiError, match=r"no grouping terms|not a grouping term"):
        fi.fit("y ~ 1 + x", data).exchangeability()
    alone = fi.fit("y ~ 1 + (1 | site)", data[data["site"] == "s00"], priors={"sd": fi.half_normal(1)})
    with pytest.raises(FinettiError, match="one level only"):
        alone.exchangeability()


def test_other_fits_of_the_same_schools() -> None:
    """Empirical Bayes says what it does; NUTS agrees with the weighted nodes."""
    exact = schools().exchangeability()
    sampled = schools(method="nuts").exchangeability()
    assert np.abs(exact.table["pit"] - sampled.table["pit"]).max() < 0.03
    point = schools(pooling="empirical").exchangeability()
    assert any("empirical Bayes" in a for a in point.advice) and set(point.columns["how"]) == {"at the estimate"}
    assert np.isfinite(point.table["pit"]).all()


@pytest.mark.parametrize(
    ("formula", "group", "options"),
    [
        ("y ~ 1 + x + (1 + x || site)", "site", {}),
        ("y ~ 1 + (1 | region/site)", "region:site", {}),
        ("y ~ 1 + (1 | region/site)", "region", {}),
        ("y ~ 1 + (1 | site) + (1 | region)", "site", {"pooling": {"region": "none", "site": "partial"}}),
        ("y | weights(w) ~ 1 + x + (1 | site)", "site", {}),
        ("y | se(w, sigma=True) ~ 1 + (1 | site)", "site", {}),
        ("y ~ 1 + x + (1 | site)", "site", {"priors": {"beta": fi.student_t(3, 0, 2)}}),
        ("y ~ 1 + (1 | site)", "site", {"priors": {"sd": fi.fixed(0.7), "sigma": fi.fixed(1.0)}}),
    ],
)
def test_every_model_has_an_answer(formula: str, group: str, options: dict[str, Any]) -> None:
    data = sites(np.random.default_rng(12)).assign(w=np.linspace(0.5, 2.0, 80))
    fit = fi.fit(formula, data, **options)
    found = fit.exchangeability(group, by=None if group == "region" else "height")
    J = len(set(found.table["level"]))
    assert isinstance(found, Exchangeability) and found.table["pit"].notna().sum() >= min(J, 3)
    assert np.isfinite(found.columns["p_value"]).any() and str(found)


def test_levels_that_do_not_determine_a_slope() -> None:
    """One row, or no spread of x: NaN for the coefficient, and still a joint p-value."""
    data = sites(np.random.default_rng(13), slope=1.0)
    data = data[(data["site"] != "s03") | (data.groupby("site").cumcount() == 0)]
    data.loc[data["site"] == "s04", "x"] = 0.0
    found = fi.fit("y ~ 1 + x + (1 + x | site)", data).exchangeability()
    table = found.table.set_index(["level", "coefficient"])
    assert table.loc["s03", "pit"].isna().all() and np.isfinite(table.loc["s03", "p_joint"]).all()
    assert np.isnan(table.loc[("s04", "x"), "pit"]) and np.isfinite(table.loc[("s04", "Intercept"), "pit"])
    assert found.calibration["n_groups"].tolist() == [19, 18]


def test_radon(shared_data: Path) -> None:
    """Gelman and Hill (2007, chapter 12): the soil's uranium tells the counties apart."""
    data = pd.read_csv(shared_data / "multilevel" / "radon.csv")
    found = fi.fit("log_radon ~ 1 + floor + (1 | county)", data).exchangeability(by="log_uranium")
    assert "log_uranium" in found.informative and found.flagged == ()
    row = found.columns.set_index("column").loc["log_uranium"]
    assert 0.5 < row["effect"] < 0.9 and row["explained"] > 0.5
    after = fi.fit("log_radon ~ 1 + floor + log_uranium + (1 | county)", data).exchangeability(by="log_uranium")
    assert "log_uranium" not in after.informative
    assert "in the model already" in after.columns.set_index("column").loc["log_uranium", "advice"]


def test_holm_against_statsmodels_numbers() -> None:
    """The example of R's p.adjust help: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.02, 0.03, 0.04, 0.05])), [0.05, 0.08, 0.09, 0.09, 0.09])


def test_pits_of_replicated_groups_against_densities() -> None:
    """`parent_check` by brute force: n - 1 groups' posterior of (mu, tau) on a grid, the cdf of the one left out."""
    rng = np.random.default_rng(0)
    v, grid = rng.uniform(0.2, 2.0, 5), np.linspace(0.05, 3.0, 12)
    log_prior = -grid
    x = rng.normal(size=(1, 5)) * 2.0
    mu = np.linspace(-30.0, 30.0, 12_001)
    for j in range(5):
        others = np.delete(np.arange(5), j)
        sd = np.sqrt(grid[:, None] ** 2 + v)
        log_p = scipy.stats.norm.logpdf(x[0, others], mu[:, None], sd[:, None, others]).sum(axis=2) + log_prior[:, None]
        w = np.exp(log_p - log_p.max())
        expected = np.sum(w * scipy.stats.norm.cdf((x[0, j] - mu) / sd[:, j, None])) / w.sum()
        assert _pits(x, v, grid, log_prior)[0, j] == pytest.approx(expected, abs=1e-8)


def test_the_advice_can_be_followed() -> None:
    """What it says to write is read by `fi.fit`, and by `fi.meta`, which takes moderators and no formula."""
    bcg = fi.datasets.load("bcg").rename(columns={"latitude": "the latitude"})
    found = fi.meta("log_rr", "se", bcg, labels="trial").exchangeability(by="the latitude")
    assert 'fi.meta should be told moderators="~ `the latitude`".' in found.advice[0]
    fi.meta("log_rr", "se", bcg, labels="trial", moderators="~ `the latitude`")
    row = {"advice": "", "column": "x", "coefficient": "Intercept", "informative": True, "contrast": "", "effect": 1.0}
    row |= {"q5": 0.5, "q95": 1.5, "p_adjusted": 0.01, "explained": 0.5}
    assert column_words(row, "study", True).endswith("fi.meta should be told + x in its moderators.")
    assert column_words(row, "site").endswith("the model should say `+ x`.")
    spaced = column_words(row | {"column": "my x", "coefficient": "Days"}, "site")
    assert spaced.endswith('the model should say "+ `my x` + `my x`:Days".')


def test_what_a_changed_table_asks_for_can_be_done() -> None:
    """`by=data` with a column that differs within levels would be the next error."""
    data = pd.DataFrame({"g": np.repeat(list("abcdef"), 4), "x": np.repeat(np.arange(6.0), 4)})
    data["y"] = np.random.default_rng(0).normal(size=24) + data["x"]
    whole = data.copy()
    fit = fi.fit("y ~ 1 + (1 | g)", data)
    data["g"] = data["g"].to_numpy()[::-1].copy()
    with pytest.raises(DataError, match=r"by=data\[\['g', 'x'\]\]"):
        fit.exchangeability(by="x")
    assert "x" in set(fit.exchangeability(by=whole[["g", "x"]]).columns["column"])
