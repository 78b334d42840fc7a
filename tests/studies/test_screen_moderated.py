"""A screen of moderated effects: the joint posterior of (d0, s0^2) and the screen's hyperparameters by brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st

from finetti.errors import DataError, FinettiError, ModelError
from finetti.inference.spike_slab import Nodes, Observed, make_slab
from finetti.inference.spike_slab_priors import Hyper, resolve_priors
from finetti.inference.spike_slab_sets import SetsTarget, assign_sets
from finetti.inference.spike_slab_target import ScreenTarget
from finetti.studies.moderate import Moderated, moderate
from finetti.studies.screen import Screen, screen


def expression(genes: int, d0: float, seed: int, per_group: int = 4, effects: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of two groups, and its design."""
    rng = np.random.default_rng(seed)
    sd = np.sqrt(d0 / rng.chisquare(d0, (genes, 1)))
    matrix = rng.normal(size=(genes, 2 * per_group)) * sd
    matrix[:effects, per_group:] += rng.normal(0.0, 3.0, (effects, 1))
    return matrix, np.column_stack([np.ones(2 * per_group), np.repeat([0.0, 1.0], per_group)])


def brute_force(found: Moderated, priors: dict) -> tuple[dict[str, float], np.ndarray]:
    """Posterior means of pi0, slab_sd, d0's weight and the null probabilities, all of it on grids; theoretical null.

    The variance of each gene is integrated out on a grid of its own, jointly for its effect and residual variance.
    """
    fits = found.fits
    x, u, s2, d = fits.effect[:, 0], fits.unscaled[:, 0], fits.variance, fits.df.astype(float)
    log_v = np.linspace(np.log(s2.min()) - 4.0, np.log(s2.max()) + 4.0, 160)
    v = np.exp(log_v)
    seen = st.gamma.pdf(s2[:, None], d[:, None] / 2.0, scale=2.0 * v / d[:, None])
    null = seen * st.norm.pdf(x[:, None], 0.0, u[:, None] * np.sqrt(v))
    t = np.linspace(np.log(0.1), np.log(30.0), 40)
    slab = np.stack([seen * st.norm.pdf(x[:, None], 0.0, np.sqrt(u[:, None] ** 2 * v + np.exp(2.0 * a))) for a in t])
    logit = np.linspace(-2.0, 9.0, 60)
    pi = 1.0 / (1.0 + np.exp(-logit))
    # 1 - pi from the other side: it is 1e-4 at the end
    log_prior = priors["pi0"].logpdf(pi)[:, None] + np.log(pi / (1.0 + np.exp(logit)))[:, None]
    log_prior = log_prior + (priors["slab_sd"].logpdf(np.exp(t)) + t)[None]
    D = float(np.median(d))
    centre = np.log(s2).mean()
    levels = np.linspace(centre - 2.0, centre + 2.0, 33)
    dofs = np.linspace(np.log(D) - 5.0, np.log(D) + 9.0, 43)
    pieces, top = [], -np.inf
    for log_d0 in dofs:
        d0 = np.exp(log_d0)
        for level in levels:
            share = st.invgamma.pdf(v, d0 / 2.0, scale=d0 * np.exp(level) / 2.0) * v * (log_v[1] - log_v[0])
            f0, f1 = null @ share, slab @ share
            total = np.log(pi[:, None, None] * f0 + (1.0 - pi)[:, None, None] * f1).sum(axis=2)
            log_p = total + log_prior + st.logistic.logpdf(log_d0 - np.log(D))
            pieces.append((log_p, f0, f1, d0))
            top = max(top, float(log_p.max()))
    mass, sums, nulls = 0.0, np.zeros(3), np.zeros(x.size)
    for log_p, f0, f1, d0 in pieces:
        w = np.exp(log_p - top)
        mass += w.sum()
        sums += [w.sum(axis=1) @ pi, w.sum(axis=0) @ np.exp(t), w.sum() * D / (D + d0)]
        lfdr = pi[:, None, None] * f0 / (pi[:, None, None] * f0 + (1.0 - pi)[:, None, None] * f1)
        nulls += np.einsum("pt,ptj->j", w, lfdr)
    return dict(zip(("pi0", "slab_sd", "share"), sums / mass, strict=True)), nulls / mass


def test_the_joint_posterior_is_that_of_brute_force() -> None:
    matrix, design = expression(40, 5.0, seed=3)
    found = moderate(matrix, design, [0.0, 1.0])
    full = screen(found, null="theoretical")
    truth, nulls = brute_force(found, full.priors)
    hyper = full.hyper()
    for name in ("pi0", "slab_sd"):
        assert hyper.loc[name, "mean"] == pytest.approx(truth[name], abs=0.02 * hyper.loc[name, "sd"] + 1e-3), name
    table = full.table()
    assert np.max(np.abs(table["prob_null"].to_numpy() - nulls)) < 0.01
    # one t for every gene is worse
    e = found.effects
    plug = screen(e["effect"].to_numpy(), e["se"].to_numpy(), df=e["df"].to_numpy(), null="theoretical")
    crude = np.max(np.abs(plug.table()["prob_null"].to_numpy() - nulls))
    assert np.max(np.abs(table["prob_null"].to_numpy() - nulls)) < crude


