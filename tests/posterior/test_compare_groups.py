"""Comparisons of groups against quadrature over tau, an independent Monte Carlo, and the fit's own joint draws."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, rankdata

import finetti as fi
from finetti.posterior import compare_groups as module
from finetti.posterior import draws as draws_module
from finetti.posterior.compare_groups import GroupComparison, rank_rows

LEVELS = list("ABCDEFGH")


@pytest.fixture(scope="module")
def schools() -> fi.Fit:
    priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    data = fi.datasets.load("eight_schools")
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", data, priors=priors, draws=40_000)


@pytest.fixture(scope="module")
def pastes() -> fi.Fit:
    return fi.fit("strength ~ 1 + (1 | batch/cask)", fi.datasets.load("pastes"), draws=20_000)


@pytest.fixture(scope="module")
def sleep() -> fi.Fit:
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))


def schools_on_a_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (T,) of a fine grid of tau, means (T, 8) and covariances (T, 8, 8) of the schools' effects."""
    data = fi.datasets.load("eight_schools")
    y, s = data["effect"].to_numpy(float), data["se"].to_numpy(float)
    u = (np.arange(4000) + 0.5) / 4000
    tau = 5.0 * np.tan(0.5 * np.pi * u)  # equal steps of probability under the half-Cauchy(5)
    means, covs, log_w = [], [], []
    for t in tau:
        K = 25.0 * np.ones((8, 8)) + t**2 * np.eye(8)  # prior covariance of the effects, mu integrated out
        V = K + np.diag(s**2)
        gain = np.linalg.solve(V, K).T
        means.append(gain @ y)
        covs.append(K - gain @ K)
        log_w.append(-0.5 * (np.linalg.slogdet(V)[1] + y @ np.linalg.solve(V, y)))
    w = np.exp(np.array(log_w) - max(log_w))
    return w / w.sum(), np.array(means), np.array(covs)


def test_pairs_of_schools_against_quadrature(schools: fi.Fit) -> None:
    w, m, C = schools_on_a_grid()
    table = schools.compare_groups(probs=(0.1, 0.9)).pairs
    assert list(table.columns) == ["level_a", "level_b", "mean", "sd", "q10", "q90", "prob_greater"]
    assert list(zip(table["level_a"], table["level_b"], strict=True)) == list(itertools.combinations(LEVELS, 2))
    for row in table.itertuples():
        a, b = LEVELS.index(row.level_a), LEVELS.index(row.level_b)
        d, v = m[:, a] - m[:, b], C[:, a, a] + C[:, b, b] - 2.0 * C[:, a, b]
        # the error of the nodes: 2 % of the sd of P(a > b | tau), which is about 0.1
        close = 1e-3 if (row.level_a, row.level_b) == ("A", "C") else 2e-3
        assert abs(row.prob_greater - w @ norm.cdf(d / np.sqrt(v))) < close
        mean, sd = w @ d, np.sqrt(w @ (v + (d - w @ d) ** 2))
        assert abs(row.mean - mean) < 0.01 * sd
        assert abs(row.sd - sd) < 0.01 * sd
        for q, p in ((row.q10, 0.1), (row.q90, 0.9)):
            assert abs(w @ norm.cdf((q - d) / np.sqrt(v)) - p) < 2e-3


def test_ranks_of_schools_against_another_monte_carlo(schools: fi.Fit) -> None:
    w, m, C = schools_on_a_grid()
    rng = np.random.default_rng(20261122)
    n = 200_000
    node = rng.choice(w.size, size=n, p=w)
    used, local = np.unique(node, return_inverse=True)
    root = np.linalg.cholesky(C[used] + 1e-12 * np.eye(8))
    theta = m[node] + np.einsum("nij,nj->ni", root[local], rng.standard_normal((n, 8)))
    rank = rankdata(-theta, axis=1)
    table = schools.compare_groups().ranks
    fewer = schools.n_draws
    error = rank.std(axis=0) * np.sqrt(1 / n + 1 / fewer)
    np.testing.assert_array_less(np.abs(table["mean"] - rank.mean(axis=0)), 4.0 * error)
    for column, p in (("prob_best", (rank == 1).mean(axis=0)), ("prob_worst", (rank == 8).mean(axis=0))):
        error = np.sqrt(p * (1 - p) * (1 / n + 1 / fewer))
        np.testing.assert_array_less(np.abs(table[column] - p), 4.0 * error)
    for q, p in (("q5", 0.05), ("q50", 0.5), ("q95", 0.95)):
        np.testing.assert_array_less(np.abs(table[q] - np.quantile(rank, p, axis=0)), 1.01)


