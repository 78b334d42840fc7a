"""The law of total variance against quadrature over tau, as an identity, and in every mode of a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

import finetti as fi
from finetti.inference import empirical as empirical_module
from finetti.posterior.companions import companion

COLUMNS = ["given_hyperparameters", "from_hyperparameters", "total", "share", "eb_sd", "eb_interval_ratio"]
PRIORS = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}


def data(n=80, seed=1, groups=7) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, groups, n), rng.integers(0, 5, n), rng.normal(size=n)
    y = 2.0 + rng.normal(size=groups)[g] + 0.4 * x + 0.6 * rng.normal(size=5)[h] + rng.normal(size=n)
    frame = {"y": y, "x": x, "s": rng.uniform(0.3, 1.2, n), "w": rng.uniform(0.4, 2.0, n)}
    return pd.DataFrame(frame | {"g": g.astype(str), "h": h.astype(str)})


@pytest.fixture(scope="module")
def schools() -> fi.Fit:
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"), priors=PRIORS)


def schools_on_a_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Grid of tau: weights (T,), log marginals (1 + T,), means and variances (1 + T, 9) of mu and the 8 effects."""
    table = fi.datasets.load("eight_schools")
    y, s = table["effect"].to_numpy(float), table["se"].to_numpy(float)
    tau = 5.0 * np.tan(0.5 * np.pi * (np.arange(4000) + 0.5) / 4000)  # equal steps of probability of half-Cauchy(5)
    log_p, means, variances = [], [], []
    for t in np.concatenate([[0.0], tau]):
        one = 25.0 * np.ones((8, 9))
        K = np.concatenate([one[:, :1], one[:, 1:] + t**2 * np.eye(8)], axis=1)  # covariance of y with (mu, effects)
        V = K[:, 1:] + np.diag(s**2)
        gain = np.linalg.solve(V, K).T
        prior = np.concatenate([[25.0], np.full(8, 25.0 + t**2)])
        means.append(gain @ y)
        variances.append(prior - np.einsum("ij,ji->i", gain, K))
        log_p.append(-0.5 * (np.linalg.slogdet(V)[1] + y @ np.linalg.solve(V, y)))
    log_p = np.array(log_p)
    w = np.exp(log_p[1:] - log_p[1:].max())
    return w / w.sum(), log_p, np.array(means), np.array(variances)


def test_schools_against_quadrature(schools: fi.Fit) -> None:
    w, log_p, m, v = schools_on_a_grid()
    assert np.argmax(log_p) == 0  # empirical Bayes of these data: no variance between schools at all
    eb_sd = np.sqrt(v[0])
    m, v = m[1:], v[1:]
    given_, between = w @ v, w @ (m - w @ m) ** 2
    table = schools.uncertainty()
    assert list(table.index) == ["beta[Intercept]", *(f"school[{k}, Intercept]" for k in "ABCDEFGH")]
    assert list(table.columns) == ["term", "level", "coefficient", "n", *COLUMNS]
    np.testing.assert_allclose(table["given_hyperparameters"], given_, rtol=0.01)
    np.testing.assert_allclose(table["from_hyperparameters"], between, rtol=0.03, atol=0.02)
    np.testing.assert_allclose(table["share"], between / (given_ + between), atol=0.005)
    np.testing.assert_allclose(table["eb_sd"], eb_sd, rtol=1e-6)
    for i, ratio in enumerate(table["eb_interval_ratio"]):
        low, high = (
            brentq(lambda q, i=i, p=p: w @ norm.cdf((q - m[:, i]) / np.sqrt(v[:, i])) - p, -200, 200)
            for p in (0.05, 0.95)
        )
        assert ratio == pytest.approx(2 * norm.ppf(0.95) * eb_sd[i] / (high - low), rel=0.01)
    words = " ".join(table.notes)
    assert "shorter in 8 of 8, longer in 0" in words
    assert "exceeds 1" not in words


