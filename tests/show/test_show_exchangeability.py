"""plot.exchangeability: the scores where they belong, flagged groups named, nothing cut, an Axes of one's own."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.show.exchangeability import exchangeability_figure
from show.drawn import collisions, outside


def made(seed: int, shift: float = 0.0, slopes: bool = False, name: str = "s") -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    J, n = 24, 6
    index, x = np.repeat(np.arange(J), n), np.tile(np.linspace(-1, 1, n), J)
    u, v = rng.normal(0, 0.7, J), rng.normal(0, 0.7, J) * slopes
    u[3] += shift
    region = rng.choice(["east", "a region with a rather long name", "west"], J)
    y = (u + 2.0 * (region == "east"))[index] + v[index] * x + rng.normal(size=index.size)
    return pd.DataFrame({"y": y, "x": x, "site": [f"{name}{j:02d}" for j in index], "region": region[index]})


@pytest.fixture(scope="module")
def found():
    return fi.fit("y ~ 1 + (1 | site)", made(1, shift=10.0)).exchangeability(by="region")


def test_dots_are_the_scores_and_the_flagged_group_is_named(found) -> None:
    figure = exchangeability_figure(found)
    assert "s03" in found.flagged and "s03" in figure.get_suptitle()
    ax = figure.axes[0]
    drawn = np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets()) and c.get_sizes().size])
    drawn = drawn[np.isin(drawn[:, 1], found.table["z"])]
    assert len(np.unique(drawn[:, 1])) == 24
    assert any("s03" in t.get_text() for t in ax.texts)
    assert "region" in [a.get_xlabel() for a in figure.axes]


@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("name", ["s", "a site with a name of more than sixty letters, which is much "])
def test_nothing_is_cut(slopes: bool, name: str) -> None:
    data = made(2, shift=8.0, slopes=slopes, name=name)
    formula = "y ~ 1 + x + (1 + x | site)" if slopes else "y ~ 1 + (1 | site)"
    figure = exchangeability_figure(fi.fit(formula, data), by=["region"])
    assert outside(figure) == [] and collisions(figure) == []


def test_an_axes_of_ones_own_and_a_fit() -> None:
    fit = fi.fit("y ~ 1 + (1 | site)", made(3))
    figure, ax = plt.subplots()
    assert fit.plot.exchangeability(ax=ax) is ax and ax.get_ylabel() == "score of each group"
    plt.close(figure)
    whole = fit.plot.exchangeability(by="region")
    assert len(whole.axes) >= 2
    plt.close(whole)
    with pytest.raises(FinettiError, match="not a matplotlib Axes"):
        fit.plot.exchangeability(ax=3)


def test_few_groups_and_no_columns() -> None:
    """Three groups have no band; two have no column that could be tested."""
    data = made(4).assign(y=np.random.default_rng(4).normal(size=144))
    for some in (["s00", "s01", "s02"], ["s00", "s01"]):
        fit = fi.fit("y ~ 1 + (1 | site)", data[data["site"].isin(some)])
        figure = exchangeability_figure(fit)
        assert outside(figure) == [] and "Nothing speaks against" in figure.get_suptitle()


def test_a_column_that_was_asked_for_is_drawn() -> None:
    """Before a column of finetti's own, even one that tells more; and no word of a band that is not there."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(list("abc"), 5), "x": np.repeat([0.1, 1.0, 0.4], 5)})
    data["y"] = rng.normal(size=15) + np.repeat([2.0, 1.0, 0.0], 5)  # falls with the order of appearance
    figure = exchangeability_figure(fi.fit("y ~ 1 + (1 | g)", data), by="x")
    assert [ax.get_xlabel() for ax in figure.axes] == ["score expected by chance", "x"]
    assert not any("Grey" in text.get_text() for text in figure.texts)
