"""Figures of a screen: what is drawn equals the numbers, for every slab and any number of tests, and nothing is cut."""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import quad

from finetti.errors import FinettiError, FinettiWarning
from finetti.inference.spike_slab import Nodes
from finetti.model.densities import Fixed
from finetti.show import screen_plots
from finetti.show.screen_curve import RATES
from finetti.show.screen_facts import Known, mixture_curves, not_null, percent_range, reach, representatives
from finetti.show.screen_histogram import draw as draw_histogram
from finetti.show.screen_shrinkage import MOST_POINTS, laws
from finetti.studies.screen import screen
from show.drawn import collisions, has_marks, marks, outside, words

FIGURES = ("histogram", "shrinkage", "volcano", "discoveries")
HELD = {"pi0": Fixed(0.9), "slab_sd": Fixed(2.0), "null_mean": Fixed(0.2), "null_sd": Fixed(1.2)}


def simulated(n=2000, share=0.1, sd=4.0, seed=1, unequal=True):
    rng = np.random.default_rng(seed)
    se = rng.uniform(0.5, 2.0, n) if unequal else np.ones(n)
    b = np.where(rng.random(n) < share, rng.normal(0.0, sd, n), 0.0)
    return b + se * rng.normal(size=n), se


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FinettiWarning)  # of few tests
        return screen(*args, **options)


@pytest.fixture(scope="module")
def full():
    return screen(*simulated())


def curve_of(found, table):
    """A stand-in for `discovery_curve`, whose intervals are not at stake here."""
    q, p = (np.sort(table[c].to_numpy()) for c in ("qvalue", "prob_null"))
    n = np.searchsorted(q, RATES, side="right")
    false = np.concatenate([[0.0], np.cumsum(p)])[n]
    columns = {"rate": RATES, "n": n, "expected_false": false, "false_low": np.floor(0.5 * false)}
    return pd.DataFrame(columns | {"false_high": np.ceil(1.5 * false)})