@given(
    seed=some.integers(0, 10_000),
    n=some.integers(12, 60),
    groups=some.integers(2, 9),
    formula=some.sampled_from(
        ["y ~ 1 + (1 | g)", "y ~ 1 + x + (1 + x | g)", "y ~ 1 + x + (1 + x || g) + (1 | h)", "y | se(s) ~ 1 + (1 | g)"]
    ),
)
@settings(max_examples=12)
def test_the_two_parts_add_up_to_the_posterior_variance(seed: int, n: int, groups: int, formula: str) -> None:
    frame = data(n, seed, groups)
    frame = frame.assign(g=[str(i % groups) for i in range(n)], h=[str(i % 5) for i in range(n)])
    fit = fi.fit(formula, frame, seed=seed)
    table = fit.uncertainty()
    np.testing.assert_array_equal(table["given_hyperparameters"] + table["from_hyperparameters"], table["total"])
    assert (table[["given_hyperparameters", "from_hyperparameters"]] >= 0.0).all(axis=None)
    assert table["share"].between(0.0, 1.0).all()
    assert table.index.is_unique
    beta = table[table["term"] == "beta"]
    sd = fit.summary().loc[beta.index, "sd"]
    np.testing.assert_allclose(beta["total"], sd**2, rtol=1e-8)
    for name in fit.group_names:
        np.testing.assert_allclose(table[table["term"] == name]["total"], fit.groups(name)["sd"] ** 2, rtol=1e-8)


MODES = {
    "crossed": ("y ~ 1 + x + (1 + x | g) + (1 | h)", {}),
    "nested": ("y ~ 1 + x + (1 | g/h)", {}),
    "known errors and sigma": ("y | se(s, sigma=True) ~ 1 + x + (1 | g)", {}),
    "weights": ("y | weights(w) ~ 1 + (1 | g)", {}),
    "offset": ("y ~ 1 + offset(x) + (1 | g)", {}),
    "empirical beside partial": ("y ~ 1 + x + (1 | g) + (1 | h)", {"pooling": {"g": "empirical", "h": "partial"}}),
    "complete": ("y ~ 1 + x + (1 | g)", {"pooling": "complete"}),
    "without groups": ("y ~ 1 + x", {}),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str) -> None:
    formula, options = MODES[mode]
    fit = fi.fit(formula, data(), **options)
    table = fit.uncertainty()
    values = table[COLUMNS]
    assert np.isfinite(values.to_numpy()).all()
    assert (values >= 0.0).all(axis=None)
    assert set(table["term"]) == {"beta", *fit.group_names}
    assert (table["eb_interval_ratio"] > 0.3).all()
    assert table.notes
    if mode == "complete":  # every group is the population value: one variance
        np.testing.assert_allclose(table.loc["g[0, Intercept]", COLUMNS[:3]].astype(float),
                                   table.loc["beta[Intercept]", COLUMNS[:3]].astype(float), rtol=1e-9)  # fmt: skip
    if mode == "empirical beside partial":
        assert "the hyperparameters of g are held" in table.notes[0]


def test_one_term_or_all(schools: fi.Fit) -> None:
    fit = fi.fit("y ~ 1 + x + (1 | g) + (1 | h)", data())
    both, one = fit.uncertainty(), fit.uncertainty("h")
    assert set(one["term"]) == {"beta", "h"}
    pd.testing.assert_frame_equal(pd.DataFrame(both[both["term"] != "g"]), pd.DataFrame(one))
    assert one.loc["h[3, Intercept]", "n"] == int((data()["h"] == "3").sum())
    with pytest.raises(fi.FinettiError, match=r"'hh' is not a grouping term"):
        fit.uncertainty("hh")


def test_an_empirical_fit_says_what_it_leaves_out() -> None:
    fit = fi.fit("y ~ 1 + x + (1 | g)", data(), pooling="empirical")
    table = fit.uncertainty()
    assert (table["from_hyperparameters"] == 0.0).all()
    np.testing.assert_allclose(table["eb_sd"] ** 2, table["total"], rtol=1e-12)
    np.testing.assert_allclose(table["eb_interval_ratio"], 1.0, rtol=1e-12)
    assert len(table.notes) == 1
    assert "left out, not because they are known" in table.notes[0]


