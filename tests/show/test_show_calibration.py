"""The figure of a calibration: lines are ECDF differences, the band is left where the table says so, nothing is cut."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.special import ndtr

from finetti.errors import FinettiError
from finetti.posterior.calibration import Calibration
from finetti.posterior.calibration_table import ALARM, calibration_table
from finetti.show.calibration import calibration, calibration_figure
from show.drawn import collisions, outside, texts

LONG = [
    "beta[Intercept]", "beta[Days]", "sd_Subject[Intercept]", "sd_Subject[Days]", "cor_Subject[Intercept, Days]",
    "sigma", "group Subject[Intercept]", "group Subject[Days]", "sd_country_of_origin[log(age)]", "sd_a:b[period[T.2]]",
    "group county_of_the_state[Intercept]", "beta[a_very_long_name_of_a_covariate]",
]  # fmt: skip


def made(labels: list[str], wrong: dict[str, float] | None = None, n: int = 300, failed: int = 0) -> Calibration:
    """Return a calibration with exactly normal scores, those of `wrong` parameters multiplied."""
    rng, scores = np.random.default_rng(0), np.sort(np.random.default_rng(1).normal(size=n))
    scores = (scores - scores.mean()) / scores.std()
    pit = pd.DataFrame({c: rng.permutation(ndtr((wrong or {}).get(c, 1.0) * scores)) for c in labels})
    table = calibration_table(pit, pit, {c: pit[c].to_numpy() for c in pit})
    ok = bool((table["p_adjusted"] >= ALARM).all())
    reasons = pd.Series("exact", index=range(failed), dtype=object)
    return Calibration("y ~ 1", table, pit, pit, reasons, (), {}, ok, ())


def whole(figure: Figure) -> str:
    return " ".join(" ".join(t for t, _ in texts(figure)).split())


def test_lines_are_ecdf_differences():
    result = made(["sigma", "beta[x]"])
    figure = calibration_figure(result)
    for ax, label in zip(figure.axes, result.pit, strict=False):
        x, y = max((line.get_data() for line in ax.lines), key=lambda xy: len(xy[0]))
        u = np.sort(result.pit[label].to_numpy())
        at = 0.5 * (u[1:] + u[:-1])
        ecdf = np.searchsorted(u, at, side="right") / u.size
        assert np.allclose(np.interp(at, x, y), ecdf - at, atol=1e-12)
        assert (x[0], y[0], x[-1]) == (0.0, 0.0, 1.0)
        assert abs(y[-1]) < 1e-12


def test_the_band_is_left_where_the_table_says_so():
    result = made(LONG[:4], {"beta[Days]": 1.5, "sd_Subject[Days]": 1.12})
    figure = calibration_figure(result)
    bad = result.table["p_adjusted"] < ALARM
    assert bad["beta[Days]"] and not bad["beta[Intercept]"]
    for ax, label in zip(figure.axes, result.pit, strict=False):
        x, y = max((line.get_data() for line in ax.lines), key=lambda xy: len(xy[0]))
        (path,) = [p for c in ax.collections for p in c.get_paths()]
        half = len(path.vertices) // 2
        inside = path.contains_points(np.column_stack([x, 0.999 * y])[5:-5])
        assert half > 300
        assert bool(inside.all()) == (not bad[label])
    words = whole(figure)
    assert "Not calibrated: the posterior of beta[Days] is too narrow" in words
    assert "calibrated for all" not in words


def test_one_glance_when_all_is_well():
    assert "Calibrated: all 4 posteriors hold the truth" in whole(calibration_figure(made(LONG[:4])))
    assert "Calibrated: the posterior holds the truth" in whole(calibration_figure(made(["sigma"], failed=7)))
    assert "7 more could not be fitted" in whole(calibration_figure(made(["sigma"], failed=7)))


@pytest.mark.parametrize("k", [1, 2, 4, 5, 12])
def test_nothing_is_cut_and_nothing_collides(k):
    figure = calibration_figure(made(LONG[:k], {"sigma": 1.5, "sd_Subject[Intercept]": 0.6}))
    assert outside(figure) == []
    assert collisions(figure) == []


def test_of_many_the_worst_are_shown():
    labels = [f"beta[x{i}]" for i in range(30)]
    figure = calibration_figure(made(labels, {"beta[x29]": 1.6}))
    drawn = [ax for ax in figure.axes if ax.axison]
    assert len(drawn) == 24
    assert "beta[x29]" in [ax.get_title(loc="left") for ax in drawn]
    assert "The worst 24 of 30 are shown" in whole(figure)


def test_axes_that_are_given():
    result = made(["sigma", "beta[x]"])
    figure, axes = plt.subplots(1, 2)
    assert calibration(result, axes) is figure
    assert axes[0].get_title(loc="left") == "sigma"
    assert result.plot.calibration(ax=axes) is figure
    with pytest.raises(FinettiError, match="2 panels"):
        calibration(result, axes[0])
    plt.close("all")
