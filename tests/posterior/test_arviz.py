"""ArviZ on a fit: summary, trace plots, loo; the pointwise log-likelihood is right, and made on request."""

from __future__ import annotations

import functools
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.stats

import finetti as fi
from finetti.posterior.fit import Fit

mpl.use("Agg")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az


@functools.cache
def sleepstudy() -> Fit:
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"), draws=2000)


def test_arvizs_summary_is_ours() -> None:
    fit = sleepstudy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = az.summary(fit.to_arviz(), var_names=["beta", "sd_Subject", "cor_Subject", "sigma"], round_to="none")
    ours = fit.summary()
    assert list(table.index) == ["beta[Intercept]", "beta[Days]", "sd_Subject[Intercept]", "sd_Subject[Days]",
                                 "cor_Subject[Intercept, Days]", "sigma"]  # fmt: skip
    for label, row in table.iterrows():
        sd = ours.loc[label, "sd"]
        assert abs(row["mean"] - ours.loc[label, "mean"]) < 5.0 * sd / np.sqrt(2000) + 0.03 * sd
        assert row["sd"] == pytest.approx(sd, rel=0.15)
        assert row["r_hat"] < 1.02 and row["ess_bulk"] > 800


def test_plot_trace_draws_every_variable() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = az.plot_trace(sleepstudy().to_arviz(), var_names=["beta", "sigma"])
    assert np.asarray(axes).shape == (2, 2)
    mpl.pyplot.close("all")


def test_loo_is_exact_leave_one_out() -> None:
    """elpd_loo against the exact conditional of each row given the others, integrated over the full data's nodes.

    With sigma and the group sds all but fixed by the data, log p(y_i | y_-i) = -log E[1 / p(y_i | b)], which the
    moments of the linear predictor at each node give in closed form: p(y_i | y_-i, theta) by removing row i.
    """
    fit = sleepstudy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loo = az.loo(fit.to_arviz(), pointwise=True)
    (rows,) = fit.inference.conditional.rows(fit.inference.hyper.theta)
    y = fit.model.design.y
    h = rows.variance / rows.noise
    residual = (y - rows.mean) / (1.0 - h)
    log_p = scipy.stats.norm.logpdf(residual, scale=np.sqrt(rows.noise / (1.0 - h)))
    w = fit.inference.hyper.weights
    exact = -np.log(w @ np.exp(-log_p))
    values = loo.loo_i.values
    assert np.corrcoef(values, exact)[0, 1] > 0.995
    good = loo.pareto_k.values < 0.7  # where ArviZ itself trusts its estimate
    assert good.mean() > 0.95
    assert values[good].sum() == pytest.approx(exact[good].sum(), abs=1.0)


MODELS = {
    "sigma": "y ~ 1 + x + (1 + x | g)",
    "se": "y | se(s) ~ 1 + x + (1 | g)",
    "se and sigma": "y | se(s, sigma=True) ~ 1 + x + (1 | g) + (1 | h)",
    "weights": "y | weights(w) ~ 1 + (1 | g/h)",
    "offset": "y ~ 1 + offset(2 * x) + (1 | g)",
}


@functools.cache
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 40
    g, h = np.arange(n) % 5, rng.integers(0, 3, n)
    return pd.DataFrame({
        "x": rng.normal(size=n), "g": [f"g{k}" for k in g], "h": [f"h{k}" for k in h], "s": rng.uniform(0.5, 1.5, n),
        "w": rng.uniform(0.5, 3.0, n), "y": rng.normal(size=n) + rng.normal(size=5)[g],
    })  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pooling", ["partial", "none"])
def test_the_pointwise_log_likelihood_is_the_density_at_the_draws(name: str, pooling: str) -> None:
    """Every draw's own coefficients, put together row by row from the posterior's variables and scipy."""
    if pooling == "none" and name in ("se and sigma", "weights"):
        pytest.skip("two unpooled terms overlap")
    d = frame()
    fit = fi.fit(MODELS[name], d, draws=40, pooling=pooling)
    p, design = fit.posterior, fit.model.design
    eta = np.tile(design.offset, (40, 1))
    for k, column in enumerate(design.columns):
        b = fit.draws(f"beta[{column}]")[:, None]
        eta += np.where(np.isnan(b), 0.0, b) * design.X[:, k]
    for f in design.factors:
        u = p[f"u_{f.name}"].values.reshape(40, len(f.levels), -1)
        eta += np.einsum("nq,snq->sn", f.Z, u[:, f.index])
    variance = np.zeros((40, 1)) if "sigma" not in p else fit.draws("sigma")[:, None] ** 2
    if name.startswith("se"):
        variance = variance * (name == "se and sigma") + d["s"].to_numpy() ** 2
    if name == "weights":
        variance = variance / d["w"].to_numpy()
    expected = scipy.stats.norm.logpdf(design.y, eta, np.sqrt(variance))
    got = fit.to_arviz(log_likelihood=True)["log_likelihood"]["y"].values.reshape(40, -1)
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


def test_the_log_likelihood_is_made_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import finetti.posterior.dataset as dataset

    fit = fi.fit(MODELS["sigma"], frame(), draws=40)
    assert "log_likelihood" in fit.to_arviz().groups()
    assert "log_likelihood" not in fit.to_arviz(log_likelihood=False).groups()
    monkeypatch.setattr(dataset, "MOST_POINTWISE", 40 * 40 - 1)
    assert "log_likelihood" not in fit.to_arviz().groups()
    assert "log_likelihood" in fit.to_arviz(log_likelihood=True).groups()


def test_empirical_bayes_goes_to_arviz_too() -> None:
    fit = fi.fit("Yield ~ 1 + (1 | Batch)", fi.datasets.load("dyestuff2"), pooling="empirical", draws=200)
    data = fit.to_arviz()
    assert float(data["posterior"]["sd_Batch"].max()) == 0.0
    assert np.all(data["posterior"]["u_Batch"] == 0.0)
    assert np.ptp(data["posterior"]["beta"].values) > 0


def test_nothing_is_written(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    fit = fi.fit(MODELS["sigma"], frame(), draws=40)
    fit.to_arviz()
    assert list(tmp_path.iterdir()) == []