def test_no_free_hyperparameters() -> None:
    fit = fi.fit("y | se(s) ~ 1 + (1 | g)", data(), priors={"sd": fi.fixed(0.7)})
    table = fit.uncertainty()
    assert (table["share"] == 0.0).all()
    assert "no free hyperparameters" in table.notes[0]


def test_without_pooling_the_population_value_is_not_identified() -> None:
    table = fi.fit("y ~ 1 + x + (1 | g)", data(), pooling="none").uncertainty()
    assert table.loc["beta[Intercept]", COLUMNS].isna().all()
    rest = table.drop(index="beta[Intercept]")
    assert np.isfinite(rest[COLUMNS].astype(float).to_numpy()).all()
    # only sigma is not known: its maximum lies near its posterior, and the ratio is that of t and normal intervals
    assert rest["eb_interval_ratio"].between(0.95, 1.0).all()


def test_a_variance_that_does_not_exist_is_nan() -> None:
    frame = pd.DataFrame({"y": [1.0, 2.0, 5.0], "s": 1.0, "g": list("abc")})
    fit = fi.fit("y | se(s) ~ 1 + (1 | g)", frame, priors={"sd": fi.uniform(), "Intercept": fi.flat()})
    table = fit.uncertainty()
    assert np.isnan(fit.summary().loc["beta[Intercept]", "sd"])
    assert table.loc["beta[Intercept]", COLUMNS[:4]].isna().all()
    assert 0.0 < table.loc["beta[Intercept]", "eb_interval_ratio"] < 1.0
    assert any("does not exist" in note for note in table.notes)
    np.testing.assert_allclose(table["total"][1:], fit.groups()["sd"] ** 2, rtol=1e-8)


