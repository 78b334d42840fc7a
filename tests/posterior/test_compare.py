"""Comparison of models: against ArviZ and brute force, planted winners, ties, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import finetti as fi
from finetti.errors import DataError, FinettiError, PriorError
from finetti.posterior.compare import Comparison, compare
from finetti.posterior.stacking import stacking_weights

GIVEN = {
    "Intercept": fi.normal(250, 100),
    "beta": fi.normal(0, 20),
    "sd": fi.half_normal(40),
    "sigma": fi.half_normal(60),
}


@pytest.fixture(scope="module")
def data():
    return fi.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def fits(data):
    given = {**GIVEN, "cor": fi.lkj(2)}
    return {
        "intercepts": fi.fit("Reaction ~ 1 + Days + (1 | Subject)", data, priors=GIVEN),
        "slopes": fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", data, priors=given),
        "no days": fi.fit("Reaction ~ 1 + (1 | Subject)", data, priors={k: v for k, v in GIVEN.items() if k != "beta"}),
    }


def test_against_arviz(fits):
    import arviz as az

    table = compare(fits)
    other = az.compare({name: fit.loo().to_arviz() for name, fit in fits.items()}, ic="loo", method="stacking")
    assert table.index.tolist() == other.index.tolist() == ["slopes", "intercepts", "no days"]
    for mine, theirs in (
        ("elpd", "elpd_loo"),
        ("p", "p_loo"),
        ("se", "se"),
        ("elpd_diff", "elpd_diff"),
        ("dse", "dse"),
        ("rank", "rank"),
    ):
        np.testing.assert_allclose(table[mine], other[theirs].astype(float), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(table["weight"], other["weight"], atol=5e-3)
    # where they differ, ours is the better mixture
    log_p = np.stack([fits[name].loo().loo_i for name in table.index], axis=1)

    def value(w):
        return np.sum(np.log(np.exp(log_p) @ (w / np.sum(w))))

    assert value(table["weight"].to_numpy()) >= value(other["weight"].to_numpy(float)) - 1e-7


def test_groups_left_out(fits):
    table = compare(fits, by="Subject")
    logo = {name: fit.logo("Subject") for name, fit in fits.items()}
    for name in fits:
        assert table.loc[name, "elpd"] == pytest.approx(logo[name].elpd_logo)
    difference = logo["slopes"].logo_i - logo["intercepts"].logo_i
    assert table.loc["intercepts", "elpd_diff"] == pytest.approx(difference.sum())
    assert table.loc["intercepts", "dse"] == pytest.approx(np.sqrt(18 * difference.var()))
    assert table["p"].isna().all()
    assert table.by == "Subject"
    assert "groups (Subject) that were left out" in table.notes[0]


def test_evidence_ratios(fits):
    table = compare(fits)
    logs = np.array([fits[name].evidence().log for name in table.index])
    np.testing.assert_allclose(table["log_evidence"], logs)
    np.testing.assert_allclose(table["evidence_ratio"], np.exp(logs - logs.max()))
    assert compare(fits, evidence=False)["log_evidence"].isna().all()
    assert not any("evidence" in note for note in table.notes)


def test_no_evidence_under_default_priors(fits, data):
    mixed = {**fits, "default": fi.fit("Reaction ~ 1 + Days + (1 | Subject)", data)}
    table = compare(mixed)
    assert np.isnan(table.loc["default", "log_evidence"]) and np.isnan(table.loc["default", "evidence_ratio"])
    assert table.loc["slopes", "evidence_ratio"] == 1.0
    note = next(n for n in table.notes if "evidence" in n)
    assert "No evidence of default" in note and "sd_Subject[Intercept]" in note and "yourself" in note
    with pytest.raises(PriorError, match=r"default priors are in play, of Intercept, beta\[Days\]"):
        compare(mixed, evidence=True)


def test_no_evidence_of_improper_priors_and_of_estimates(fits, data):
    flat = {**GIVEN, "beta": fi.flat()}
    mixed = {
        **fits,
        "flat": fi.fit("Reaction ~ 1 + Days + (1 | Subject)", data, priors=flat),
        "empirical": fi.fit("Reaction ~ 1 + Days + (1 | Subject)", data, priors=GIVEN, pooling="empirical"),
    }
    table = compare(mixed)
    assert table.loc[["flat", "empirical"], "log_evidence"].isna().all()
    assert any("that of beta[Days] is improper" in note for note in table.notes)
    with pytest.raises(PriorError, match="empirical Bayes has no evidence"):
        compare(mixed, evidence=True)


def test_empirical_fits_estimate_anew(fits, data):
    one = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", data, pooling="empirical")
    table = compare({**fits, "empirical": one})
    held = one.loo()
    assert table.loc["empirical", "elpd"] < held.elpd_loo - 1.0
    # elpd + p is the score of the rows that are not left out, however elpd is found
    assert table.loc["empirical", "elpd"] + table.loc["empirical", "p"] == pytest.approx(held.elpd_loo + held.p_loo)


def test_ties_stay_in_the_order_given(fits):
    one = fits["slopes"]
    table = compare({"b": one, "a": one, "c": fits["intercepts"]})
    assert table.index.tolist() == ["b", "a", "c"] and table["rank"].tolist() == [0, 1, 2]
    assert table["elpd_diff"].tolist()[:2] == [0.0, 0.0] == table["dse"].tolist()[:2]
    assert table.loc["a", "weight"] == pytest.approx(table.loc["b", "weight"], abs=1e-6)
    assert table.notes[0].startswith("b and a predict rows that were left out best; c is ")
    assert compare({"b": one, "a": one}).notes[0] == "b and a predict rows that were left out equally well."


def test_a_planted_predictor_wins():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 5)
    x, z = rng.normal(size=(2, 100))
    y = 2.0 * x + rng.normal(size=20)[g] + rng.normal(size=100)
    table = {"y": y, "x": x, "z": z, "g": g.astype(str)}
    formulas = {"x": "y ~ 1 + x + (1 | g)", "z": "y ~ 1 + z + (1 | g)", "x + z": "y ~ 1 + x + z + (1 | g)"}
    found = compare({name: fi.fit(formula, table) for name, formula in formulas.items()})
    assert found.index[-1] == "z" and found.loc["z", "elpd_diff"] > 5 * found.loc["z", "dse"]
    assert found.loc["z", "weight"] < 0.05
    close = next(name for name in ("x", "x + z") if found.loc[name, "rank"] == 1)
    assert any(
        f"A difference below 4 is small, and its standard error is not to be relied on: {close}" in n
        for n in found.notes
    )


def test_what_no_pooling_says_of_new_groups(fits, data):
    none = fi.fit("Reaction ~ 1 + Days + (1 | Subject)", data, pooling="none")
    table = compare({"intercepts": fits["intercepts"], "alone": none}, by="Subject")
    assert table.loc["alone", "elpd"] == -np.inf and table.loc["alone", "elpd_diff"] == np.inf
    assert table.loc["alone", "weight"] == pytest.approx(0.0, abs=1e-6)
    assert any("alone: the score is -inf" in note for note in table.notes)


def test_a_model_without_a_score_is_last():
    data = {"y": [1.0, 2, 4, 3, 7, 6, 9], "x": [0.0, 0, 0, 0, 0, 0, 1], "g": list("aabbccc")}
    one = fi.fit("y ~ 1 + x + (1 | g)", data, priors={"beta": fi.flat()})
    other = fi.fit("y ~ 1 + (1 | g)", data)
    table = compare({"one": one, "other": other})
    assert table.index.tolist() == ["other", "one"]
    assert np.isnan(table.loc["one", "elpd"]) and np.isnan(table.loc["one", "weight"])
    assert table.loc["other", "weight"] == 1.0
    assert any("one cannot predict 1 rows" in note for note in table.notes)


def test_print_says_it_in_words(fits):
    table = compare(fits)
    assert isinstance(table, Comparison)
    text = str(table)
    assert "elpd_diff" in text and text.endswith(table.notes[-1])
    assert isinstance(table[["elpd"]], Comparison) and "slopes predicts" in str(table[["elpd"]])


@pytest.mark.parametrize("K", [2, 3, 8])
def test_stacking_is_the_best_mixture(K):
    rng = np.random.default_rng(K)
    log_p = rng.normal(size=(150, K)) * 2.0 - rng.uniform(0, 1.5, size=K)
    w = stacking_weights(log_p)
    assert w.min() >= 0.0 and w.sum() == pytest.approx(1.0)
    P = np.exp(log_p)

    def negative(z):
        v = np.exp(z - z.max())
        return -np.sum(np.log(P @ (v / v.sum())))

    best = min(
        (minimize(negative, rng.normal(size=K), method="BFGS", options={"gtol": 1e-8}) for _ in range(3)),
        key=lambda r: r.fun,
    )
    assert -np.sum(np.log(P @ w)) <= best.fun + 1e-6


def test_stacking_at_the_corners():
    better = np.zeros((30, 3))
    better[:, 1] = 1.0
    np.testing.assert_allclose(stacking_weights(better), [0.0, 1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(stacking_weights(np.zeros((5, 4))), 0.25, atol=1e-9)
    with_nothing = np.array([[0.0, -np.inf], [0.0, -np.inf], [-1.0, -0.5]])
    w = stacking_weights(with_nothing)
    assert 0.0 < w[1] < 0.5
    # two models, closed form: m0 log w + m1 log(1 - w) where each predicts its own parts alone
    own = np.where(np.arange(10)[:, None] < 7, [0.0, -np.inf], [-np.inf, 0.0])
    np.testing.assert_allclose(stacking_weights(own), [0.7, 0.3], atol=1e-6)
    np.testing.assert_allclose(stacking_weights(own - 1e4), [0.7, 0.3], atol=1e-6)


def test_refusals(fits, data):
    one = fits["slopes"]
    with pytest.raises(FinettiError, match="at least two fits"):
        compare({"a": one})
    with pytest.raises(FinettiError, match="mapping of names"):
        compare([one, one])  # type: ignore[arg-type]
    with pytest.raises(FinettiError, match="names that are text"):
        compare({1: one, 2: one})  # type: ignore[dict-item]
    with pytest.raises(FinettiError, match="'b' is a float, not a fit"):
        compare({"a": one, "b": 1.0})  # type: ignore[dict-item]
    with pytest.raises(FinettiError, match="by=3"):
        compare({"a": one, "b": one}, by=3)  # type: ignore[arg-type]
    with pytest.raises(FinettiError, match="evidence='yes'"):
        compare({"a": one, "b": one}, evidence="yes")  # type: ignore[arg-type]
    with pytest.raises(FinettiError, match="did you mean 'Subject'"):
        compare({"a": one, "b": one}, by="Subjct")


def test_other_data_are_refused(fits, data):
    slope = "Reaction ~ 1 + Days + (1 | Subject)"
    one = fits["intercepts"]

    def against(formula, table):
        return {"a": one, "b": fi.fit(formula, table)}

    with pytest.raises(DataError, match="different rows, 180 and 170"):
        compare(against(slope, data.iloc[:170]))
    with pytest.raises(DataError, match=r"different responses, Reaction and log\(Reaction\)"):
        compare(against("log(Reaction) ~ 1 + Days + (1 | Subject)", data))
    with pytest.raises(DataError, match="in another order"):
        compare(against(slope, data.iloc[::-1]))
    with pytest.raises(DataError, match="different values"):
        compare(against(slope, data.assign(Reaction=data["Reaction"] + 1.0)))


def test_other_groups_are_refused(fits, data):
    shifted = data.assign(Subject=np.roll(data["Subject"].to_numpy(), 5))
    with pytest.raises(DataError, match="same rows into the groups of 'Subject'"):
        compare({"a": fits["intercepts"], "b": fi.fit("Reaction ~ 1 + Days + (1 | Subject)", shifted)}, by="Subject")
    with pytest.raises(FinettiError, match=r"'b' has no grouping term 'Subject'.*pooling=\{'Subject': 'complete'\}"):
        compare({"a": fits["intercepts"], "b": fi.fit("Reaction ~ 1 + Days", data)}, by="Subject")


def test_public_name(fits):
    assert fi.compare is compare


def test_a_model_without_groups_has_none_to_leave_out(fits, data):
    alone = {**fits, "no groups": fi.fit("Reaction ~ 1 + Days", data)}
    with pytest.raises(FinettiError, match="it has none at all"):
        fi.compare(alone, by="Subject")
