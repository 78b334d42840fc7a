"""Models whose nodes are dear: few nodes, a surrogate, and the same promises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import finetti as fi


@pytest.fixture(scope="module")
def crossed() -> pd.DataFrame:
    """500 x 350 crossed groups with one small standard deviation: a node costs over a millisecond."""
    rng = np.random.default_rng(11)
    n = 4000
    a, b, x = rng.integers(500, size=n), rng.integers(350, size=n), rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=500)[a] * 0.7 + 0.15 * rng.normal(size=350)[b] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b})


def test_a_small_sd_among_dear_nodes_meets_the_target_for_every_seed(crossed: pd.DataFrame) -> None:
    fits = [fi.fit("y ~ x + (1 | a) + (1 | b)", crossed, seed=seed) for seed in (0, 1, 4)]
    assert all(f.inference.dear and f.diagnostics.ok for f in fits)
    means = np.array([f.summary().loc["sd_b[Intercept]", "mean"] for f in fits])
    errors = np.array([f.summary().loc["sd_b[Intercept]", "mcse"] for f in fits])
    assert np.ptp(means) < 5.0 * np.hypot(errors.max(), errors.max())


def test_coefficients_are_drawn_at_hyperparameters_near_the_drawn_ones(crossed: pd.DataFrame) -> None:
    """Nodes are matched in units of theta's own spread, every coordinate alike."""
    fit = fi.fit("y ~ x + (1 | a) + (1 | b)", crossed)
    draws = fit._draws
    nodes, node_of = draws._plan()
    gap = (draws.theta - nodes[node_of]) / draws.theta.std(axis=0)
    size = np.sqrt(np.mean(gap**2, axis=0))
    assert size.max() < 0.5  # a few hundred nodes in three dimensions; a wrong unit makes one of them many times that
    assert size.max() < 1.6 * size.min()


def test_a_failed_fit_says_so_wherever_it_is_read() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=24), "x": rng.normal(size=24), "g": np.repeat(np.arange(6), 4)})
    bound = fi.Model("y ~ x + (1 + x | g)").bind(data)
    from finetti.inference.hyper import Settings
    from finetti.inference.infer import infer
    from finetti.posterior.fit import Fit

    fit = Fit(infer(bound, method="exact", settings=Settings(mean_error=1e-9, max_nodes=1024)), 400, 0)
    assert not fit.diagnostics.ok
    for read in (fit.summary, fit.groups, fit.predict):
        with pytest.warns(fi.FinettiWarning, match="failed its own checks"):
            table = read()
        assert "failed" in table.attrs["warning"]
    assert "FAILED" in str(fit)


def test_moments_that_do_not_exist_are_nan_for_what_inherits_them_only() -> None:
    """Two subjects, half-Cauchy: the intercept has no variance, the slope of a balanced design has one."""
    sleep = fi.datasets.load("sleepstudy")
    sleep = sleep[sleep["Subject"].isin(["308", "309"])]
    priors = {"sd": fi.half_cauchy(5), "beta": fi.flat()}
    fit = fi.fit("Reaction ~ Days + (1 | Subject)", sleep, priors=priors)
    table = fit.summary()
    assert np.isnan(table.loc["beta[Intercept]", "sd"]) and np.isfinite(table.loc["beta[Days]", "sd"])
    assert np.isfinite(table.loc["beta[Intercept]", ["q5", "q50", "q95"]].to_numpy(dtype=float)).all()
    assert fit.predict(groups="population")["sd"].isna().all()
    assert fit.predict()["sd"].notna().all()
    assert any("inherited" in w for w in fit.diagnostics.warnings)