def test_intervals_of_empirical_bayes_can_be_longer() -> None:
    """With groups far apart and a prior that wants a small sd, the estimate stands above what is plausible."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(6), 3)
    frame = pd.DataFrame({"y": 2.0 * rng.normal(size=6)[g] + rng.normal(size=18), "s": 1.0, "g": g.astype(str)})
    fit = fi.fit("y | se(s) ~ 1 + (1 | g)", frame, priors={"sd": fi.half_normal(0.2)})
    table = fit.uncertainty("g")
    assert (table["eb_interval_ratio"] > 1.02).all()
    assert "exceeds 1" in table.notes[-1]


def test_a_model_that_empirical_bayes_cannot_fit() -> None:
    fit = fi.fit("y ~ 1 + x + (1 + x | g)", data(), priors={"sd_g[x]": fi.fixed(0.5)})
    table = fit.uncertainty()
    assert table[["eb_sd", "eb_interval_ratio"]].isna().all(axis=None)
    assert np.isfinite(table[COLUMNS[:4]].to_numpy()).all()
    assert any("empirical Bayes cannot be fitted here: pooling='empirical' of 'g'" in note for note in table.notes)


def test_a_coefficient_explored_beside_the_hyperparameters_is_not_one_of_them() -> None:
    """A t prior of 1,000 degrees of freedom is a normal prior, but its coefficient is explored and not integrated."""
    formula = "y ~ 1 + x + (1 | g)"
    exact = fi.fit(formula, data(), priors={"beta[x]": fi.normal(0, 0.3), "Intercept": fi.normal(0, 5)}).uncertainty()
    for priors in (
        {"beta[x]": fi.student_t(1000, 0, 0.3), "Intercept": fi.normal(0, 5)},
        {"beta[x]": fi.normal(0, 0.3), "Intercept": fi.student_t(1000, 0, 5)},
    ):
        fit = fi.fit(formula, data(), priors=priors)
        found = fit.uncertainty()
        np.testing.assert_allclose(found["given_hyperparameters"], exact["given_hyperparameters"], rtol=0.03)
        gap = np.abs(found["from_hyperparameters"] - exact["from_hyperparameters"])
        assert (gap < 0.15 * exact["from_hyperparameters"] + 0.02 * exact["total"]).all()
        label = "beta[x]" if "beta[x]" in str(fit.inference.coordinates.given) else "beta[Intercept]"
        assert found["total"][label] == pytest.approx(fit.summary()["sd"][label] ** 2, rel=1e-8)
        assert list(found.index[found["eb_sd"].isna()]) == [label]
        assert any("explored beside the hyperparameters" in note for note in found.notes)


def test_nuts_agrees_with_the_exact_decomposition() -> None:
    exact = fi.fit("y ~ 1 + x + (1 | g)", data())
    drawn = fi.fit("y ~ 1 + x + (1 | g)", data(), method="nuts", seed=2)
    a, b = exact.uncertainty(), drawn.uncertainty()
    np.testing.assert_allclose(b["given_hyperparameters"], a["given_hyperparameters"], rtol=0.03)
    # 256 draws: a standard error of 9 % of a variance, and of a little more where it is skewed
    np.testing.assert_allclose(
        b["from_hyperparameters"], a["from_hyperparameters"], rtol=0.5, atol=1e-3 * a["total"].min()
    )
    np.testing.assert_allclose(b["total"][2:], drawn.groups()["sd"] ** 2, rtol=0.15)
    np.testing.assert_allclose(b["eb_sd"], a["eb_sd"], rtol=1e-9)
    assert any("NUTS" in note for note in b.notes)


def test_a_known_covariance_of_the_errors_under_empirical_bayes() -> None:
    """Against dense matrices: tau maximises the marginal likelihood with the mean integrated out."""
    rng = np.random.default_rng(3)
    L = rng.normal(size=(12, 12)) * 0.2
    V = L @ L.T + np.diag(rng.uniform(0.1, 0.4, 12))
    y = rng.normal(1.0, 1.2, 12)
    one = np.ones(12)

    def parts(tau: float) -> tuple[float, np.ndarray]:
        A = np.linalg.inv(V + tau**2 * np.eye(12))
        P = A - np.outer(A @ one, one @ A) / (one @ A @ one)
        criterion = -np.linalg.slogdet(A)[1] + np.log(one @ A @ one) + y @ P @ y
        B = np.eye(12) - tau**2 * A  # effects given mu have mean (I - B) y + B mu
        return criterion, tau**2 * B + np.outer(B @ one, B @ one) / (one @ A @ one)

    tau = minimize_scalar(lambda t: parts(t)[0], bounds=(0.01, 5.0), method="bounded", options={"xatol": 1e-10}).x
    table = fi.meta(y, V=V, priors={"beta": fi.flat(), "sd": fi.half_cauchy(1)}).uncertainty("study")
    np.testing.assert_allclose(table["eb_sd"][1:] ** 2, np.diag(parts(tau)[1]), rtol=1e-5)


def test_a_loaded_fit(tmp_path, schools: fi.Fit) -> None:
    loaded = fi.load(schools.save(tmp_path / "fit.nc"))
    pd.testing.assert_frame_equal(pd.DataFrame(loaded.uncertainty()), pd.DataFrame(schools.uncertainty()))


def test_labels_are_those_of_the_levels(schools: fi.Fit) -> None:
    table = schools.uncertainty()
    part = table[table["term"] == "school"]
    assert part.notes == table.notes
    assert part.loc["school[A, Intercept]", "level"] == "A"


def test_an_estimate_that_starts_near_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where evaluations are dear, the maximum is looked for from the mean of the posterior."""
    fit = fi.fit("y ~ 1 + x + (1 | g) + (1 | h)", data(), priors={"beta[x]": fi.student_t(5, 0, 1)})
    usual = fi.fit("y ~ 1 + x + (1 | g) + (1 | h)", data(), priors=dict(fit.model.priors), pooling="empirical")
    monkeypatch.setattr(empirical_module, "DEAR", 0.0)
    near = companion(fit, "empirical")
    assert near.inference.estimate.evaluations < 0.5 * usual.inference.estimate.evaluations
    np.testing.assert_allclose(near.summary()["mean"], usual.summary()["mean"], rtol=1e-4)
    assert near.inference.estimate.log_marginal == pytest.approx(usual.inference.estimate.log_marginal, abs=1e-7)
