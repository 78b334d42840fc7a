"""Shrinkage weights against the identity they stand for, pooling factors against dense matrices and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag

import finetti as fi
from finetti.posterior import weights as module

FLAT = {"beta": fi.flat()}


def data(n=90, seed=1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, 7, n), rng.integers(0, 5, n), rng.normal(size=n)
    y = 2.0 + rng.normal(size=7)[g] + (0.4 + 0.5 * rng.normal(size=7)[g]) * x + 0.6 * rng.normal(size=5)[h]
    frame = {"y": y + rng.normal(size=n), "x": x, "s": rng.uniform(0.3, 1.2, n), "w": rng.uniform(0.4, 2.0, n)}
    return pd.DataFrame(
        frame | {"g": g.astype(str), "h": h.astype(str), "gh": [f"{a}-{b}" for a, b in zip(g, h, strict=True)]}
    )


def dense(fit: fi.Fit, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (J, q) and covariance (J q, J q) of the deviations of a factor at a fit's only node, beta flat.

    Everything from dense matrices of the design and from the summary of the hyperparameters.
    """
    design, table = fit.model.design, fit.summary()["mean"]
    sigma = table.get("sigma", 0.0)
    R = np.full(design.y.size, sigma**2)
    if design.weights is not None:
        R = R / design.weights
    if design.se is not None:
        R = design.se**2 + (sigma**2 if design.se_sigma else 0.0)
    columns, blocks, where, at = [], [], {}, 0
    for f in design.factors:
        J, q = len(f.levels), len(f.coefficients)
        D = np.diag([table[f"sd_{f.name}[{c}]"] for c in f.coefficients])
        C = np.eye(q)
        for i in range(q):
            for j in range(i + 1, q):
                C[i, j] = C[j, i] = table.get(f"cor_{f.name}[{f.coefficients[i]}, {f.coefficients[j]}]", 0.0)
        Z = np.zeros((design.y.size, J, q))
        Z[np.arange(design.y.size), f.index] = f.Z
        columns.append(Z.reshape(design.y.size, -1))
        blocks.append(np.kron(np.eye(J), D @ np.nan_to_num(C) @ D))
        where[f.name] = slice(at, at + J * q)
        at += J * q
    Z, K = np.concatenate(columns, axis=1), block_diag(*blocks)
    A = np.linalg.inv(Z @ K @ Z.T + np.diag(R))
    P = A - A @ design.X @ np.linalg.solve(design.X.T @ A @ design.X, design.X.T @ A)  # beta integrated out
    gain = K @ Z.T @ P
    mean, V = gain @ (design.y - design.offset), K - gain @ Z @ K
    f = next(f for f in design.factors if f.name == name)
    return mean[where[name]].reshape(len(f.levels), -1), V[where[name], where[name]]


