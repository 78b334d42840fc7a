"""The oracle itself, against scipy, published numbers and brute force."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from threadpoolctl import threadpool_limits

from tests.oracle_problems import ERRORS, INTERCEPTS, LAYOUTS, POOLINGS, as_design, random_hyper, random_problem
from tests.oracle_quadrature import Batched, quadrature_posterior
from tests.oracle_references import REFERENCES, STORED, reference
from tests.oracles import (
    Dist,
    OracleFactor,
    Problem,
    coefficient_design,
    coefficient_prior,
    dense_conditional,
    dense_log_marginal,
    dist,
    from_design,
    lkj_logpdf,
    log_posterior_hyper,
)


@pytest.fixture(autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Thousands of small matrices: BLAS threads only get in each other's way."""
    with threadpool_limits(1):
        yield


def replace_beta(problem: Problem, **change: Dist) -> Problem:
    new = tuple(change.get(c, b) for c, b in zip(problem.columns, problem.beta, strict=True))
    return dataclasses.replace(problem, beta=new)


@pytest.mark.parametrize("seed", range(40))
def test_log_marginal_is_scipys_multivariate_normal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem, hyper = random_problem(rng, pooling=str(rng.choice(["partial", "complete"])), slope_prior="normal",
                                    intercept=str(rng.choice(["normal", "normal_raw", "fixed", "absent"])))  # fmt: skip
    W, _, back = coefficient_design(problem)
    m, C, flat = coefficient_prior(problem, hyper)
    assert not flat.any()
    mean, cov = W @ m, np.diag(problem.error_variance(hyper)) + W @ C @ W.T
    mean = mean + (0.0 if problem.offset is None else problem.offset)
    expected = scipy.stats.multivariate_normal(mean, cov).logpdf(problem.y)
    assert dense_log_marginal(problem, hyper) == pytest.approx(expected, rel=1e-10)
    # the map back to raw coefficients leaves the predictor alone
    raw = np.hstack([problem.X, *[f.dense() for f in problem.factors]])
    np.testing.assert_allclose(raw @ back, W, atol=1e-10)


@pytest.mark.parametrize("seed", range(60))
def test_conditional_agrees_with_the_precision_form(seed: int) -> None:
    """Independent derivation: H = P + W'R^-1 W and log p through log|H| (DESIGN section 4)."""
    rng = np.random.default_rng(1000 + seed)
    problem, hyper = random_problem(rng)
    W, labels, back = coefficient_design(problem)
    m, C, flat = coefficient_prior(problem, hyper)
    free = flat | (np.diag(C) > 0)
    P = np.zeros_like(C)
    proper = ~flat & free
    P[np.ix_(proper, proper)] = np.linalg.inv(C[np.ix_(proper, proper)])
    v = problem.error_variance(hyper)
    r = problem.y - (0.0 if problem.offset is None else problem.offset) - W @ m
    A = W[:, free]
    H = P[np.ix_(free, free)] + (A.T / v) @ A
    c = (A.T / v) @ r
    mean, cov = m.copy(), np.zeros_like(C)
    mean[free] += np.linalg.solve(H, c)
    cov[np.ix_(free, free)] = np.linalg.inv(H)
    got = dense_conditional(problem, hyper)
    assert got.labels == labels
    np.testing.assert_allclose(got.mean, back @ mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got.cov, back @ cov @ back.T, rtol=1e-6, atol=1e-7 * np.abs(cov).max())
    logdet = np.linalg.slogdet
    n_eff = len(r) - flat.sum()
    quadratic = r @ (r / v) - c @ np.linalg.solve(H, c)
    determinants = np.log(v).sum() + logdet(H)[1] + logdet(C[np.ix_(proper, proper)])[1]
    expected = -0.5 * (n_eff * math.log(2 * math.pi) + determinants + quadratic)
    assert dense_log_marginal(problem, hyper) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_forty_digits_agree_with_double_precision(seed: int) -> None:
    problem, hyper = random_problem(np.random.default_rng(2000 + seed), n=25)
    assert dense_log_marginal(problem, hyper, digits=40) == pytest.approx(dense_log_marginal(problem, hyper), rel=1e-10)


def test_a_flat_direction_is_the_limit_of_wide_normals() -> None:
    """log p(y | normal(0, s)) + log(s sqrt(2 pi)) -> log p(y | flat); done with 60 digits so that s can be huge."""
    rng = np.random.default_rng(5)
    flat = {"intercept": "flat", "slope_prior": "flat"}
    problem, hyper = random_problem(rng, n=25, layout="one", slopes=1, pooling="partial", **flat)
    s = 1e12
    wide = replace_beta(problem, Intercept=Dist("normal", (0.0, s)), x1=Dist("normal", (0.0, s)))
    expected = dense_log_marginal(wide, hyper, digits=60) + 2 * math.log(s * math.sqrt(2 * math.pi))
    assert dense_log_marginal(problem, hyper) == pytest.approx(expected, rel=1e-10)