def test_the_target_is_the_average_over_sets_and_its_gradient_agrees() -> None:
    rng = np.random.default_rng(1)
    x, sets = rng.normal(0.0, 2.0, 30), (rng.uniform(0.5, 1.5, (3, 30)), rng.uniform(4.0, 30.0, (3, 30)))
    base = Observed.of(x, sets[0].mean(axis=0), sets[1].mean(axis=0))
    tests = Observed(base.z, base.se, base.df, base.group, base.count, sets)
    weights = np.array([0.2, 0.5, 0.3])
    hyper = Hyper(resolve_priors(None, "free", 1.0))
    target = SetsTarget(ScreenTarget(tests, make_slab("normal"), hyper), weights)
    theta = hyper.theta(np.array([0.8, 0.95]), np.array([1.0, 3.0]), np.array([0.1, -0.1]), np.array([0.9, 1.3]))
    value, _ = target.log_density(theta)
    alone = [
        ScreenTarget(Observed.of(x, sets[0][k], sets[1][k]), make_slab("normal"), hyper).log_density(theta)[0]
        for k in range(3)
    ]
    assert value == pytest.approx(np.log(weights @ np.exp(alone)), rel=1e-12)
    same, slope = target.gradient(theta)
    assert same == pytest.approx(value, rel=1e-12)
    for i in range(4):
        step = 1e-5 * np.eye(4)[i]
        numeric = (target.log_density(theta + step)[0] - target.log_density(theta - step)[0]) / 2e-5
        assert slope[:, i] == pytest.approx(numeric, rel=1e-5, abs=1e-5)


def test_nodes_have_each_set_by_its_probability() -> None:
    rng = np.random.default_rng(2)
    x, scale = rng.normal(0.0, 1.0, 200), np.array([0.96, 1.0, 1.05])
    sets = (np.repeat(scale[:, None], 200, axis=1), np.full((3, 200), 12.0))
    tests = Observed(x, np.ones(200), np.full(200, 12.0), np.zeros(200, np.int64), np.ones(200), sets)
    nodes = Nodes.of(np.full(400, 0.9), 2.0, 0.0, rng.uniform(0.95, 1.05, 400))
    weights = rng.dirichlet(np.ones(400))
    prior = np.array([0.25, 0.5, 0.25])
    which = assign_sets(tests, make_slab("normal"), nodes, weights, prior)
    log_p = np.stack([tests.of_set(k).log_likelihood(make_slab("normal"), nodes) for k in range(3)])
    log_p += np.log(prior)[:, None]
    share = np.exp(log_p - log_p.max(axis=0))
    share /= share.sum(axis=0)
    got = np.array([weights[which == k].sum() for k in range(3)])
    assert got == pytest.approx(share @ weights, abs=2.0 * weights.max())


def test_one_node_is_an_ordinary_screen() -> None:
    matrix, design = expression(200, 8.0, seed=4, effects=30)
    found = moderate(matrix, design, [0.0, 1.0], method="empirical")
    e = found.effects
    a, b = screen(found), screen(e["effect"].to_numpy(), e["se"].to_numpy(), df=e["df"].to_numpy())
    assert a.nodes[0].which is None
    pd.testing.assert_frame_equal(a.hyper(), b.hyper())
    assert np.array_equal(a.table()["lfsr"].to_numpy(), b.table()["lfsr"].to_numpy())


def test_genes_keep_their_names_and_contrasts_theirs() -> None:
    matrix, design = expression(60, 8.0, seed=5)
    frame = pd.DataFrame(matrix, index=[f"gene{i}" for i in range(60)])
    found = moderate(frame, design, {"difference": [0.0, 1.0], "first": [1.0, 0.0]})
    one = screen(found, contrast="difference")
    assert isinstance(one, Screen) and one.table().index[0] == "gene0" and one.table().index.name == "gene"
    assert one.moderated is found and one.screened.effect_name == "difference"
    with pytest.raises(FinettiError, match="2 contrasts"):
        screen(found)
    with pytest.raises(DataError, match="come from the latter"):
        screen(found, 1.0, contrast="first")
    with pytest.raises(ModelError, match="contrast"):
        screen([1.0, 2.0], contrast="first")


def test_an_estimate_and_covariates_use_one_t_for_each_gene() -> None:
    matrix, design = expression(200, 6.0, seed=6, effects=40)
    names = [f"gene{i}" for i in range(200)]
    found = moderate(pd.DataFrame(matrix, index=names), design, [0.0, 1.0])
    e = found.effects
    arrays = {"effect": e["effect"].to_numpy(), "se": e["se"].to_numpy(), "df": e["df"].to_numpy()}
    plug = screen(found, method="empirical")
    same = screen(**arrays, labels=e["gene"], method="empirical")
    pd.testing.assert_frame_equal(plug.table(), same.table(), check_names=False)
    first = pd.Series(np.repeat(["yes", "no"], [40, 160]), index=names)
    by = screen(found, by=first.sample(frac=1.0, random_state=1), null="theoretical")
    again = screen(**arrays, by=first.to_numpy(), null="theoretical")
    assert by.groups()["n"].to_dict() == {"yes": 40, "no": 160}
    assert np.array_equal(by.table()["prob_null"].to_numpy(), again.table()["prob_null"].to_numpy())
    with pytest.raises(DataError, match="no value for gene 'gene0'"):
        screen(found, by=first.iloc[1:])
