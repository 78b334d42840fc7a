"""`fi.coverage`: intervals of one simulation against closed forms and quadrature, coverage against what is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

import finetti as fi
from finetti.posterior.coverage import coverage
from finetti.posterior.coverage_runs import Outcome, Quantity, Scenario, Study, quantities
from finetti.posterior.coverage_table import advise, outcome_table, written
from finetti.posterior.coverage_truth import from_design, one_way
from finetti.posterior.simulate import simulate

GROUPS, ROWS = 5, 4
TAILS = (0.05, 0.95)


def scenario(**given: Any) -> Scenario:
    """The one-way design with a flat prior of the mean, so that there are closed forms."""
    priors = {"Intercept": fi.flat(), **given}
    return one_way(GROUPS, ROWS, {"sd": 0.5}, priors, 0.9, 3)[1][0]


def data_of(case: Scenario, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The responses (J, n) and true whole effects (J,) of simulation i, from its seed."""
    rng = np.random.default_rng(np.random.SeedSequence([*case.seed, i]))
    made = simulate(case.bound, case.at(i, rng), rng)
    return made.y.reshape(GROUPS, ROWS), made.truth["beta[Intercept]"] + made.u["group"][:, 0]


def given_theta(y: np.ndarray, tau: Any, sigma: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means and variances of the groups' effects (J first), and of the mean, under a flat prior of the mean."""
    J, n = y.shape
    tau, sigma = np.asarray(tau, dtype=float), np.asarray(sigma, dtype=float)
    share = n * tau**2 / (n * tau**2 + sigma**2)
    spread = (tau**2 + sigma**2 / n) / J
    own = y.mean(axis=1).reshape(-1, *[1] * tau.ndim)
    mean = y.mean() + share * (own - y.mean())
    return mean, share * sigma**2 / n + (1 - share) ** 2 * spread, np.full(tau.shape, y.mean()), spread


def reml(y: np.ndarray) -> tuple[float, float]:
    """The maximum of the restricted likelihood of a balanced one-way layout, tau and sigma."""
    J, n = y.shape
    between = n * y.mean(axis=1).var(ddof=1)
    within = float(np.sum((y - y.mean(axis=1, keepdims=True)) ** 2)) / (J * (n - 1))
    if between <= within:
        return 0.0, float(y.std(ddof=1))
    return float(np.sqrt((between - within) / n)), within**0.5


def quadrature(y: np.ndarray, s: float) -> tuple[np.ndarray, ...]:
    """Nodes tau, sigma and weights of the posterior under half_t(3, s) of both, on a fine grid of their logs."""
    J, n = y.shape
    tau, sigma = np.meshgrid(np.exp(np.linspace(-8, 4, 250)), np.exp(np.linspace(-1.5, 2, 120)), indexing="ij")
    total = n * tau**2 + sigma**2
    between = n * float(np.sum((y.mean(axis=1) - y.mean()) ** 2))
    within = float(np.sum((y - y.mean(axis=1, keepdims=True)) ** 2))
    log_p = -0.5 * (J - 1) * np.log(total) - J * (n - 1) * np.log(sigma) - 0.5 * between / total
    log_p -= 0.5 * within / sigma**2
    for x in (tau, sigma):
        log_p += -2.0 * np.log1p((x / s) ** 2 / 3.0) + np.log(x)
    w = np.exp(log_p - log_p.max()).ravel()
    keep = w > 1e-10 * w.max()
    return tau.ravel()[keep], sigma.ravel()[keep], w[keep] / w[keep].sum()


def quantile(w: np.ndarray, mean: np.ndarray, variance: np.ndarray, p: float) -> float:
    """Of a mixture of normals, by bisection."""
    low, high = float(mean.min() - 20 * variance.max() ** 0.5), float(mean.max() + 20 * variance.max() ** 0.5)
    for _ in range(40):
        x = 0.5 * (low + high)
        low, high = (x, high) if w @ ndtr((x - mean) / np.sqrt(variance)) < p else (low, x)
    return 0.5 * (low + high)


def find(wanted: tuple[Quantity, ...], name: str) -> int:
    return [q.name for q in wanted].index(name)


def test_empirical_intervals_are_those_of_the_closed_form() -> None:
    case = scenario()
    wanted = quantities(case.bound)
    study, zeros = Study((case,), (wanted,)), 0
    for i in range(25):
        out = study((0, i))
        y, truth = data_of(case, i)
        tau, sigma = reml(y)
        mean, variance, centre, spread = given_theta(y, tau, sigma)
        half = 1.6448536 * np.sqrt(variance)
        at = find(wanted, "group effects")
        np.testing.assert_allclose(out.values[at, 0, 1], 2 * half, rtol=2e-3)
        # an end may fall on the other side of a truth that it just touches
        clear = np.abs(np.abs(truth - mean) - half) > 1e-3 * half
        if clear.all():
            assert out.values[at, 0, 0] == np.mean(np.abs(truth - mean) <= half)
        np.testing.assert_allclose(
            out.values[find(wanted, "beta[Intercept]"), 0, 1], 3.2897073 * spread**0.5, rtol=2e-3
        )
        # a new group: its probability, not one draw of it
        half_new = 1.6448536 * np.sqrt(spread + tau**2)
        held = ndtr((centre + half_new) / 0.5) - ndtr((centre - half_new) / 0.5)
        np.testing.assert_allclose(out.values[find(wanted, "a new group"), 0, 0], held, rtol=2e-3)
        assert out.zero[at] == (tau == 0.0)
        assert np.isnan(out.values[find(wanted, "sigma"), 0]).all()
        zeros += tau == 0.0
    assert 0 < zeros < 25


def test_full_intervals_are_those_of_quadrature() -> None:
    case = scenario()
    wanted = quantities(case.bound)
    study, s = Study((case,), (wanted,)), float(np.hypot(0.5, 1.0))
    gaps = []
    for i in range(6):
        out = study((0, i)).values[:, 1]
        y, truth = data_of(case, i)
        tau, sigma, w = quadrature(y, s)
        mean, variance, centre, spread = given_theta(y, tau, sigma)
        ends = np.array([[quantile(w, m, variance, p) for p in TAILS] for m in mean])
        new = [quantile(w, centre, spread + tau**2, p) for p in TAILS]
        order = np.argsort(tau)
        sd = np.interp(TAILS, np.cumsum(w[order]), tau[order])
        lengths = {
            "group effects": np.ptp(ends, axis=1).mean(),
            "a new group": np.ptp(new),
            "beta[Intercept]": np.ptp([quantile(w, centre, spread, p) for p in TAILS]),
            "sd_group[Intercept]": np.ptp(sd),
        }
        gaps.append([out[find(wanted, name), 1] / length - 1.0 for name, length in lengths.items()])
        # the nearest end to a truth may be off by the Monte Carlo error of a coarse fit
        near = np.min(np.abs(ends - truth[:, None]) / np.ptp(ends, axis=1)[:, None]) < 0.02
        inside = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
        assert near or out[find(wanted, "group effects"), 0] == pytest.approx(inside)
        held = ndtr(new[1] / 0.5) - ndtr(new[0] / 0.5)
        assert out[find(wanted, "a new group"), 0] == pytest.approx(held, abs=0.06)
        assert out[find(wanted, "sd_group[Intercept]"), 0] == (sd[0] <= 0.5 <= sd[1])
    # each within a few Monte Carlo errors (4 % of an sd in a mean, 10 % in a quantile), and no bias in their average
    assert np.abs(gaps).max() < 0.12
    assert np.abs(np.mean(gaps, axis=0)).max() < 0.03


def test_full_bayes_holds_its_promise_on_average_over_the_prior_and_empirical_does_not() -> None:
    table = coverage(groups=6, rows_per_group=3, truth="prior", n_sims=120, seed=1, n_jobs=1).table
    table["z"] = (table["coverage"] - table["nominal"]) / table["se"]
    full = table[table["method"] == "full Bayes"]
    assert len(full) == 5 and full["z"].abs().max() < 3.5  # chance of the largest of five: 0.002
    effects = table[(table["method"] == "empirical Bayes") & (table["quantity"] == "group effects")]
    assert float(effects["z"].iloc[0]) < -3.5  # the same check sees intervals that are too short


def test_few_groups_separate_the_two_analyses_and_many_unite_them() -> None:
    found = coverage(groups=5, rows_per_group=5, truth={"sd": 0.3}, n_sims=100, n_jobs=1)
    few = found.table.set_index(["quantity", "method"])["coverage"]
    assert few["group effects", "empirical Bayes"] < 0.83
    assert few["group effects", "full Bayes"] > 0.87
    assert few["a new group", "empirical Bayes"] < 0.86 < few["a new group", "full Bayes"]
    assert "exactly zero" in found.advice[0] and "full Bayes" in found.advice[0]
    many = coverage(groups=200, rows_per_group=20, truth={"sd": 0.3}, n_sims=12, n_jobs=1).table
    rows = many.set_index(["quantity", "method"])
    one, other = (rows.loc[("group effects", m)] for m in ("empirical Bayes", "full Bayes"))
    assert abs(one["coverage"] - other["coverage"]) < 0.01 and abs(one["coverage"] - 0.9) < 4 * one["se"] + 0.005
    assert one["length_ratio"] == pytest.approx(1.0, abs=0.01) and one["sd_zero"] == 0.0


def test_the_same_seed_gives_the_same_numbers_in_any_number_of_processes() -> None:
    given: dict[str, Any] = {"groups": [3, 8], "rows_per_group": 3, "n_sims": 6}
    one = coverage(**given, n_jobs=1).table
    pd.testing.assert_frame_equal(one, coverage(**given, n_jobs=2).table, check_exact=True)
    assert not one["length"].equals(coverage(**given, seed=1, n_jobs=1).table["length"])


def test_progress_counts_simulations() -> None:
    told: list[tuple[int, int | None]] = []
    coverage(
        groups=3, rows_per_group=3, n_sims=4, n_jobs=1, progress=lambda stage, done, total: told.append((done, total))
    )
    assert told[0] == (0, 4) and told[-1] == (4, 4)


def test_priors_of_the_one_way_model_come_from_the_truth_and_not_from_data() -> None:
    cases = one_way([3, 50], [2], {"sd": 3.0, "sigma": 4.0, "mean": 7.0}, {"sigma": fi.exponential(1)}, 0.9, 0)[1]
    for case in cases:
        said = {label: str(prior) for label, prior in case.bound.priors.items()}
        assert said == {
            "Intercept": "normal(7, 12.5)",
            "sd_group[Intercept]": "half_t(3, 5)",
            "sigma": "exponential(1)",
        }
        assert case.bound.sources["sigma"] == "sigma" and case.bound.sources["Intercept"] == "default"
    unit = one_way(3, 2, "prior", None, 0.9, 0)[1][0].bound.priors
    assert [str(p) for p in unit.values()] == ["normal(0, 2.5)", "half_t(3, 1)", "half_t(3, 1)"]


@pytest.fixture(scope="module")
def schools() -> fi.Fit:
    priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"), priors=priors)


def test_a_fit_is_studied_at_its_medians_unless_told_otherwise(schools: fi.Fit) -> None:
    medians = schools.summary()["q50"].to_dict()
    _, (case,), said = from_design(schools, None, None, 5, 0.9, 0)
    assert said == medians == case.truth
    said = from_design(schools, {"sd": 9}, None, 5, 0.9, 0)[2]
    assert said == {**medians, "sd_school[Intercept]": 9.0}
    drawn = from_design(schools, "posterior", None, 5, 0.9, 0)[1][0].truth
    assert isinstance(drawn, tuple) and len(drawn) == 5
    draws = np.column_stack([schools.draws(label) for label in medians])
    for values in drawn:  # jointly, not each label by itself
        assert np.any(np.all(draws == np.array(list(values.values())), axis=1))


def test_a_large_spread_between_schools_makes_the_analyses_agree(schools: fi.Fit) -> None:
    table = coverage(schools, truth={"sd": 60}, n_sims=40, n_jobs=1).table
    assert list(table.columns[:3]) == ["design", "quantity", "method"]
    assert table["design"].unique().tolist() == [schools.formula]
    rows = table.set_index(["quantity", "method"])
    one, other = (rows.loc[("group effects", m), "coverage"] for m in ("empirical Bayes", "full Bayes"))
    assert abs(one - other) < 0.02 and min(one, other) > 0.8
    assert rows.loc[("group effects", "empirical Bayes"), "length_ratio"] == pytest.approx(1.0, abs=0.05)


RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "y": RNG.normal(size=40), "x": RNG.normal(size=40), "s": RNG.uniform(0.5, 1, 40), "w": RNG.uniform(0.5, 2, 40),
        "g": np.repeat([f"g{i}" for i in range(10)], 4), "h": np.tile([f"h{i}" for i in range(5)], 8),
    }
)  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "two terms": (
        "y ~ 1 + x + (1 + x || g) + (1 | h)", {},
        ["group effects g[Intercept]", "group effects g[x]", "group effects h[Intercept]", "a new group g[Intercept]",
         "a new group g[x]", "a new group h[Intercept]", "beta[Intercept]", "beta[x]", "sd_g[Intercept]", "sd_g[x]",
         "sd_h[Intercept]", "sigma"],
    ),
    "correlated, weights, offset": (
        "y | weights(w) ~ 1 + x + offset(s) + (1 + x | g)", {},
        ["group effects g[Intercept]", "group effects g[x]", "a new group g[Intercept]", "a new group g[x]",
         "beta[Intercept]", "beta[x]", "sd_g[Intercept]", "sd_g[x]", "cor_g[Intercept, x]", "sigma"],
    ),
    "known errors and sigma, empirical": (
        "y | se(s, sigma=True) ~ 1 + (1 | g)", {"pooling": "empirical"},
        ["group effects", "a new group", "beta[Intercept]", "sd_g[Intercept]", "sigma"],
    ),
    "explored and held parameters": (
        "y ~ 1 + x + (1 | g)", {"priors": {"beta[x]": fi.student_t(3, 0, 1), "sigma": fi.fixed(1.0)}},
        ["group effects", "a new group", "beta[Intercept]", "beta[x]", "sd_g[Intercept]"],
    ),
    "one term pooled completely": (
        "y ~ 0 + x + (1 | g) + (1 | h)", {"pooling": {"h": "complete"}},
        ["group effects", "a new group", "beta[x]", "sd_g[Intercept]", "sigma"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_design(name: str) -> None:
    formula, options, expected = MODELS[name]
    fit = fi.fit(formula, TABLE, **options)
    for truth in (None, "posterior", "prior"):
        found = coverage(fit, truth=truth, n_sims=3, n_jobs=1)
        assert list(dict.fromkeys(found.table["quantity"])) == expected
        assert found.table["n_failed"].sum() == 0
        assert np.isfinite(found.table[["coverage", "se", "length"]].to_numpy()).all()
        assert formula.split("~")[0].strip() and str(found).count("\n- ") == len(found.advice)


def test_meta_analysis_with_known_covariance_and_a_loaded_fit(tmp_path: Any) -> None:
    fit = fi.meta([0.1, 0.3, 0.2, 0.5, 0.4], V=np.diag([0.01] * 5) + 0.002)
    table = coverage(fit, n_sims=4, n_jobs=1).table
    loaded = fi.load(fit.save(tmp_path / "fit.nc"))
    pd.testing.assert_frame_equal(table, coverage(loaded, n_sims=4, n_jobs=1).table)


TWO = {"groups": 5, "rows_per_group": 2}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "needs a fit, or groups= and rows_per_group="),
    "no rows": ({"groups": 5}, "needs a fit, or groups= and rows_per_group="),
    "one group": ({**TWO, "groups": 1}, "groups: 1 is not a whole number of at least 2"),
    "text": ({**TWO, "groups": "5"}, "groups: '5' is not a whole number"),
    "one row": ({**TWO, "rows_per_group": [2, 1]}, "sd and sigma cannot be told apart"),
    "twice": ({**TWO, "groups": [5, 5]}, "twice"),
    "none": ({**TWO, "groups": []}, "empty"),
    "too many": ({**TWO, "groups": 10**6}, "2,000,000 rows"),
    "typo": ({**TWO, "truth": {"sgima": 1}}, "did you mean 'sigma'. Available: 'mean', 'sd'"),
    "same": ({**TWO, "truth": {"sd": 1, "sd_group": 1}}, "both give sd_group"),
    "negative": ({**TWO, "truth": {"sd": -1}}, "at least 0"),
    "sigma 0": ({**TWO, "truth": {"sigma": 0}}, "above 0"),
    "nan": ({**TWO, "truth": {"mean": float("nan")}}, "finite number"),
    "posterior of nothing": ({**TWO, "truth": "posterior"}, "neither 'prior' nor a mapping"),
    "improper": ({**TWO, "truth": "prior", "priors": {"sd": fi.uniform()}}, "improper prior"),
    "n_sims": ({**TWO, "n_sims": 1}, "n_sims=1 must be"),
    "prob": ({**TWO, "prob": 90}, "prob=90 must lie"),
    "seed": ({**TWO, "seed": -1}, "seed=-1"),
    "progress": ({**TWO, "progress": True}, "not callable"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_words(name: str) -> None:
    given, words = BAD[name]
    with pytest.raises(fi.FinettiError, match=words):
        coverage(**given)


def test_bad_requests_about_fits(schools: fi.Fit) -> None:
    with pytest.raises(fi.FinettiError, match="a fit is studied with its own design"):
        coverage(schools, groups=3)
    with pytest.raises(fi.FinettiError, match="int, not a fit"):
        coverage(3)  # type: ignore[arg-type]
    with pytest.raises(fi.FinettiError, match=r"did you mean 'sd_school'. Available: .*'sd_school\[Intercept\]'"):
        coverage(schools, truth={"sd_schol": 3})
    with pytest.raises(fi.FinettiError, match="no grouping terms"):
        coverage(fi.fit("y ~ 1 + x", TABLE))
    with pytest.raises(fi.FinettiError, match="pools none of its terms"):
        coverage(fi.fit("y ~ 1 + x + (1 | g)", TABLE, pooling="complete"))
    with pytest.raises(fi.FinettiError, match="'h' is not pooled"):
        coverage(fi.fit("y ~ 1 + (1 | g) + (1 | h)", TABLE, pooling={"h": "none"}))
    fit = fi.fit("y ~ 1 + x + s + (1 + x + s | g)", TABLE)
    pairs = ("Intercept, x", 0.9), ("Intercept, s", 0.9), ("x, s", -0.9)
    with pytest.raises(fi.FinettiError, match="do not form a correlation matrix"):
        coverage(fit, truth={f"cor_g[{pair}]": r for pair, r in pairs})


def test_the_code_on_the_page_about_honesty_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "honesty.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("n_sims=400", "n_sims=20"), names)  # noqa: S102  our own page
    assert all(
        (Path(__file__).parents[2] / "docs" / image).exists() for image in re.findall(r"\]\((img/[^)]*)\)", page)
    )


# --- from outcomes to words ---------------------------------------------------------------------------


def outcomes(empirical: list[float], full: list[float], failed: int = 0) -> tuple[list[Quantity], list[Outcome]]:
    made = [
        Outcome(np.array([[[a, 1.0], [b, 2.0]]]), np.array([float(a < 0.5)]))
        for a, b in zip(empirical, full, strict=True)
    ]
    return [Quantity("group effects", "group", "group")], made + [
        Outcome(np.full((1, 2, 2), np.nan), np.full(1, np.nan), "no") for _ in range(failed)
    ]


def test_the_table_averages_over_simulations() -> None:
    table = outcome_table([{"groups": 3, "rows_per_group": 2}], [outcomes([0.0, 1.0, 0.8], [1.0, 1.0, 1.0], 2)], 0.9)
    one, other = table.iloc[0], table.iloc[1]
    assert one["coverage"] == pytest.approx(0.6) and one["se"] == pytest.approx(np.std([0, 1, 0.8], ddof=1) / 3**0.5)
    assert (one["n_sims"], one["n_failed"], one["length_ratio"], other["length_ratio"]) == (3, 2, 0.5, 1.0)
    assert one["sd_zero"] == pytest.approx(1 / 3) and np.isnan(other["sd_zero"])
    assert other["coverage"] == 1.0 and 0.1 < other["se"] < 0.3  # three out of three are no certainty
    with pytest.raises(fi.FinettiError, match="of 2 simulations 0 could be analysed; the first: no"):
        outcome_table([{"design": "y ~ 1"}], [outcomes([], [], 2)], 0.9)


@pytest.mark.parametrize(
    ("empirical", "full", "failed", "words"),
    [
        ([0.2, 0.8] * 50, [0.85, 0.95] * 50, 0, ["only 50 %", "those of full Bayes in 90 %", "exactly zero in 50 %"]),
        ([0.85, 0.94] * 50, [0.85, 0.95] * 50, 0, ["hold what they promise", "0.5 percentage points"]),
        ([0.2, 1.0, 1.0, 1.0], [0.9] * 4, 0, ["too few simulations", "n_sims="]),
        ([0.85, 0.94] * 50, [0.85, 0.95] * 50, 4, ["4 % of the simulations", "left out"]),
    ],
)
def test_advice_says_what_was_found(empirical: list[float], full: list[float], failed: int, words: list[str]) -> None:
    table = outcome_table([{"groups": 3, "rows_per_group": 2}], [outcomes(empirical, full, failed)], 0.9)
    said = " ".join(advise(table, {"sd": 1.0}, 0.9))
    assert all(word in said for word in words), said
    assert "exact on average over its prior" in said
    assert "± " in written(table, (said,), {"sd": 1.0}, 0.9)


def test_a_broken_promise_of_full_bayes_is_not_passed_over() -> None:
    broken = outcome_table(
        [{"groups": 3, "rows_per_group": 2}], [outcomes([0.5] * 99 + [0.6], [0.5] * 99 + [0.6])], 0.9
    )
    assert "please report it" in " ".join(advise(broken, "prior", 0.9))