def test_integrating_a_conditioned_coefficient_gives_the_normal_answer() -> None:
    """A student_t coefficient is conditioned on; with a normal prior instead, quadrature over it must recover it."""
    rng = np.random.default_rng(8)
    kinds = {"intercept": "student_t", "slope_prior": "flat"}
    problem, hyper = random_problem(rng, layout="one", slopes=2, pooling="partial", **kinds)
    prior = scipy.stats.norm(1.0, 2.0)
    inside = replace_beta(problem, Intercept=Dist("normal", (1.0, 2.0)))
    expected = dense_log_marginal(inside, {k: v for k, v in hyper.items() if k != "Intercept"})
    grid = np.linspace(-20, 25, 1201)
    logs = np.array([dense_log_marginal(problem, hyper | {"Intercept": a}) + prior.logpdf(a) for a in grid])
    peak = logs.max()
    assert peak + math.log(np.exp(logs - peak).sum() * (grid[1] - grid[0])) == pytest.approx(expected, rel=1e-9)


def test_lkj_densities_integrate_to_one() -> None:
    for eta in (1.0, 2.0, 3.5):
        total, _ = scipy.integrate.quad(lambda r, e=eta: math.exp(lkj_logpdf(np.array([[1, r], [r, 1]]), e)), -1, 1)
        assert total == pytest.approx(1.0, abs=1e-7)
    rng = np.random.default_rng(0)
    r = rng.uniform(-1, 1, size=(100_000, 3))
    det = 1 + 2 * r.prod(axis=1) - (r**2).sum(axis=1)
    at_identity = math.exp(lkj_logpdf(np.eye(3), 2.0))
    values = 8.0 * np.where(det > 0, det, 0.0) * at_identity
    assert abs(values.mean() - 1.0) < 4 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize(
    "text", ["half_t(3, 20)", "half_normal(2)", "half_cauchy(5)", "exponential(0.5)", "gamma(2, 0.3)", "uniform(0, 7)",
             "inverse_gamma(3, 4)"],
)  # fmt: skip
def test_priors_of_an_sd_integrate_to_one(text: str) -> None:
    prior = dist(text)
    total = sum(
        scipy.integrate.quad(lambda s: math.exp(prior.sd_logpdf(s)), a, b, limit=500)[0]
        for a, b in [(1e-9, 7.0), (7.0 + 1e-12, 100.0), (100.0, np.inf)]
    )
    assert total == pytest.approx(1.0, abs=1e-6)


def one_way(y: np.ndarray, group: np.ndarray, beta: Dist, **rest: object) -> Problem:
    names, index = np.unique(group, return_inverse=True)
    ones = np.ones((len(y), 1))
    factor = OracleFactor("g", tuple(str(s) for s in names), index, ("Intercept",), ones, ((0,),))
    return Problem(y, ones, ("Intercept",), (beta,), (factor,), centred=True, **rest)  # type: ignore[arg-type]


DYESTUFF = np.array([
    1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560,
    1445, 1440, 1595, 1465, 1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445,
], float)  # fmt: skip
EIGHT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
EIGHT_SE = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def test_dyestuff_reml_criterion_is_lme4s() -> None:
    """lme4::lmer(Yield ~ 1 + (1|Batch), Dyestuff): variances 1764.05, 2451.25, criterion 319.654; 1527.5 (se 19.38)."""
    problem = one_way(DYESTUFF, np.repeat(np.arange(6), 5), Dist("flat"))
    at = {"sd_g[Intercept]": math.sqrt(1764.05), "sigma": math.sqrt(2451.25)}
    assert -2 * dense_log_marginal(problem, at) == pytest.approx(319.654, abs=6e-4)
    for label, value in at.items():  # a stationary point, to the digits printed
        for factor in (0.97, 1.03):
            assert dense_log_marginal(problem, at | {label: value * factor}) < dense_log_marginal(problem, at)
    mean, se = dense_conditional(problem, at)["beta[Intercept]"]
    assert (mean, se) == (pytest.approx(1527.5), pytest.approx(19.383, abs=5e-4))