def test_opposite_pairs_add_to_one(schools: fi.Fit, pastes: fi.Fit) -> None:
    for fit, group in ((schools, "school"), (pastes, "batch"), (pastes, "batch:cask")):
        levels = next(f.levels for f in fit.model.design.factors if f.name == group)
        there = [(levels[0], levels[1]), (levels[2], levels[5])]
        one = fit.compare_groups(group, pairs=there).pairs
        other = fit.compare_groups(group, pairs=[(b, a) for a, b in there]).pairs
        np.testing.assert_allclose(one["prob_greater"] + other["prob_greater"], 1.0, rtol=1e-12)
        np.testing.assert_allclose(one["mean"], -other["mean"], rtol=1e-10)
        np.testing.assert_allclose(one["sd"], other["sd"], rtol=1e-10)
        whole = fit.compare_groups(group).pairs.set_index(["level_a", "level_b"])
        some = one.set_index(["level_a", "level_b"])
        pd.testing.assert_frame_equal(whole.loc[some.index], some, check_exact=False, rtol=1e-6)


@pytest.mark.parametrize("group", ["batch", "batch:cask"])
def test_nested_pairs_agree_with_joint_draws(pastes: fi.Fit, group: str) -> None:
    """Means, sds and probabilities of differences, which know of covariances only through the contrasts."""
    agree_with_draws(pastes, group, 0)


def test_crossed_and_correlated_pairs_agree_with_joint_draws(sleep: fi.Fit) -> None:
    agree_with_draws(sleep, "Subject", 1)
    crossed = fi.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", fi.datasets.load("penicillin"))
    for group in ("plate", "sample"):
        agree_with_draws(crossed, group, 0)