def dense_factor(mean: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Gelman and Pardoe's factor (q,) from the definition, with M the projection on contrasts."""
    J, q = mean.shape
    M = (np.eye(J) - 1.0 / J) / (J - 1)
    blocks = cov.reshape(J, q, J, q)
    return np.array([
        1.0 - (m @ M @ m) / (m @ M @ m + np.trace(M @ blocks[:, k, :, k])) for k, m in enumerate(mean.T)
    ])  # fmt: skip


CASES = {
    "one term": ("y ~ 1 + x + (1 | g)", {}),
    "correlated": ("y ~ 1 + x + (1 + x | g)", {}),
    "independent": ("y ~ 1 + x + (1 + x || g)", {}),
    "slope without population": ("y ~ 1 + (1 + x || g)", {}),
    "crossed": ("y ~ 1 + x + (1 | g) + (1 + x | h)", {}),
    "nested": ("y ~ 1 + x + (1 | g/h)", {}),
    "known errors": ("y | se(s) ~ 1 + x + (1 | g)", {}),
    "known errors and sigma": ("y | se(s, sigma=True) ~ 1 + x + (1 + x || g)", {}),
    "known errors and sigma, crossed": ("y | se(s, sigma=True) ~ 1 + x + (1 | g) + (1 | h)", {}),
    "weights": ("y | weights(w) ~ 1 + x + (1 + x || g)", {}),
    "explored coefficient": ("y ~ 1 + x + (1 | g)", {"beta[x]": fi.student_t(300, 0, 100)}),
}


@pytest.mark.parametrize("case", CASES)
def test_pooling_factors_against_dense_matrices(case: str) -> None:
    formula, priors = CASES[case]
    fit = fi.fit(formula, data(), priors=FLAT | priors, pooling="empirical")
    for name in fit.group_names:
        table = fit.weights(name)
        mean, cov = dense(fit, name)
        if case == "explored coefficient":  # held at its estimate: the dense oracle integrates it, which is close
            np.testing.assert_allclose(table.pooling_factor, dense_factor(mean, cov), rtol=0.02)
            continue
        np.testing.assert_allclose(table.pooling_factor, dense_factor(mean, cov), rtol=1e-6)
        assert list(table.pooling_factor.index) == list(dict.fromkeys(table["coefficient"]))


def test_the_identity_that_weights_stand_for() -> None:
    fit = fi.fit("y ~ 1 + x + (1 + x | g) + (1 | h)", data(), pooling="empirical")
    table, groups = fit.weights("g"), fit.groups("g")
    W = table.matrices.values
    raw, mean = (groups[c].to_numpy().reshape(-1, 2) for c in ("raw", "mean"))
    population = groups["population"].to_numpy().reshape(-1, 2)
    by_hand = np.einsum("jab,jb->ja", W, raw) + np.einsum("jab,jb->ja", np.eye(2) - W, population)
    np.testing.assert_allclose(by_hand, mean, rtol=1e-9)
    # and W from its definition
    design, s = fit.model.design, fit.summary()["mean"]
    f, a, b = design.factors[0], s["sd_g[Intercept]"], s["sd_g[x]"]
    Sigma = np.array([[a**2, a * b * s["cor_g[Intercept, x]"]], [a * b * s["cor_g[Intercept, x]"], b**2]])
    for j in range(len(f.levels)):
        info = f.Z[f.index == j].T @ f.Z[f.index == j] / s["sigma"] ** 2
        # without the inverse of Sigma, which is singular where the correlation is estimated at 1
        np.testing.assert_allclose(W[j], Sigma @ np.linalg.inv(Sigma + np.linalg.inv(info)), rtol=1e-6, atol=1e-9)


def test_averages_over_nodes_of_the_law_of_rows() -> None:
    fit = fi.fit("y ~ 1 + x + (1 | g)", data())
    natural, w = fit.inference.coordinates.natural(fit.inference.hyper.theta), fit.inference.hyper.weights
    table = fit.weights("g")
    n = table["n"].to_numpy()
    law = w @ (n / (n + (natural["sigma"] / natural["sd_g[Intercept]"])[:, None] ** 2))
    np.testing.assert_allclose(table["weight"], law, rtol=1e-8)
    np.testing.assert_allclose(table["weight"], fit.groups("g")["weight"], rtol=0)
    np.testing.assert_allclose(table["weight[Intercept]"], table["weight"], rtol=0)
    assert table.columns.tolist() == ["level", "coefficient", "n", "weight", "weight[Intercept]"]


def test_pooling_factor_of_a_balanced_design_by_hand() -> None:
    """J estimates with one standard error s, known tau, flat mean: B = tau^2 / (tau^2 + s^2).

    V_j(E u_j) = B^2 V(y), and the posterior covariance of contrasts of u is B s^2, so that
    lambda = B s^2 / (B s^2 + B^2 V(y)) = s^2 / (s^2 + B V(y)).
    """
    y, s, tau = np.array([1.0, 4.0, 2.0, 7.0, -1.0]), 1.5, 2.0
    frame = pd.DataFrame({"y": y, "s": s, "g": list("abcde")})
    fit = fi.fit("y | se(s) ~ 1 + (1 | g)", frame, priors=FLAT | {"sd": fi.fixed(tau)})
    B = tau**2 / (tau**2 + s**2)
    table = fit.weights()
    assert table["weight"].to_numpy() == pytest.approx(np.full(5, B), rel=1e-12)
    assert table.pooling_factor["Intercept"] == pytest.approx(s**2 / (s**2 + B * y.var(ddof=1)), rel=1e-9)


def test_pooling_factor_over_nodes_against_quadrature() -> None:
    fit = fi.fit(
        "effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"),
        priors={"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)},
    )  # fmt: skip
    schools = fi.datasets.load("eight_schools")
    y, s = schools["effect"].to_numpy(float), schools["se"].to_numpy(float)
    tau = 5.0 * np.tan(0.5 * np.pi * (np.arange(4000) + 0.5) / 4000)
    M = (np.eye(8) - 1.0 / 8) / 7
    mean, within, log_w = [], [], []
    for t in tau:
        V = 25.0 * np.ones((8, 8)) + np.diag(t**2 + s**2)
        gain = t**2 * np.linalg.inv(V)  # of the deviations u, whose prior covariance is t^2 I
        mean.append(gain @ y)
        within.append(np.trace(M @ (t**2 * np.eye(8) - t**2 * gain)))
        log_w.append(-0.5 * (np.linalg.slogdet(V)[1] + y @ np.linalg.solve(V, y)))
    w = np.exp(np.array(log_w) - max(log_w))
    w, m = w / w.sum(), np.array(mean)
    expected = w @ (np.einsum("sj,jk,sk->s", m, M, m) + np.array(within))
    truth = 1.0 - (w @ m) @ M @ (w @ m) / expected
    assert fit.weights().pooling_factor["Intercept"] == pytest.approx(truth, abs=0.01)


def test_the_average_over_levels_of_a_noise_with_known_covariance() -> None:
    rng = np.random.default_rng(3)
    L = rng.normal(size=(9, 9)) * 0.3
    V = L @ L.T + np.diag(rng.uniform(0.2, 0.8, 9))
    y = rng.normal(1.0, 1.2, 9)
    fit = fi.meta(y, V=V, priors=FLAT | {"sd": fi.fixed(0.9)})
    total = V + 0.81 * np.eye(9)
    A = np.linalg.inv(total)
    one = np.ones(9)
    P = A - np.outer(A @ one, one @ A) / (one @ A @ one)  # the mean integrated out
    mean, cov = 0.81 * P @ y, 0.81 * np.eye(9) - 0.81**2 * P
    truth = dense_factor(mean[:, None], cov)[0]
    assert fit.weights("study").pooling_factor["Intercept"] == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize(("pooling", "weight", "factor"), [("none", 1.0, np.nan), ("complete", 0.0, 1.0)])
def test_no_and_complete_pooling(pooling: str, weight: float, factor: float) -> None:
    table = fi.fit("y ~ 1 + x + (1 + x | g)", data(), pooling=pooling).weights()
    np.testing.assert_allclose(table.matrices.values, weight * np.tile(np.eye(2), (7, 1, 1)), atol=1e-9)
    np.testing.assert_array_equal(table.pooling_factor, [factor] * 2)
    assert "pooled" in table.notes[0]


def test_zero_between_groups_is_complete_pooling() -> None:
    fit = fi.fit("y | se(s) ~ 1 + (1 | g)", data(), pooling="empirical", priors={"sd": fi.fixed(0.0)})
    table = fit.weights()
    assert table.pooling_factor["Intercept"] == 1.0
    assert "all zero" in table.notes[0]
    np.testing.assert_allclose(table["weight"], 0.0, atol=1e-12)


def test_one_level_has_no_factor() -> None:
    frame = data().assign(g="only")
    table = fi.fit("y ~ 1 + x + (1 | g)", frame, priors={"sd": fi.half_normal(1)}).weights()
    assert np.isnan(table.pooling_factor["Intercept"])
    assert "one level" in table.notes[0]


def test_nuts_agrees_with_the_exact_factor() -> None:
    exact = fi.fit("y ~ 1 + x + (1 + x | g)", data())
    drawn = fi.fit("y ~ 1 + x + (1 + x | g)", data(), method="nuts", seed=4)
    np.testing.assert_allclose(drawn.weights().pooling_factor, exact.weights().pooling_factor, atol=0.03)
    np.testing.assert_allclose(drawn.weights()["weight"], exact.weights()["weight"], atol=0.02)


def test_few_nodes_of_a_dear_model_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fi.fit("y ~ 1 + x + (1 + x | g)", data())
    all_nodes = fit.weights().pooling_factor
    monkeypatch.setattr(module, "VALUES_PER_LEVEL", 1e9)  # the fewest nodes that are ever taken
    again = fi.fit("y ~ 1 + x + (1 + x | g)", data()).weights().pooling_factor
    np.testing.assert_allclose(again, all_nodes, rtol=0.02)
    assert not np.array_equal(again, all_nodes)


def test_matrices_and_attributes_of_a_part_of_the_table() -> None:
    fit = fi.fit("y ~ 1 + x + (1 + x | g)", data())
    table = fit.weights()
    part = table[table["level"].isin(["3", "5"])]
    assert part.matrices.shape == (2, 2, 2)
    assert part.matrices.dims == ("level", "coefficient", "coefficient_of_raw")
    assert part.pooling_factor is table.pooling_factor
    np.testing.assert_allclose(part.matrices.sel(level="5"), table.matrices.sel(level="5"))
    assert table[table["coefficient"] == "x"].matrices.sizes == {"level": 7, "coefficient": 1, "coefficient_of_raw": 2}
    with pytest.raises(fi.FinettiError, match=r"call fit.weights\(...\) again"):
        _ = table[["level", "n"]].matrices


def test_a_loaded_fit(tmp_path) -> None:
    fit = fi.fit("y ~ 1 + x + (1 | g) + (1 | h)", data())
    loaded = fi.load(fit.save(tmp_path / "fit.nc"))
    pd.testing.assert_frame_equal(pd.DataFrame(loaded.weights("h")), pd.DataFrame(fit.weights("h")))
    pd.testing.assert_series_equal(loaded.weights("h").pooling_factor, fit.weights("h").pooling_factor)


def test_bad_requests() -> None:
    fit = fi.fit("y ~ 1 + x + (1 | g) + (1 | h)", data())
    with pytest.raises(fi.FinettiError, match=r"'g2' is not a grouping term.*did you mean"):
        fit.weights("g2")
    with pytest.raises(fi.FinettiError, match="say which grouping term"):
        fit.weights()
    with pytest.raises(fi.FinettiError, match="no grouping terms"):
        fi.fit("y ~ 1 + x", data()).weights("g")