def test_eight_schools_conditional_is_the_textbooks() -> None:
    """BDA3 equations 5.17 and 5.20: with flat mu, precision-weighted mean and theta_j | mu, tau, y in closed form."""
    problem = one_way(EIGHT, np.arange(8), Dist("flat"), se=EIGHT_SE)
    for tau in (0.5, 5.0, 20.0):
        w = 1 / (EIGHT_SE**2 + tau**2)
        mu, v_mu = (w @ EIGHT) / w.sum(), 1 / w.sum()
        got = dense_conditional(problem, {"sd_g[Intercept]": tau})
        assert got["beta[Intercept]"] == (pytest.approx(mu), pytest.approx(math.sqrt(v_mu)))
        shrink = tau**2 / (tau**2 + EIGHT_SE**2)
        np.testing.assert_allclose(got.mean[1:], shrink * (EIGHT - mu), rtol=1e-10)
        theta_var = shrink * EIGHT_SE**2 + (1 - shrink) ** 2 * v_mu
        L = np.hstack([np.ones((8, 1)), np.eye(8)])
        np.testing.assert_allclose(np.diag(L @ got.cov @ L.T), theta_var, rtol=1e-10)
        log_p = -0.5 * (7 * math.log(2 * math.pi) - np.log(w).sum() + math.log(w.sum()) + w @ (EIGHT - mu) ** 2)
        assert dense_log_marginal(problem, {"sd_g[Intercept]": tau}) == pytest.approx(log_p, rel=1e-12)
    pooled = dense_conditional(problem, {"sd_g[Intercept]": 0.0})["beta[Intercept]"]
    assert pooled == (pytest.approx(7.7, abs=0.05), pytest.approx(math.sqrt(16.6), abs=0.02))  # BDA3 section 5.5


@pytest.mark.parametrize("seed", range(10))
def test_a_problem_goes_to_finetti_and_back(seed: int) -> None:
    problem, hyper = random_problem(np.random.default_rng(6000 + seed))
    back = from_design(*as_design(problem))
    assert dense_log_marginal(back, hyper) == dense_log_marginal(problem, hyper)
    assert back.hyper_labels() == problem.hyper_labels()


def test_pooling_none_is_least_squares_per_level() -> None:
    rng = np.random.default_rng(3)
    problem, hyper = random_problem(rng, layout="one", q=2, pooling="none", slopes=2, errors="sigma", offset=False)
    assert [problem.columns[k] for k in problem.kept()] == []  # the constant, x1 and the level's own x2 are in the span
    f = problem.factors[0]
    got = dense_conditional(problem, hyper)
    for j, level in enumerate(f.levels):
        rows = f.index == j
        expected = np.linalg.lstsq(f.Z[rows], problem.y[rows], rcond=None)[0]
        mean, cov = got.block(tuple(f"u_a[{level}, {c}]" for c in f.coefficients))
        np.testing.assert_allclose(mean, expected, rtol=1e-8)
        np.testing.assert_allclose(cov, hyper["sigma"] ** 2 * np.linalg.inv(f.Z[rows].T @ f.Z[rows]), rtol=1e-8)