def agree_with_draws(fit: fi.Fit, group: str, k: int) -> None:
    factor = next(f for f in fit.model.design.factors if f.name == group)
    table = fit.compare_groups(group, coefficient=factor.coefficients[k])
    names = factor.coefficients[k]
    u = np.stack([fit.draws(f"u_{group}[{level}, {names}]") for level in factor.levels], axis=1)
    place = {level: j for j, level in enumerate(factor.levels)}
    n = len(u)
    for row in table.pairs.itertuples():
        d = u[:, place[row.level_a]] - u[:, place[row.level_b]]
        # 5 standard errors: 435 pairs times three quantities
        assert abs(row.mean - d.mean()) < 5.0 * d.std() / np.sqrt(n) + 0.02 * d.std()
        assert abs(row.sd / d.std() - 1.0) < 5.0 * np.sqrt(1.0 / n) + 0.02
        p = row.prob_greater
        assert abs(p - (d > 0).mean()) < 5.0 * np.sqrt(max(p * (1 - p), 1.0 / n) / n) + 0.004
    expected = rankdata(-u, axis=1)
    np.testing.assert_allclose(table.ranks["mean"], expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(table.ranks["prob_best"], (expected == 1).mean(axis=0), atol=1e-12)


def test_names_and_order_of_levels_do_not_matter() -> None:
    data = fi.datasets.load("dyestuff")
    y, g = data.columns[-1], data.columns[0]
    if not pd.api.types.is_numeric_dtype(data[y]):
        y, g = g, y
    names = sorted(data[g].unique())
    swapped = dict(zip(names, reversed(names), strict=True))
    tables = []
    for frame, back in (
        (data, dict(zip(names, names, strict=True))),
        (data.assign(**{g: data[g].map(swapped)}), swapped),
    ):
        c = fi.fit(f"{y} ~ 1 + (1 | {g})", frame).compare_groups()
        M = c.matrix().rename(index=back, columns=back).loc[names, names]
        tables.append((M, c.ranks.assign(level=c.ranks["level"].map(back)).set_index("level").loc[names, "mean"]))
    np.testing.assert_allclose(tables[0][0], tables[1][0], atol=1e-9)
    np.testing.assert_allclose(tables[0][1], tables[1][1], atol=0.1)  # other draws


def test_sums_and_matrix(sleep: fi.Fit) -> None:
    c = sleep.compare_groups("Subject", coefficient="Days")
    assert isinstance(c, GroupComparison)
    assert (c.group, c.coefficient) == ("Subject", "Days")
    assert c.ranks["prob_best"].sum() == pytest.approx(1.0)
    assert c.ranks["prob_worst"].sum() == pytest.approx(1.0)
    assert c.ranks["mean"].mean() == pytest.approx(9.5)
    M = c.matrix()
    assert M.shape == (18, 18)
    assert np.all(np.isnan(np.diag(M)))
    np.testing.assert_allclose((M + M.T).to_numpy()[~np.eye(18, dtype=bool)], 1.0)
    row = c.pairs.iloc[5]
    assert M.loc[row["level_a"], row["level_b"]] == row["prob_greater"]
    few = sleep.compare_groups(pairs=[(308, "309"), ("337", "308")]).matrix()
    assert list(few.index) == ["308", "309", "337"]
    assert np.isnan(few.loc["309", "337"])


def test_unpooled_groups_are_normal_and_equal_ones_tie() -> None:
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0], "s": [1.0, 0.5, 2.0], "g": ["a", "b", "c"]})
    free = fi.fit("y | se(s) ~ 0 + (1 | g)", data, pooling="none").compare_groups()
    a, b = np.array([0, 0, 1]), np.array([1, 2, 2])
    y, s = data["y"].to_numpy(), data["s"].to_numpy()
    np.testing.assert_allclose(free.pairs["prob_greater"], norm.cdf((y[a] - y[b]) / np.hypot(s[a], s[b])), rtol=1e-9)
    with_mean = fi.fit("y | se(s) ~ 1 + (1 | g)", data, pooling="none").compare_groups()
    np.testing.assert_allclose(with_mean.pairs["mean"], y[a] - y[b], rtol=1e-9)
    equal = fi.fit("y | se(s) ~ 1 + (1 | g)", data, pooling="complete").compare_groups()
    np.testing.assert_array_equal(equal.pairs["prob_greater"], 0.5)
    np.testing.assert_array_equal(equal.ranks["mean"], 2.0)
    np.testing.assert_allclose(equal.ranks["prob_best"], 1.0 / 3.0)


def test_zero_variance_of_empirical_bayes_ties() -> None:
    fit = fi.fit("Yield ~ 1 + (1 | Batch)", renamed("dyestuff2"), pooling="empirical")
    c = fit.compare_groups()
    np.testing.assert_array_equal(c.pairs["prob_greater"], 0.5)
    np.testing.assert_allclose(c.ranks["prob_worst"], 1.0 / 6.0)


def renamed(name: str) -> pd.DataFrame:
    data = fi.datasets.load(name)
    number = next(c for c in data.columns if pd.api.types.is_numeric_dtype(data[c]))
    text = next(c for c in data.columns if c != number)
    return data[[number, text]].rename(columns={number: "Yield", text: "Batch"})


def test_unidentified_slopes_are_left_out() -> None:
    rng = np.random.default_rng(3)
    x = np.array([0.0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 5, 1])
    g = ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["d"]
    data = pd.DataFrame({"y": x + rng.normal(size=13), "x": x, "g": g})
    c = fi.fit("y ~ 1 + x + (1 + x | g)", data, pooling="none").compare_groups(coefficient="x")
    gone = (c.pairs["level_a"] == "d") | (c.pairs["level_b"] == "d")
    assert c.pairs.loc[gone, "prob_greater"].isna().all() and c.pairs.loc[~gone, "prob_greater"].notna().all()
    assert c.ranks.loc[3].drop("level").isna().all()
    assert c.ranks["mean"].iloc[:3].mean() == pytest.approx(2.0)


