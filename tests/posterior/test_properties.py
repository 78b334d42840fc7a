"""What must not matter does not: names and order of groups, order of rows, units of y and x, a constant added to y."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import finetti as fi
from finetti.posterior.fit import Fit

FORMULAS = {
    "intercepts": "y ~ 1 + x + (1 | g)",
    "slopes": "y ~ 1 + x + (1 + x | g)",
    "independent": "y ~ 1 + x + (1 + x || g)",
    "crossed": "y ~ 1 + x + (1 | g) + (1 | h)",
    "nested": "y ~ 1 + x + (1 | g/h)",
    "known errors": "y | se(s) ~ 1 + x + (1 | g)",
    "weights": "y | weights(w) ~ 1 + (1 | g)",
}
COLUMNS = ["mean", "sd", "q5", "q50", "q95"]


def frame(seed: int, n: int = 48) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, h = rng.permutation(np.arange(n) % 6), rng.integers(0, 4, n)
    x = rng.normal(3.0, 2.0, n)
    u, v = rng.normal(size=(6, 2)) * [2.0, 0.5], rng.normal(size=4)
    s = rng.uniform(0.5, 1.5, n)
    y = 10.0 + x + u[g, 0] + u[g, 1] * x + v[h] + s * rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{k}" for k in g], "h": [f"h{k}" for k in h], "s": s, "w": 1 / s})


def same(a: pd.DataFrame, b: pd.DataFrame, scale: Any = 1.0, shift: Any = 0.0, rtol: float = 1e-6) -> None:
    """b is a in other units: means and quantiles scaled and shifted, sds scaled; to rtol of the sd."""
    scale, shift = np.broadcast_to(scale, len(a)), np.broadcast_to(shift, len(a))
    for column in COLUMNS:
        expected = scale * a[column].to_numpy() + (0.0 if column == "sd" else shift)
        tolerance = rtol * scale * a["sd"].to_numpy()
        gap = np.abs(b[column].to_numpy() - expected)
        assert np.all((gap <= tolerance) | (np.isnan(expected) & np.isnan(b[column]))), (column, gap / tolerance)


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_rows_changes_nothing(name: str, seed: int) -> None:
    d = frame(seed)
    shuffled = d.sample(frac=1.0, random_state=seed % 2**32)
    a, b = fi.fit(FORMULAS[name], d), fi.fit(FORMULAS[name], shuffled)
    # the modes agree to the precision of the search only, and nodes follow them
    same(a.summary(), b.summary(), rtol=0.02)
    theta = a.inference.hyper.theta[:5]
    one, two = (f.inference.conditional.inner.log_marginal(theta) for f in (a, b))
    np.testing.assert_allclose(one, two, rtol=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(6)))
def test_names_of_groups_change_nothing(name: str, seed: int, order: list[int]) -> None:
    """New names in another alphabetical order: every group keeps its own estimates."""
    d = frame(seed)
    names = {f"g{k}": f"new {order[k]}" for k in range(6)}
    renamed = d.assign(g=d["g"].map(names))
    a, b = fi.fit(FORMULAS[name], d), fi.fit(FORMULAS[name], renamed)
    same(a.summary(), b.summary(), rtol=0.02)
    one = a.groups("g").assign(level=lambda t: t["level"].map(names)).sort_values(["level", "coefficient"])
    two = b.groups("g").sort_values(["level", "coefficient"])
    assert list(one["level"]) == list(two["level"]) and list(one["n"]) == list(two["n"])
    same(one, two, rtol=0.02)
    np.testing.assert_allclose(one["weight"], two["weight"], atol=0.01)


def labels(table: pd.DataFrame) -> pd.Index:
    return table.index.astype(str)


def units_of(table: pd.DataFrame, ky: float, kx: float) -> np.ndarray:
    """Factor of every row of a summary when y is multiplied by ky and x by kx."""
    out = np.full(len(table), ky)
    out[[label in ("beta[x]",) or label.endswith("[x]") for label in labels(table)]] = ky / kx
    out[[label.startswith("cor_") for label in labels(table)]] = 1.0
    return out


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("ky", "kx"), [(1e6, 1e-6), (1e-6, 1e6), (3.7e4, 1.0)])
def test_a_change_of_units_rescales(name: str, ky: float, kx: float) -> None:
    """Default priors move with the data, so that every number does."""
    d = frame(1)
    other = d.assign(y=d["y"] * ky, x=d["x"] * kx, s=d["s"] * ky)
    a, b = fi.fit(FORMULAS[name], d), fi.fit(FORMULAS[name], other)
    table = a.summary()
    same(table, b.summary(), scale=units_of(table, ky, kx))
    assert a.diagnostics.n_nodes == b.diagnostics.n_nodes and b.diagnostics.ok == a.diagnostics.ok
    one, two = a.groups("g"), b.groups("g")
    factor = np.where(one["coefficient"] == "x", ky / kx, ky)
    same(one, two, scale=factor)
    np.testing.assert_allclose(two["weight"], one["weight"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(two["raw_se"], factor * one["raw_se"], rtol=1e-6)
    predictions = (f.predict(t, kind="response") for f, t in ((a, d), (b, other)))
    same(*predictions, scale=ky)
    jacobian = len(d) * np.log(ky)
    assert b.evidence().log == pytest.approx(a.evidence().log - jacobian, abs=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("shift", [1e4, -1e8])
def test_a_constant_added_to_the_response_moves_the_intercept_alone(name: str, shift: float) -> None:
    d = frame(2)
    a, b = fi.fit(FORMULAS[name], d), fi.fit(FORMULAS[name], d.assign(y=d["y"] + shift))
    table = a.summary()
    move = np.where(labels(table) == "beta[Intercept]", shift, 0.0)
    # y + 1e8 itself is rounded to 1.5e-8
    same(table, b.summary(), shift=move, rtol=1e-4)
    one, two = a.groups("g"), b.groups("g")
    same(one, two, shift=np.where(one["coefficient"] == "Intercept", shift, 0.0), rtol=1e-4)
    same(a.predict(d), b.predict(d), shift=shift, rtol=1e-4)


@pytest.mark.parametrize("name", FORMULAS)
def test_x_far_from_zero_changes_only_what_it_means(name: str) -> None:
    """x + 1e6: the slope stays, and predictions with it. (Intercepts at x = 0 are another question, sd_g too.)"""
    if "x |" in FORMULAS[name]:
        pytest.skip("the sd of intercepts at x = 0 has another prior when 0 is elsewhere")
    d = frame(3)
    other = d.assign(x=d["x"] + 1e6)
    a, b = fi.fit(FORMULAS[name], d), fi.fit(FORMULAS[name], other)
    rows = [label for label in labels(a.summary()) if label != "beta[Intercept]"]
    same(a.summary().loc[rows], b.summary().loc[rows], rtol=1e-4)
    same(a.predict(d), b.predict(other), rtol=1e-3)


@pytest.mark.parametrize("k", [1e-6, 1e3, 1e6])
def test_units_with_priors_that_are_not_gaussian(k: float) -> None:
    """Coefficients with student_t priors are explored with theta, in the user's units: those must not matter either."""

    def fitted(k: float) -> Fit:
        d = frame(4).assign(y=lambda t: t["y"] * k)
        priors = {"Intercept": fi.student_t(3, 13 * k, 10 * k), "beta[x]": fi.student_t(4, 0, 3 * k)}
        return fi.fit(FORMULAS["intercepts"], d, priors=priors)

    a, b = fitted(1.0), fitted(k)
    assert a.diagnostics.ok and b.diagnostics.ok
    same(a.summary(), b.summary(), scale=k, rtol=0.15)


