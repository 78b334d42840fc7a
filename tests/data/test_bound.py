"""A model meets its data: scales, priors with numbers, the board."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetti.data.bound import bind
from finetti.errors import PriorError
from finetti.model.model import Model
from finetti.model.priors import half_cauchy, normal

rng = np.random.default_rng(9)
N = 30
FRAME = pd.DataFrame(
    {"y": rng.normal(5, 3, N), "x": rng.normal(2, 7, N), "g": rng.choice(["a", "b", "c"], N), "s": rng.uniform(1, 2, N)}
)


def test_scales_are_sample_moments_less_the_offset():
    scales = bind(Model("y ~ x + offset(x) + (1 + x | g)"), FRAME).scales
    residual = FRAME["y"] - FRAME["x"]
    assert scales.y_mean == pytest.approx(residual.mean(), rel=1e-13)
    assert scales.y_sd == pytest.approx(residual.std(ddof=1), rel=1e-13)
    assert scales.x_mean["x"] == pytest.approx(FRAME["x"].mean(), rel=1e-13)
    assert scales.x_sd["x"] == scales.z_sd["g", "x"] == pytest.approx(FRAME["x"].std(ddof=1), rel=1e-13)


@pytest.mark.parametrize("origin", [0.0, 1e8, -1e12])
def test_a_distant_origin_costs_no_digits(origin):
    y = np.round(rng.normal(size=N) * 256) / 256 + 0.0  # dyadic, so that y + origin is exact
    scales = bind(Model("y ~ 1 + offset(o)"), {"y": y + origin, "o": np.full(N, 0.0)}).scales
    assert scales.y_sd == pytest.approx(y.std(ddof=1), rel=1e-12)
    scales = bind(Model("y ~ 1 + offset(o)"), {"y": y + origin, "o": np.full(N, origin)}).scales
    assert scales.y_mean == pytest.approx(y.mean(), rel=1e-12)


@given(st.sampled_from([1e-6, 1e-3, 1e3, 1e6]), st.sampled_from([1e-6, 1e3]))
def test_a_change_of_units_moves_the_default_priors_along(of_y, of_x):
    model = Model("y ~ x + (1 + x | g) + (0 + k | g)")
    frame = FRAME.assign(k=2.0)
    first = bind(model, frame)
    second = bind(model, frame.assign(y=frame["y"] * of_y, x=frame["x"] * of_x, k=frame["k"] * of_x))
    expected = {
        "Intercept": of_y, "beta[x]": of_y / of_x, "sd_g[Intercept]": of_y, "sd_g[x]": of_y / of_x,
        "sd_g[k]": of_y / of_x, "cor_g": 1.0, "sigma": of_y,
    }  # fmt: skip
    assert list(first.priors) == list(expected)
    for label, factor in expected.items():
        for field in dataclasses.fields(first.priors[label]):
            a, b = getattr(first.priors[label], field.name), getattr(second.priors[label], field.name)
            power = 1.0 if field.name in ("mean", "sd", "scale") else 0.0
            assert b == pytest.approx(a * factor**power, rel=1e-9), (label, field.name)


def test_a_response_without_spread_takes_its_unit_from_the_standard_errors():
    assert bind(Model("y | se(s) ~ 1"), {"y": [3.0], "s": [2.0]}).scales.y_sd == 2.0
    assert bind(Model("y | se(s) ~ 1"), {"y": [0.1, 0.1, 0.1], "s": [2.0, 3.0, 4.0]}).scales.y_sd == 3.0
    assert bind(Model("y | se(s) ~ 1"), {"y": [0.0, 0.0], "s": [2.0, 3.0]}).scales.y_sd == 2.5


def test_priors_sources_and_pooling():
    model = Model(
        "y ~ x + (1 + x | g) + (1 | h)",
        priors={"sd_g": half_cauchy(5), "beta[x]": normal(0, 1)},
        pooling={"h": "complete"},
    )
    bound = bind(model, FRAME.assign(h=rng.integers(0, 4, N)))
    assert str(bound.priors["sd_g[x]"]) == "half_cauchy(5)"
    assert [bound.sources[key] for key in ("sd_g[x]", "beta[x]", "sigma")] == ["sd_g", "beta[x]", "default"]
    assert bound.pooling == {"g": "partial", "h": "complete"}
    assert "sigma" not in bind(Model("y | se(s) ~ 1 + (1 | g)"), FRAME).priors
    with pytest.raises(PriorError):
        bind(Model("y ~ x + (1 | g)", priors={"beta[z]": normal(0, 1)}), FRAME)


def test_the_board_has_numbers():
    text = str(Model("y ~ x + (1 + x | g)").bind(FRAME))
    assert "1, …, 30" in text and "3 levels of g" in text and "lkj(2)" in text
    assert "mean(y)" not in text


def test_missing_rows_pass_through():
    frame = FRAME.assign(x=[np.nan, *FRAME["x"][1:]])
    assert bind(Model("y ~ x"), frame, missing="drop").design.n_dropped == 1