def test_many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    g = np.repeat([f"g{i:02d}" for i in range(60)], 4)
    fit = fi.fit("y ~ 1 + (1 | g)", {"y": rng.normal(size=240) + np.repeat(rng.normal(size=60), 4), "g": g})
    c = fit.compare_groups()
    with pytest.raises(fi.FinettiError, match=r"60 levels, which make 1,770 pairs; name those"):
        _ = c.pairs
    assert "too many to compare unasked" in str(c)
    assert len(c.ranks) == 60 and "g00" in c._repr_html_()
    assert len(fit.compare_groups(pairs=[("g00", "g59")]).pairs) == 1
    monkeypatch.setattr(module, "MOST_RANKED", 59)
    with pytest.raises(fi.FinettiError, match="give the pairs of interest"):
        fit.compare_groups()
    named = fit.compare_groups(pairs=[("g00", "g59")])
    assert "too many to rank" in str(named)
    with pytest.raises(fi.FinettiError, match="too many to rank"):
        _ = named.ranks


def test_large_factors_are_ranked_in_pieces(sleep: fi.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sleep.compare_groups(coefficient="Days").ranks
    monkeypatch.setattr(draws_module, "LARGE", 0)
    pieces = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    pd.testing.assert_frame_equal(pieces.compare_groups(coefficient="Days").ranks, whole)


def test_bad_questions(sleep: fi.Fit, pastes: fi.Fit) -> None:
    for question, told in (
        (lambda: pastes.compare_groups(), "say which grouping term"),
        (lambda: sleep.compare_groups("subject"), "did you mean 'Subject'"),
        (lambda: sleep.compare_groups(coefficient="days"), "did you mean 'Days'"),
        (lambda: sleep.compare_groups(pairs=[("308", "3099")]), "'3099' is not a level"),
        (lambda: sleep.compare_groups(pairs=[("308", "308")]), "with itself"),
        (lambda: sleep.compare_groups(pairs=[("308",)]), "is not a pair"),
        (lambda: sleep.compare_groups(pairs=["308"]), "is not a pair"),
        (lambda: sleep.compare_groups(pairs="308"), "not a list of pairs"),
        (lambda: sleep.compare_groups(pairs=[]), "pairs is empty"),
        (lambda: sleep.compare_groups(probs=(0.0, 0.5)), "strictly between"),
    ):
        with pytest.raises(fi.FinettiError, match=told):
            question()


def test_names_as_people_write_them() -> None:
    rng = np.random.default_rng(8)
    names = ["1", "10", "2", "Åse <b>", "日本", "a, b]"]
    data = pd.DataFrame({"y": rng.normal(size=24), "g": np.repeat(names, 4)})
    c = fi.fit("y ~ 1 + (1 | g)", data).compare_groups()
    assert set(c.ranks["level"]) == set(names)
    assert "&lt;b&gt;" in c._repr_html_() and "<b>" not in c._repr_html_()
    assert "日本" in str(c)


def test_ranks_of_rows_with_ties() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 4, (200, 7)).astype(float)
    ranks, best, worst = rank_rows(x)
    np.testing.assert_array_equal(ranks, rankdata(-x, axis=1))
    assert best.sum() == pytest.approx(200) and worst.sum() == pytest.approx(200)
    x[:, 3] = np.nan
    ranks, best, _ = rank_rows(x)
    assert np.all(np.isnan(ranks[:, 3])) and best[3] == 0.0
    np.testing.assert_array_equal(np.delete(ranks, 3, axis=1), rankdata(-np.delete(x, 3, axis=1), axis=1))
    assert np.all(np.isnan(rank_rows(np.full((2, 3), np.nan))[0]))