@pytest.mark.parametrize("priors", [
    {"Intercept": fi.student_t(30, 13, 10), "beta[x]": fi.student_t(30, 0, 3)},
    {"Intercept": fi.student_t(30, 13, 10), "beta[x]": fi.normal(0, 3)},
    {"beta[Intercept]": fi.student_t(30, 10, 10), "beta[x]": fi.student_t(30, 0, 3)},
], ids=["both", "the intercept", "raw intercept"])  # fmt: skip
def test_a_nearly_normal_prior_gives_the_normal_answer(priors: dict[str, Any]) -> None:
    """student_t with 30 df is explored, normal is integrated: two paths, almost the same model.

    `beta[Intercept]` is the coefficient at x = 0 in both, whatever point its prior speaks of.
    """
    d = frame(5)
    sd = np.sqrt(30 / 28)
    exact = {k: fi.normal(p.mean, p.scale * sd) if hasattr(p, "df") else p for k, p in priors.items()}
    a, b = fi.fit(FORMULAS["intercepts"], d, priors=priors), fi.fit(FORMULAS["intercepts"], d, priors=exact)
    same(a.summary(), b.summary(), rtol=0.25)
    same(a.groups("g"), b.groups("g"), rtol=0.25)


def test_unpooled_groups_of_a_response_far_from_zero() -> None:
    """pooling="none" leaves no intercept to take up the offset."""
    d = frame(6)
    a, b = (fi.fit("y ~ 1 + (1 | g)", d.assign(y=d["y"] + s), pooling="none") for s in (0.0, 1e8))
    one, two = a.groups("g"), b.groups("g")
    same(one, two, shift=1e8, rtol=1e-3)
    same(a.summary().loc[["sigma"]], b.summary().loc[["sigma"]], rtol=1e-3)


def test_a_fit_is_the_same_every_time_and_on_every_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import finetti.linalg.system as system

    d, tables, draws = frame(7), [], []
    for threads in (1, 2, 3):
        monkeypatch.setattr(system, "n_threads", lambda threads=threads: threads)
        fit = fi.fit(FORMULAS["crossed"], d, seed=11)
        tables.append(fit.summary())
        draws.append(fit.draws("u_h[h1, Intercept]"))
    for table, x in zip(tables[1:], draws[1:], strict=True):
        pd.testing.assert_frame_equal(table, tables[0], rtol=0, atol=0)
        np.testing.assert_array_equal(x, draws[0])
    other = fi.fit(FORMULAS["crossed"], d, seed=12).summary()
    assert not other.equals(tables[0])
    same(tables[0], other, rtol=0.25)