def drawn(found):
    """All four figures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FinettiWarning)
        table = found.table()
    return {
        "histogram": screen_plots.histogram_figure(found),
        "shrinkage": screen_plots.shrinkage_figure(found, table),
        "volcano": screen_plots.volcano_figure(found, table),
        "discoveries": screen_plots.discoveries_figure(found, curve_of(found, table)),
    }


# ------------------------------------------------------------------------------------------------------- the curves
def slab_density(kind, z, se, df, pi0, tau, mu, kappa):
    """Density of z = x / se under the slab, by numerical convolution of textbook densities."""
    errors = stats.norm if np.isinf(df) else stats.t(df)
    law = {"normal": stats.norm(0, tau), "laplace": stats.laplace(0, tau / np.sqrt(2.0)),
           "student_t": stats.t(4, scale=tau / np.sqrt(2.0))}[kind]  # fmt: skip

    def at(v):
        inner = lambda b: law.pdf(b) * errors.pdf((v - mu - b / se) / kappa) / kappa  # noqa: E731
        return quad(inner, -np.inf, 0.0)[0] + quad(inner, 0.0, np.inf)[0]

    return np.array([at(v) for v in z])


@pytest.mark.parametrize(("slab", "df"), [("normal", np.inf), ("normal", 5.0), ("laplace", np.inf), ("student_t", 5.0)])
def test_curves_at_one_node_are_those_of_scipy(slab, df):
    x, se = simulated(30)
    se = np.repeat([0.5, 1.0, 2.0], 10)
    found = screen(x, se, df=df, slab=slab, priors=HELD)
    z = np.array([-4.0, -1.0, 0.0, 0.7, 3.0])
    curves = mixture_curves(found, z)
    errors = stats.norm if np.isinf(df) else stats.t(df)
    assert curves.null == pytest.approx(0.9 * errors.pdf((z - 0.2) / 1.2) / 1.2, rel=1e-8)
    assert curves.theoretical == pytest.approx(0.9 * errors.pdf(z), rel=1e-8)
    expected = np.mean([0.1 * slab_density(slab, z, s, df, 0.9, 2.0, 0.2, 1.2) for s in (0.5, 1.0, 2.0)], axis=0)
    # unless its densities are slow, every test stands for itself; else a few do for all
    assert curves.slab == pytest.approx(expected, rel=1e-5 if slab != "student_t" else 0.1)
    assert curves.null_band is None and curves.slab_band is None


def test_a_few_tests_stand_for_all_standard_errors():
    x, se = simulated(3000, seed=4)
    found = screen(x, se, priors=HELD)
    z = np.linspace(-8.0, 8.0, 17)
    spread = np.sqrt(1.44 + (2.0 / se) ** 2)
    everyone = 0.1 * stats.norm.pdf(z[:, None], 0.2, spread).mean(axis=1)
    assert mixture_curves(found, z).slab == pytest.approx(everyone, rel=0.02)
    assert representatives(found.tests, 40).size == 40


def test_means_and_bands_are_those_of_the_posterior(full):
    z = np.array([0.0, 3.0])
    curves = mixture_curves(full, z)
    draws, _ = full.learned.joint(2000, 7)
    se = full.screened.se[:, None]
    density = np.array([
        (r * stats.norm.pdf(z[:, None, None], m, np.sqrt(k * k + (t / se) ** 2))).mean(axis=(1, 2))
        for r, t, m, k in zip(draws.rest[:100, 0], draws.tau[:100, 0], draws.mu, draws.kappa, strict=False)
    ])  # fmt: skip
    error = 4.0 * density.std(axis=0) / np.sqrt(100)
    assert np.all(np.abs(curves.slab - density.mean(axis=0)) < error + 0.02 * curves.slab)
    low, high = curves.slab_band
    width = np.quantile(density, 0.95, axis=0) - np.quantile(density, 0.05, axis=0)
    assert np.all(low < curves.slab) and np.all(curves.slab < high)
    assert np.all(np.abs((high - low) / width - 1.0) < 0.4)


def grouped(base, shares):
    """The same screen with covariates: three groups whose share of effects differs."""

    def spread(n):
        rest = np.minimum(n.rest * shares, 0.9)
        return Nodes(1.0 - rest, rest, n.tau * np.ones(len(shares)), n.mu, n.kappa)

    class Learned:
        names, rows = base.learned.names, base.learned.rows
        few = (spread(base.learned.few[0]), np.repeat(base.learned.few[1][:, None], len(shares), axis=1))

        def joint(self, n, seed):
            nodes, values = base.learned.joint(n, seed)
            return spread(nodes), values

    group = np.arange(base.n_tests) % len(shares)
    return replace(base, tests=replace(base.tests, group=group), learned=Learned())


def test_covariates_are_averaged_over_tests(full):
    shares = np.array([0.2, 1.0, 3.0])
    found = grouped(full, shares)
    z = np.array([-2.0, 0.0, 6.0])
    assert mixture_curves(found, z).slab == pytest.approx(shares.mean() * mixture_curves(full, z).slab, rel=0.05)
    assert not_null(found).mean == pytest.approx(shares.mean() * not_null(full).mean, rel=0.02)
    assert len(laws(found, np.linspace(-5, 5, 11))) == 3
    for figure in drawn(found).values():
        assert outside(figure) == [] and collisions(figure) == []


def test_sets_of_standard_errors_are_averaged_over_nodes(full):
    """Two nodes, each with a set of its own: a null that is a mixture of two widths."""
    se = full.screened.se
    nodes = replace(Nodes.of([0.9, 0.9], 2.0, 0.0, 1.0), which=np.array([0, 1]))

    class Learned:
        names, rows, few = full.learned.names, full.learned.rows, (nodes, np.array([0.25, 0.75]))

        def joint(self, n, seed):
            return nodes.take(np.arange(n) % 2), {}

    sets = (np.stack([0.5 * se, 2.0 * se]), np.full((2, se.size), np.inf))
    found = replace(full, tests=replace(full.tests, sets=sets), learned=Learned())
    z = np.array([0.0, 1.0, 3.0])
    expected = 0.9 * (0.25 * stats.norm.pdf(z, 0, 0.5) + 0.75 * stats.norm.pdf(z, 0, 2.0))
    assert mixture_curves(found, z).null == pytest.approx(expected, rel=1e-8)
    for figure in drawn(found).values():
        assert outside(figure) == []


# ------------------------------------------------------------------------------------------------------- histogram
def test_histogram_draws_the_share_of_tests_per_unit_of_z(full):
    ax = screen_plots.histogram_figure(full).axes[0]
    (bars,) = [p for p in ax.patches if type(p).__name__ == "StepPatch"]
    height, edges, _ = bars.get_data()
    z = full.screened.effect / full.screened.se
    inside = np.mean((z >= edges[0]) & (z <= edges[-1]))
    assert float(height @ np.diff(edges)) == pytest.approx(inside, abs=1e-12)
    lines = {line.get_linewidth(): line for line in ax.lines if len(line.get_xdata()) > 50}
    slab = lines[1.8]
    assert slab.get_ydata() == pytest.approx(mixture_curves(full, slab.get_xdata()).slab)
    both = lines[1.2].get_ydata()
    assert both == pytest.approx(lines[1.4].get_ydata() + slab.get_ydata())
    assert "in its place" in words(ax.figure)


@pytest.mark.parametrize("share", [0.3, 0.01, 0.0005])
def test_a_small_slab_is_seen_beside_its_null(share):
    x, se = simulated(20_000, share, 5.0, unequal=False)
    ax = screen_plots.histogram_figure(screen(x, se, method="empirical", null="theoretical")).axes[0]
    (slab,) = [line for line in ax.lines if line.get_linewidth() == 1.8]
    top = int(np.argmax(slab.get_ydata()))
    up = ax.transAxes.inverted().transform(ax.transData.transform((slab.get_xdata()[top], slab.get_ydata()[top])))[1]
    assert up > 0.08
    assert "in its place" not in words(ax.figure)


def test_limits_leave_out_only_extremes():
    z = np.concatenate([np.random.default_rng(0).normal(size=5000), [60.0, 8.0]])
    low, high, beyond = reach(z, 4.2)
    assert beyond == 1 and 8.0 < high < 15.0 and low <= -0.5 * high
    assert reach(np.array([0.3, -1.2, 5.6]), 4.2)[2] == 0


def test_shares_are_written_with_two_digits(full):
    assert percent_range(Known(0.5, 0.5, 0.5)) == ("50.0 %", "")
    row = full.hyper().loc["pi0"]
    assert not_null(full) == Known(1 - row["mean"], 1 - row["q95"], 1 - row["q5"])


# ------------------------------------------------------------------------------------------------------- shrinkage
def test_shrinkage_passes_through_the_table(full):
    """A law evaluated at a test's own estimate is that test's row."""
    table = full.table()
    for law in laws(full, np.linspace(-9.0, 9.0, 3)):
        z = float(full.screened.effect[law.at] / full.screened.se[law.at])
        (own,) = [f for f in laws(full, np.array([z, 9.0])) if f.at == law.at]
        row, se = table.iloc[law.at], full.screened.se[law.at]
        assert (own.mean[0] * se, own.low[0] * se, own.high[0] * se) == pytest.approx(
            (row["mean"], row["q5"], row["q95"])
        )
    se = full.screened.se[[law.at for law in laws(full, np.array([0.0, 1.0]))]]
    assert se == pytest.approx(np.quantile(full.screened.se, [0.1, 0.5, 0.9]), rel=0.01)


def test_shrinkage_at_one_node_is_the_closed_form():
    x, _ = simulated(50, unequal=False)
    found = screen(x, np.full(50, 2.0), priors=HELD)
    z = np.linspace(-6.0, 6.0, 25)
    (law,) = laws(found, z)
    e, rho = (z - 0.2) / 1.2, 2.0 / 2.4
    slab, null = 0.1 * stats.norm.pdf(e, 0, np.hypot(1, rho)), 0.9 * stats.norm.pdf(e)
    expected = slab / (slab + null) * rho**2 / (1 + rho**2) * e * 1.2
    assert law.mean == pytest.approx(expected, abs=1e-9)
    kept = (law.mean > 0.5 * z)[z >= 0.25]
    assert np.isinf(law.half) and not kept.any()
    assert replace(law, mean=np.where(z < 2.6, 0.0, 0.9 * z)).half == 3.0
    assert replace(law, mean=0.6 * z).half == 0.0
    assert np.isnan(replace(law, mean=np.where(z > 5, 0.0, 0.6 * z)).half)
    ax = screen_plots.shrinkage_figure(found).axes[0]
    assert has_marks(ax, x, None)  # one standard error: in units of the effect
    (line,) = [v for v in ax.lines if len(v.get_xdata()) > 100]
    assert np.interp(0.0, line.get_xdata(), line.get_ydata()) == pytest.approx(2.0 * np.interp(0.0, z, expected))


def test_points_of_many_tests_are_thinned_with_their_tails():
    x, se = simulated(30_000, 0.02, unequal=False)
    found = screen(x, se, method="empirical", null="theoretical")
    figure = screen_plots.shrinkage_figure(found)
    (points,) = marks(figure.axes[0])
    assert 0.8 * MOST_POINTS < len(points) <= MOST_POINTS
    low, high = figure.axes[0].get_xlim()
    far = np.sort(x[(np.abs(x) > 8.0) & (x > low) & (x < high)])
    assert far.size and np.isin(np.round(far, 9), np.round(points[:, 0], 9)).all()
    assert f"{len(points):,} of 30,000 shown" in words(figure)


# --------------------------------------------------------------------------------------------------------- volcano
def test_volcano_counts_and_shows_the_discoveries(full):
    table = full.table()
    figure = screen_plots.volcano_figure(full, table)
    ax = figure.axes[0]
    found = table["qvalue"] <= 0.05
    assert f"{found.sum():,} of 2,000 tests are discoveries" in words(figure)
    shown = np.concatenate(marks(ax))
    assert len(shown) == len(table)
    seen = table["lfsr"].to_numpy() >= shown[:, 1].min() * (1 + 1e-12)
    inside = (found & seen).to_numpy()
    assert has_marks(ax, table["mean"][inside], None) or not seen.all()
    clipped = int((~seen).sum())
    assert (f"{clipped} tests below" in words(figure)) == (clipped > 1)
    names = [t.get_text() for t in ax.texts if t.get_text().isdigit()]
    assert 5 <= len(names) <= 10 and set(map(int, names)) <= set(table.index[found])
    assert ax.yaxis_inverted()


def test_volcano_keeps_all_discoveries_of_many_tests():
    x, se = simulated(60_000, 0.05, unequal=False)
    found = screen(x, se, method="empirical", null="theoretical")
    table = found.table()
    ax = screen_plots.volcano_figure(found, table).axes[0]
    n = int((table["qvalue"] <= 0.05).sum())
    assert len(np.concatenate(marks(ax))) == n + 20_000
    assert f"20,000 of {60_000 - n:,} shown" in words(ax.figure)
    assert ax.get_ylim()[1] > 1e-18  # rates of 1e-100 do not squeeze the others


def test_two_wild_effects_do_not_squeeze_the_volcano():
    figure = drawn(CASES["far out"]())["volcano"]
    low, high = figure.axes[0].get_xlim()
    assert -60.0 < low < -5.0 and 5.0 < high < 60.0
    assert "2 effects beyond the sides" in words(figure)


# ----------------------------------------------------------------------------------------------------- discoveries
def test_discoveries_are_those_of_the_curve(full):
    table = full.table()
    curve = curve_of(full, table)
    ax = screen_plots.discoveries_figure(full, curve).axes[0]
    lines = [line for line in ax.lines if len(line.get_xdata()) == len(RATES)]
    false, n = lines
    assert n.get_ydata() == pytest.approx(curve["n"]) and false.get_ydata() == pytest.approx(curve["expected_false"])
    at = int((table["qvalue"] <= 0.05).sum())
    assert has_marks(ax, [0.05], [at])
    assert f"{at} discoveries among 2,000 tests at an FDR of 5" in words(ax.figure)


def test_discoveries_asks_the_screen_itself(full):
    ax = full.plot.discoveries()
    assert ax.get_xlim() == pytest.approx((0.001, 0.3))
    assert f"{full.discoveries(fdr=0.05).n} discoveries" in words(ax.figure)
    plt.close(ax.figure)


# ------------------------------------------------------------------------------------------------------- all of them
CASES = {
    "five tests": lambda: quiet([0.3, -1.2, 2.2, 4.5, -0.1], [1, 0.5, 1, 0.8, 1.2], labels=list("abcde")),
    "noise": lambda: screen(np.random.default_rng(2).normal(size=800)),
    "empirical": lambda: screen(*simulated(seed=3), method="empirical"),
    "mixture": lambda: screen(*simulated(seed=3), method="empirical", slab="mixture"),
    "laplace": lambda: screen(*simulated(500, 0.4), slab="laplace", null="theoretical"),
    "t errors": lambda: screen(*simulated(400, 0.3), df=4.0, method="empirical"),
    "one side": lambda: screen(np.abs(simulated(1000, 0.2)[0]), null="theoretical", method="empirical"),
    "far out": lambda: screen(np.append(simulated(1000)[0], [900.0, -1e4]), null="theoretical", method="empirical"),
    "dense": lambda: screen(*simulated(1000, 0.9, 20.0, unequal=False), method="empirical"),
    "long names": lambda: screen(
        "$effect of treatment " * 4, data={"$effect of treatment " * 4: simulated(60, 0.5)[0],
                                           "g": [f"gene ${i} " * 9 for i in range(60)]},
        labels="g", method="empirical", null="theoretical"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_no_text_is_cut_or_written_over_another(name):
    for kind, figure in drawn(CASES[name]()).items():
        assert outside(figure) == [], kind
        assert collisions(figure) == [], kind


def test_nothing_discovered_is_said():
    figures = drawn(CASES["noise"]())
    assert "No discovery among 800 tests" in words(figures["volcano"])
    assert "beyond" not in words(figures["volcano"])
    assert "No discovery among 800 tests" in words(figures["discoveries"])


def test_a_failed_check_is_loud(full):
    bad = replace(full, seed=1)
    failed = replace(full.diagnostics, ok=False, warnings=("importance sampling failed its check",))
    bad.__dict__["diagnostics"] = failed
    for figure in drawn(bad).values():
        assert "DO NOT USE THIS RESULT" in figure.axes[0].get_title(loc="left")
        assert "importance sampling failed its check" in words(figure)
        assert outside(figure) == []
    with pytest.warns(FinettiWarning, match="failed its own checks"):
        screen_plots.volcano_figure(bad)


@pytest.mark.parametrize("name", FIGURES)
def test_axes_can_be_given_and_nothing_else_changes(name, full):
    before = dict(matplotlib.rcParams)
    figure, ax = plt.subplots(figsize=(3.6, 3.2), layout="constrained")
    open_ = len(plt.get_fignums())
    assert getattr(full.plot, name)(ax=ax) is ax
    assert dict(matplotlib.rcParams) == before
    assert outside(figure) == []
    getattr(screen_plots, f"{name}_figure")(full)
    assert len(plt.get_fignums()) == open_
    plt.close(figure)
    with pytest.raises(FinettiError, match="not a matplotlib Axes"):
        getattr(full.plot, name)(ax=3)


def test_the_table_is_made_at_most_once(full, monkeypatch):
    made = []
    original = type(full).table
    monkeypatch.setattr(type(full), "table", lambda self, *a: made.append(1) or original(self, *a))
    table = full.table()
    made.clear()
    screen_plots.histogram_figure(full)
    screen_plots.shrinkage_figure(full, table)
    screen_plots.volcano_figure(full, table)
    screen_plots.discoveries_figure(full, curve_of(full, table))
    assert not made
    screen_plots.volcano_figure(full)
    assert len(made) == 1


def test_real_data(shared_data):
    data = pd.read_csv(shared_data / "testing" / "hiv_vantwout2003_z.csv")
    for figure in drawn(screen("z", data=data, labels="gene")).values():
        assert outside(figure) == [] and collisions(figure) == []


def test_histogram_of_a_screen_with_no_width():
    """Half of all z are the same: Freedman and Diaconis' width is 0."""
    x = np.concatenate([np.zeros(600), simulated(400)[0]])
    _, ax = plt.subplots()
    draw_histogram(ax, screen(x, null="theoretical", method="empirical"))
    assert 10 < len(ax.patches[0].get_data()[0]) <= 240
    plt.close(ax.figure)
