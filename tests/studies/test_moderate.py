"""`moderate` on real data, on simulated data whose answer is known, and on input that cannot be right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st

from finetti.errors import DataError, FinettiError, FormulaError, ModelError
from finetti.inference.variances import explore_variances
from finetti.studies.moderate import Moderated, moderate

SAMPLES = list("uvwxyz")
TABLE = pd.DataFrame({"group": list("aabbcc"), "age": [1.0, 2, 3, 1, 2, 5]}, index=SAMPLES)


def simulated(G: int = 60, d0: float = 5.0, n: int = 6, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(G, n)) * np.sqrt(d0 / rng.chisquare(d0, size=(G, 1))) + 3.0
    return pd.DataFrame(values, columns=SAMPLES[:n], index=[f"g{i}" for i in range(G)])


@pytest.fixture(scope="module")
def prostate(shared_data) -> tuple[pd.DataFrame, pd.DataFrame]:
    path = shared_data / "testing" / "prostate_singh2002_expression.csv.gz"
    if not path.exists():
        pytest.skip(f"no file {path}")
    matrix = pd.read_csv(path)
    return matrix, pd.DataFrame({"id": matrix.columns[1:], "group": [c.split("_")[0] for c in matrix.columns[1:]]})


# --- real data ----------------------------------------------------------------------------------
# reference: limma on these 6,033 x 102 values, lmFit + eBayes, cancer minus healthy


def test_prostate_as_limma(prostate):
    matrix, samples = prostate
    found = moderate(matrix, "~ 0 + group", "cancer - healthy", data=samples, method="empirical")
    hyper = found.hyper()
    assert hyper.loc["d0", "mean"] == pytest.approx(18.358, abs=5e-4)
    assert hyper.loc["s0_squared", "mean"] == pytest.approx(0.84145, abs=5e-6)
    assert hyper.drop(columns="mean").isna().all(axis=None)
    top = found.top(3)
    assert top["gene"].tolist() == ["610", "1720", "3940"]
    assert top["t"].to_numpy() == pytest.approx([5.527, 4.801, -4.605], abs=6e-4)
    assert top["df"].to_numpy() == pytest.approx(118.358, abs=5e-4)
    assert top["p"].to_numpy() == pytest.approx(2 * st.t.sf(np.abs(top["t"]), top["df"]), rel=1e-9)
    summary = moderate(matrix, "~ group", data=samples, method="empirical")  # the same effect, the other way round
    assert summary.effects["effect"].to_numpy() == pytest.approx(-found.effects["effect"].to_numpy(), abs=1e-12)


def test_prostate_in_full(prostate, shared_data):
    matrix, samples = prostate
    found = moderate(matrix, "~ 0 + group", "cancer - healthy", data=samples)
    hyper = found.hyper()
    assert hyper.loc["d0", "q5"] < 18.358 < hyper.loc["d0", "q95"]
    assert (hyper["mcse"] < 1e-4 * hyper["mean"]).all()
    # dense quadrature in two dimensions, the likelihood gene by gene
    s2, x, b = found.fits.variance, np.exp(np.linspace(2.75, 3.03, 81)), np.linspace(-0.21, -0.135, 81)
    log_p = np.empty((81, 81))
    for j, level in enumerate(b):
        for i, d0 in enumerate(x):
            part = np.sum(np.log1p(100 * s2 / (d0 * np.exp(level))))
            log_p[i, j] = -0.5 * (100 + d0) * part - 50 * s2.size * (level + np.log(d0))
    from scipy.special import betaln

    log_p += (st.logistic.logpdf(np.log(x), np.log(100)) - s2.size * betaln(50, x / 2))[:, None]
    w = np.exp(log_p - log_p.max())
    assert max(w[0].max(), w[-1].max(), w[:, 0].max(), w[:, -1].max()) < 1e-7
    w /= w.sum()
    assert hyper.loc["d0", "mean"] == pytest.approx(w.sum(axis=1) @ x, rel=1e-4)
    assert hyper.loc["s0_squared", "mean"] == pytest.approx(w.sum(axis=0) @ np.exp(b), rel=1e-4)
    assert hyper.loc["d0", "sd"] == pytest.approx(np.sqrt(w.sum(axis=1) @ (x - w.sum(axis=1) @ x) ** 2), rel=1e-3)
    plain = pd.read_csv(shared_data / "testing" / "prostate_singh2002_summary.csv")
    assert found.effects["effect"].to_numpy() == pytest.approx(plain["estimate"].to_numpy(), abs=1e-6)


def test_airway_and_golub(shared_data):
    folder = shared_data / "testing"
    if not (folder / "airway_counts.csv.gz").exists():
        pytest.skip(f"no file {folder / 'airway_counts.csv.gz'}")
    counts = pd.read_csv(folder / "airway_counts.csv.gz", index_col=0)
    matrix = np.log2((counts + 0.5) / (counts.sum() + 1) * 1e6)
    # the table names its samples in the column `id`; in another order than the matrix
    samples = pd.read_csv(folder / "airway_samples.csv").iloc[::-1]
    found = moderate(matrix, "~ celltype + dex", "dex[T.treated]", data=samples, trend=True)
    assert found.trend is not None and len(found.hyper()) == 5
    # the trend falls steeply: a gene of few reads has a large variance on the log scale
    order = np.argsort(found.fits.mean)
    s0 = found.nodes.weights @ found.prior_variance
    assert s0[order[:2000]].mean() > 3 * s0[order[-2000:]].mean()
    deseq = pd.read_csv(folder / "airway_deseq2_results.csv.gz")
    known = deseq.set_index(deseq.columns[0])["log2FoldChange"]
    high = found.table().set_index("gene").query("average > 4")
    assert np.corrcoef(high["effect"], known.loc[high.index])[0, 1] > 0.98
    leukaemia = moderate(folder / "golub38_expression.csv.gz", "~ type", data={"type": ["ALL"] * 27 + ["AML"] * 11})
    assert len(leukaemia.genes) == 3051 and leukaemia.genes[0] == "AFFX-HUMISGF3A/M97935_MA_at"


# --- what must hold -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "empirical"])
@pytest.mark.parametrize("trend", [False, True])
def test_permutation_changes_nothing(method, trend):
    matrix = simulated(80)
    matrix.iloc[3, 1] = np.nan
    rng = np.random.default_rng(1)
    a = moderate(matrix, "~ 0 + group", ["b - a", "c - b"], trend, method, data=TABLE)
    mixed = matrix.iloc[rng.permutation(80), rng.permutation(6)]
    b = moderate(mixed, "~ 0 + group", ["b - a", "c - b"], trend, method, data=TABLE)
    assert b.hyper().to_numpy()[:, :5] == pytest.approx(a.hyper().to_numpy()[:, :5], rel=1e-5, nan_ok=True)
    one, two = (m.effects.sort_values(["contrast", "gene"], ignore_index=True) for m in (a, b))
    pd.testing.assert_frame_equal(one, two, rtol=1e-5)


@pytest.mark.parametrize("method", ["full", "empirical"])
def test_units(method):
    matrix = simulated(80)
    a = moderate(matrix, "~ group", data=TABLE, method=method, trend=True)
    b = moderate(matrix * 1e-3, "~ group", data=TABLE, method=method, trend=True)
    for column, factor in {"effect": 1e3, "se": 1e3, "df": 1.0}.items():
        assert b.effects[column].to_numpy() * factor == pytest.approx(a.effects[column].to_numpy(), rel=1e-6)
    s0 = [m.hyper().loc["s0_squared", "mean"] for m in (a, b)]
    assert s0[1] * 1e6 == pytest.approx(s0[0], rel=1e-6)


def test_effects_average_over_nodes():
    found = moderate(simulated(100), "~ 0 + group", ["b - a", "c - a"], data=TABLE)
    at, effects = found.at_nodes("c - a"), found.effects.query("contrast == 'c - a'")
    K = at.weights.size
    assert 1 < K <= 32 and at.weights.sum() == pytest.approx(1.0)
    assert at.se.shape == at.df.shape == (K, 100)
    assert at.effect == pytest.approx(effects["effect"].to_numpy())
    assert at.df == pytest.approx(found.nodes.d0[:, None] + 3.0 + np.zeros(100))
    # the single t against the mixture, in the bulk and in the tails
    table = found.table("c - a")
    mixture = at.weights @ (2 * st.t.sf(np.abs(at.effect) / at.se, at.df))
    assert table["p"].to_numpy() == pytest.approx(mixture, rel=1e-9)
    single = 2 * st.t.sf(np.abs(table["t"]), table["df"])
    assert single == pytest.approx(mixture, rel=0.15) and np.mean(np.abs(single / mixture - 1)) < 0.01
    # and both against every node of the posterior
    d0, level = found.posterior.hyper.theta.T
    d0, w = np.exp(d0)[:, None], found.posterior.hyper.weights
    s2 = (d0 * np.exp(level)[:, None] + 3 * found.fits.variance) / (d0 + 3)
    every = w @ (2 * st.t.sf(np.abs(at.effect) / np.sqrt(s2), d0 + 3))  # unscaled se is 1: two means of two
    assert mixture == pytest.approx(every, rel=2e-3)


def test_p_values_are_uniform_without_effects():
    found = moderate(simulated(3000, d0=4.0, seed=5), "~ 0 + group", "b - a", data=TABLE)
    assert st.kstest(found.table()["p"], "uniform").pvalue > 0.01
    assert found.hyper().loc["d0", "q5"] < 4.0 < found.hyper().loc["d0", "q95"]
    adjusted = st.false_discovery_control(found.table()["p"])
    assert found.table()["p_bh"].to_numpy() == pytest.approx(adjusted, rel=1e-12)


def spoilt() -> pd.DataFrame:
    """g0 never seen, g1 constant, g2 in one group only, g3 without group a, g4 one sample in each group."""
    matrix = simulated()
    matrix.iloc[0] = np.nan
    matrix.iloc[1] = 3.1
    matrix.iloc[2, 1:] = np.nan
    matrix.iloc[3, :2] = np.nan
    matrix.iloc[4, [0, 2, 4]] = np.nan
    return matrix


def test_missing_values_are_handled_and_counted():
    found = moderate(spoilt(), "~ 0 + group", ["b - a", "c - b"], data=TABLE)
    assert {k: v for k, v in found.counts.items() if v} == {
        "genes": 60, "samples": 6, "with missing values": 3, "dropped: no value": 1,
        "dropped: no contrast estimable": 1, "kept with zero variance": 1, "kept without residual df": 1,
        "effects not estimable": 1, "genes kept": 58,
    }  # fmt: skip
    effects = found.effects
    assert effects["gene"].isin(["g0", "g2"]).sum() == 0
    assert effects.loc[effects["gene"] == "g3", "contrast"].tolist() == ["c - b"]
    assert effects[["effect", "se", "df"]].notna().all(axis=None) and (effects["se"] > 0).all()
    # without residual df the variance is that of the prior
    at = found.at_nodes("b - a")
    k = int(np.flatnonzero(at.genes == "g4")[0])
    assert at.se[:, k] ** 2 == pytest.approx(2 * found.prior_variance[:, 0])
    assert at.df[:, k] == pytest.approx(found.nodes.d0)
    # the constant gene does not count among the variances, the others are as without the spoilt ones
    clean = moderate(spoilt().iloc[[3, *range(5, 60)]], "~ 0 + group", ["b - a", "c - b"], data=TABLE)
    assert found.hyper().to_numpy()[:, 2:5] == pytest.approx(clean.hyper().to_numpy()[:, 2:5], rel=1e-6)
    assert any("zero" in warning for warning in found.warnings)
    dropped = moderate(spoilt(), "~ 0 + group", ["b - a", "c - b"], data=TABLE, zero_variance="drop")
    assert dropped.counts["dropped: zero variance"] == 1 and "g1" not in dropped.genes
    assert "dropped: no value 1" in str(found) and "Warning" in str(found)


def test_empirical_counts_zero_variances_as_limma_does():
    matrix = spoilt()
    found = moderate(matrix, "~ 0 + group", ["b - a", "c - b"], data=TABLE, method="empirical")
    s2, df = found.fits.variance, found.fits.df
    use = df > 0
    lifted = np.maximum(s2[use], 1e-5 * np.median(s2[use]))
    e = np.log(lifted) - [st.loggamma.stats(d / 2, moments="m") for d in df[use]] + np.log(df[use] / 2)
    assert found.hyper().loc["d0", "mean"] < 10
    excess = np.var(e, ddof=1) - np.mean([st.loggamma.stats(d / 2, moments="v") for d in df[use]])
    assert st.loggamma.stats(found.nodes.d0[0] / 2, moments="v") == pytest.approx(excess, rel=1e-6)


def test_equal_variances():
    rng = np.random.default_rng(3)
    for method in ("full", "empirical"):
        found = moderate(rng.normal(size=(2000, 12)), np.ones((12, 1)), method=method)
        assert found.contrasts == ("Intercept",)
        assert np.all(np.isfinite(found.effects["se"])) and (found.effects["df"] > 60).all()
    assert np.isinf(found.hyper().loc["d0", "mean"]) or found.hyper().loc["d0", "mean"] > 50
    assert (found.effects["df"] <= 2000 * 11).all()


def test_d0_infinite_under_empirical_is_the_pooled_variance():
    matrix = np.tile([1.0, -1.0, 1.0, -1.0, 0.5, -0.5], (30, 1)) * (1 + 0.01 * np.arange(30)[:, None] / 30)
    found = moderate(matrix, np.ones((6, 1)), method="empirical")
    assert np.isinf(found.hyper().loc["d0", "mean"])
    assert np.ptp(found.effects["se"]) == 0.0
    assert found.effects["df"].unique().tolist() == [150.0]  # at most the df of all genes together
    assert found.effects["se"].iloc[0] == pytest.approx(np.sqrt(found.fits.variance.mean() / 6))


def test_seed_is_the_answer():
    a, b = (moderate(simulated(), "~ group", data=TABLE, seed=7).hyper() for _ in range(2))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    found = moderate(simulated(), "~ group", data=TABLE)
    direct = explore_variances(found.fits.variance, found.fits.df).summary(np.array([0.05, 0.5, 0.95]))[1]
    assert found.hyper().to_numpy() == pytest.approx(direct, nan_ok=True)
    assert found.hyper(probs=(0.025,)).columns.tolist() == ["mean", "sd", "q2.5", "ess", "mcse"]


# --- designs and contrasts ----------------------------------------------------------------------


def effects_of(found: Moderated) -> np.ndarray:
    return found.fits.effect


def test_ways_to_say_the_same():
    matrix = simulated()
    text = moderate(matrix, "~ 0 + group", ["b - a", "(b + c) / 2 - a"], data=TABLE, method="empirical")
    weights = {"one": {"b": 1, "group[a]": -1}, "two": "0.5 * b + c / 2 - `group[a]`"}
    named = moderate(matrix, "0 + group", weights, data=TABLE, method="empirical")
    X = pd.get_dummies(TABLE["group"])
    C = pd.DataFrame({"one": [1, 0, -1.0], "two": [0.5, 0.5, -1]}, index=["b", "c", "a"])
    numbers = moderate(matrix, X, C, method="empirical")
    arrays = moderate(matrix.to_numpy(), X.to_numpy(), np.array([[-1.0, 1, 0], [-1, 0.5, 0.5]]).T, method="empirical")
    for other in (named, numbers, arrays):
        assert effects_of(other) == pytest.approx(effects_of(text), abs=1e-12)
        assert other.fits.unscaled == pytest.approx(text.fits.unscaled)
    assert named.contrasts == numbers.contrasts == ("one", "two")
    assert arrays.contrasts == ("contrast1", "contrast2")
    assert moderate(matrix, "~ group + age", data=TABLE).contrasts == ("group[T.b]", "group[T.c]", "age")


def test_samples_are_matched_by_name():
    matrix = simulated()
    here = moderate(matrix, "~ age", data=TABLE, method="empirical")
    turned = TABLE.iloc[::-1]
    by_index = moderate(matrix, "~ age", data=turned, method="empirical")
    by_column = moderate(matrix, "~ age", data=turned.reset_index(names="id"), method="empirical")
    told = moderate(matrix, "~ age", data=turned.reset_index(names="id"), samples="id", method="empirical")
    by_place = moderate(matrix, "~ age", data=turned.reset_index(drop=True), method="empirical")
    for found in (by_index, by_column, told):
        assert effects_of(found) == pytest.approx(effects_of(here), abs=1e-12)
    assert not np.allclose(effects_of(by_place), effects_of(here))
    # one name with a slip must not turn matching by name into matching by place
    slip = turned.reset_index(names="id").replace({"id": {turned.index[0]: "sx"}})
    with pytest.raises(DataError, match="names the sample 'sx' in the column 'id', which is not a column"):
        moderate(matrix, "~ age", data=slip, method="empirical")
    some = moderate(matrix, "~ age", data=TABLE.iloc[:5], method="empirical")
    assert some.counts["columns left out"] == 1 and some.counts["samples"] == 5


WRONG = {
    "shape": (lambda m: (m.to_numpy(), np.ones((5, 1))), {}, DataError, "5 samples, but the matrix has 6"),
    "transposed": (lambda m: (m.to_numpy().T, np.ones((6, 1))), {}, DataError, "transposed"),
    "text cell": (lambda m: (m.replace(m.iloc[2, 1], "high"), "~ group"), {}, DataError, "'high' in row 2"),
    "empty sample": (lambda m: (m.assign(w=np.nan), "~ group"), {}, DataError, "'w' has no value"),
    "infinite": (lambda m: (m.replace(m.iloc[2, 1], -np.inf), "~ group"), {}, DataError, "-inf for gene 'g2'"),
    "twice": (lambda m: (m.set_axis(list("uvwxyy"), axis=1), "~ group"), {}, DataError, "'y' stands over 2 columns"),
    "other names": (lambda m: (m.rename(columns=str.upper), "~ group"), {}, DataError, "the sample 'u'.*not a column"),
    "unknown": (lambda m: (m, "~ 0 + group", "d - a"), {}, ModelError, "'d', which is not a coefficient"),
    "unknown in a dict": (lambda m: (m, "~ group", {"x": {"group[b]": 1}}), {}, ModelError, "did you mean 'group"),
    "no sum": (lambda m: (m, "~ 0 + group", "a * b"), {}, ModelError, "cannot be read"),
    "a number": (lambda m: (m, "~ 0 + group", "a - 1"), {}, ModelError, "adds the number -1"),
    "nothing": (lambda m: (m, "~ 0 + group", "a - a"), {}, ModelError, "must not be zero"),
    "rows": (lambda m: (m, "~ 0 + group", np.ones((2, 1))), {}, ModelError, "needs 3 rows"),
    "rank": (lambda m: (m, "~ age + I(2 * age)"), {}, ModelError, "cannot tell some coefficients apart"),
    "df": (lambda m: (m, "~ group * age"), {}, ModelError, "residual degrees of freedom"),
    "few": (lambda m: (m.iloc[:19], "~ group"), {}, DataError, "19 genes"),
    "constant": (lambda m: (m * 0 + 1, "~ group"), {}, DataError, "0 genes with a residual variance above zero"),
    "no table": (lambda m: (m, "~ group"), {"data": None}, DataError, "give the table"),
    "left side": (lambda m: (m, "y ~ group"), {}, FormulaError, "right side"),
    "group term": (lambda m: (m, "~ (1 | group)"), {}, FormulaError, "least squares"),
    "gap": (lambda m: (m, "~ age"), {"data": TABLE.assign(age=[1, 2, np.nan, 4, 5, 7])}, DataError, "'age'.*missing"),
    "method": (lambda m: (m, "~ age"), {"method": "limma"}, FinettiError, "'empirical'"),
    "zeros": (lambda m: (m, "~ age"), {"zero_variance": "no"}, FinettiError, "zero_variance='no'"),
    "labels": (lambda m: (m, "~ age"), {"labels": ["a"]}, DataError, "labels has 1 values"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refuses_in_words(case):
    arguments, options, error, told = WRONG[case]
    with pytest.raises(error, match=told):
        moderate(*arguments(simulated()), **({"data": TABLE} if case not in ("shape", "transposed") else {}) | options)


def test_asks_which_contrast():
    found = moderate(simulated(), "~ group", data=TABLE)
    with pytest.raises(FinettiError, match="2 contrasts"):
        found.table()
    with pytest.raises(FinettiError, match="is not a contrast"):
        found.at_nodes("group[T.d]")
    assert len(found.top(4, "group[T.b]")) == 4