@pytest.mark.parametrize("seed", range(30))
def test_the_batched_form_is_the_dense_one(seed: int) -> None:
    """The quadrature evaluates thousands of nodes at once; node by node it is the dense oracle."""
    rng = np.random.default_rng(4000 + seed)
    problem, _ = random_problem(rng, q=int(rng.integers(1, 3)))
    nodes = [random_hyper(rng, problem) for _ in range(5)]
    labels = problem.hyper_labels()
    for node in nodes[:3]:  # nodes that share sigma and the conditioned coefficients are computed together
        node |= {k: v for k, v in nodes[0].items() if not k.startswith(("sd_", "cor_"))}
    batched = Batched(problem, labels, {})
    theta = np.array([[node[k] for k in labels] for node in nodes])
    means, sds = batched.moments(theta)
    values = batched.log_marginal(theta)
    for s, node in enumerate(nodes):
        assert values[s] == pytest.approx(dense_log_marginal(problem, node), rel=1e-9)
        got = dense_conditional(problem, node)
        m = len(got.labels)
        assert got.labels == batched.coefficients[:m]
        np.testing.assert_allclose(means[s, :m], got.mean, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(sds[s, :m], np.sqrt(np.maximum(np.diag(got.cov), 0)), rtol=1e-6, atol=1e-6)


def test_a_groups_own_coefficient_is_the_sum() -> None:
    rng = np.random.default_rng(21)
    kinds = {"intercept": "normal", "slope_prior": "flat", "pooling": "partial"}
    problem, node = random_problem(rng, layout="one", q=2, slopes=1, **kinds)
    batched = Batched(problem, problem.hyper_labels(), {})
    means, sds = batched.moments(np.array([[node[k] for k in problem.hyper_labels()]]))
    got = dense_conditional(problem, node)
    for level in problem.factors[0].levels:
        for c in ("Intercept", "x1"):
            mean, cov = got.block((f"beta[{c}]", f"u_a[{level}, {c}]"))
            at = batched.coefficients.index(f"theta_a[{level}, {c}]")
            assert (means[0, at], sds[0, at]) == (pytest.approx(mean.sum()), pytest.approx(math.sqrt(cov.sum())))


def test_random_problems_have_every_feature() -> None:
    rng = np.random.default_rng(9)
    for layout in LAYOUTS:
        for pooling in POOLINGS:
            for errors in ERRORS:
                intercept = str(rng.choice(INTERCEPTS))
                problem, hyper = random_problem(rng, layout=layout, pooling=pooling, errors=errors, intercept=intercept)
                assert np.isfinite(dense_log_marginal(problem, hyper))
                if layout != "none" and pooling != "none":
                    assert np.bincount(problem.factors[0].index).min() == 1


def test_posterior_of_a_tiny_problem_by_brute_force() -> None:
    """Everything sampled from its prior and weighted by the likelihood alone: no algebra in common with the oracle."""
    rng = np.random.default_rng(11)
    y, g = np.array([1.2, 0.3, 2.8, 3.1, 0.9, -0.4]), np.array([0, 0, 1, 1, 2, 2])
    problem = one_way(y, g, Dist("normal", (1.0, 2.0)))
    S = 1_500_000
    tau, sigma = np.abs(rng.normal(size=S)) * 1.5, np.abs(rng.standard_cauchy(S))
    mu, u = rng.normal(1.0, 2.0, S), rng.normal(size=(S, 3)) * tau[:, None]
    log_w = scipy.stats.norm.logpdf(y, mu[:, None] + u[:, g], sigma[:, None]).sum(axis=1)
    w = np.exp(log_w - log_w.max())
    priors = {"sd_g[Intercept]": "half_normal(1.5)", "sigma": "half_cauchy(1)"}
    exact = quadrature_posterior(problem, priors)
    assert exact.error < 1e-5
    named = {"sd_g[Intercept]": tau, "sigma": sigma, "beta[Intercept]": mu}
    named |= {f"u_g[{j}, Intercept]": u[:, j] for j in range(3)}
    for label, x in named.items():
        if label != "sigma":  # half_cauchy and six rows: sigma's own second moment needs far more draws
            mean = w @ x / w.sum()
            se = math.sqrt(w**2 @ (x - mean) ** 2) / w.sum()
            assert abs(mean - exact.table[label]["mean"]) < 4 * se, label
        for q, name in ((0.05, "q5"), (0.5, "q50"), (0.95, "q95")):
            below = (x <= exact.table[label][name]) - q
            assert abs(w @ below / w.sum()) < 4 * math.sqrt(w**2 @ below**2) / w.sum(), (label, name)
    log_evidence = math.log(w.mean()) + log_w.max()
    assert abs(log_evidence - exact.log_evidence) < 4 * w.std() / w.mean() / math.sqrt(S)
    again = random_hyper(rng, problem)
    assert np.isfinite(log_posterior_hyper(problem, again, priors))


# lme4 1.1, lmer(formula, data): REML criterion and the sds printed by VarCorr (Bates, "lme4: mixed-effects modeling
# with R", chapters 1-4; Bates et al. 2015, J Stat Softw 67(1), section 5.2 for sleepstudy)
LME4 = {
    "dyestuff2": (161.8283, {"sd_Batch[Intercept]": 0.0, "sigma": 3.7157}),
    "penicillin": (330.8606, {"sd_plate[Intercept]": 0.8467, "sd_sample[Intercept]": 1.9316, "sigma": 0.5499}),
    "pastes": (246.9907, {"sd_batch:cask[Intercept]": 2.9041, "sd_batch[Intercept]": 1.2874, "sigma": 0.8234}),
    "sleepstudy": (1743.628, {"sd_Subject[Intercept]": 24.7407, "sd_Subject[Days]": 5.9221,
                              "cor_Subject[Intercept, Days]": 0.0656, "sigma": 25.5918}),
}  # fmt: skip


@pytest.mark.parametrize("name", LME4)
def test_reml_criteria_are_lme4s(name: str) -> None:
    criterion, at = LME4[name]
    problem = REFERENCES[name].problem
    flat = dataclasses.replace(problem, beta=tuple(Dist("flat") for _ in problem.beta))
    assert -2 * dense_log_marginal(flat, at) == pytest.approx(criterion, abs=6e-4)


def test_eight_schools_is_stans() -> None:
    """posteriordb eight_schools-eight_schools_noncentered, reference draws: means and their Monte Carlo errors."""
    got = reference("eight_schools")
    assert got.error < 1e-5
    mean = [6.15050, 4.93958, 3.90591, 4.79602, 3.61444, 4.05115, 6.31717, 4.88400, 4.41052, 3.60206]
    mcse = [0.05574, 0.04623, 0.05423, 0.04749, 0.04615, 0.04852, 0.04988, 0.05425, 0.03304, 0.03186]
    labels = [f"theta_school[{s}, Intercept]" for s in "ABCDEFGH"] + ["beta[Intercept]", "sd_school[Intercept]"]
    for label, m, e in zip(labels, mean, mcse, strict=True):
        assert abs(got.table[label]["mean"] - m) < 3.5 * e, label


def test_eight_schools_with_flat_priors_is_the_textbooks() -> None:
    """BDA3 table 5.3: posterior medians of the effects, from 200 simulations printed as whole numbers."""
    got = reference("eight_schools_flat")
    for school, median in zip("ABCDEFGH", [10, 8, 7, 8, 5, 6, 10, 8], strict=True):
        row = got.table[f"theta_school[{school}, Intercept]"]
        assert abs(row["q50"] - median) < 0.5 + 2 * 1.25 * row["sd"] / math.sqrt(200)


@pytest.mark.parametrize("name", REFERENCES)
def test_references_have_converged_and_match_their_recipe(name: str) -> None:
    ref, got = REFERENCES[name], reference(name)
    assert got.error < 5e-4, got.worst
    assert set(ref.problem.hyper_labels()) <= set(got.table)
    if ref.stored:
        kept = json.loads((STORED / f"{name}.json").read_text())
        assert (kept["formula"], kept["priors"], tuple(kept["points"])) == (ref.formula, ref.priors, ref.points)


@pytest.mark.parametrize("name", [name for name, ref in REFERENCES.items() if ref.stored])
def test_stored_references_agree_with_importance_sampling_of_the_dense_posterior(name: str) -> None:
    """No grid, no batching: draws spread around the stored answer, weighted by `log_posterior_hyper` itself."""
    ref, got = REFERENCES[name], reference(name)
    problem, labels, S = ref.problem, ref.problem.hyper_labels(), 2500
    rng = np.random.default_rng(17)
    draws, log_q = np.empty((S, len(labels))), np.zeros(S)
    for d, label in enumerate(labels):
        row = got.table[label]
        boundary = row["q5"] < 0.2 * row["q50"] and not label.startswith("cor_")
        t = scipy.stats.t(3 if boundary else 5)
        z = t.rvs(S, random_state=rng)
        if label.startswith("cor_"):
            a = (math.atanh(row["q95"]) - math.atanh(row["q5"])) / 3.29
            draws[:, d] = np.tanh(math.atanh(row["q50"]) + a * z)
            jacobian = a * (1.0 - draws[:, d] ** 2)
        elif boundary:  # there is mass at 0: sd = s |t3|
            draws[:, d] = row["sd"] * 1.5 * np.abs(z)
            jacobian = np.full(S, 1.5 * row["sd"] / 2.0)
        else:  # sd = s exp(a t5)
            a = math.log(row["q95"] / row["q5"]) / 3.29
            draws[:, d] = row["q50"] * np.exp(a * z)
            jacobian = a * draws[:, d]
        log_q += t.logpdf(z) - np.log(jacobian)
    nodes = [dict(zip(labels, x, strict=True)) for x in draws.tolist()]
    log_w = np.array([log_posterior_hyper(problem, node, ref.priors) for node in nodes]) - log_q
    w = np.exp(log_w - log_w.max())
    assert w.sum() ** 2 / (w @ w) > 0.2 * S
    for d, label in enumerate(labels):
        mean = w @ draws[:, d] / w.sum()
        assert abs(mean - got.table[label]["mean"]) < 4 * math.sqrt(w**2 @ (draws[:, d] - mean) ** 2) / w.sum(), label
        for q, key in ((0.05, "q5"), (0.5, "q50"), (0.95, "q95")):
            below = (draws[:, d] <= got.table[label][key]) - q
            assert abs(w @ below) < 4 * math.sqrt(w**2 @ below**2), (label, key)
    log_evidence = math.log(w.mean()) + log_w.max()
    assert abs(log_evidence - got.log_evidence) < 4 * w.std() / w.mean() / math.sqrt(S)
