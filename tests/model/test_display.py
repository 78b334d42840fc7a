"""The board: every feature of the formula is written, with the symbols of a paper and the labels of a fit."""

from __future__ import annotations

from types import SimpleNamespace

import formulaic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetti.model import priors as p
from finetti.model.display import at_row, board
from finetti.model.formula import parse
from finetti.model.model import Model
from finetti.model.resolve import resolve
from finetti.model.scales import Scales
from finetti.model.sketch import cut, sketch, terms

SLEEP = "Reaction ~ 1 + Days + (1 + Days | Subject)"


def factor(name, coefficients, blocks, levels=None):
    names = None if levels is None else tuple(map(str, range(levels)))
    return SimpleNamespace(name=name, coefficients=coefficients, blocks=blocks, levels=names)


def bound_board(model, columns, factors, n, scales):
    """What `str(Bound)` does: the same board with columns, levels and numbers."""
    has_sigma = model.formula.response.se is None or model.formula.response.se_sigma
    priors, sources = resolve(
        model,
        columns=columns,
        intercept=columns[:1] == ("Intercept",),
        factors=[(f.name, f.coefficients, f.blocks) for f in factors],
        has_sigma=has_sigma,
        scales=scales,
    )
    return board(
        model.formula,
        columns=columns,
        factors=factors,
        priors=priors,
        sources=sources,
        pooling=model.pooling,
        n=n,
    )


def test_sleepstudy_before_data():
    assert str(Model(SLEEP)) == (
        """\
Reaction ~ 1 + Days + (1 + Days | Subject)

Likelihood
  Reaction[i] ~ Normal(μ[i], σ²)   i over the rows
  μ[i] = β[Intercept] + β[Days]·Days[i] + u_Subject[j[i], Intercept] + u_Subject[j[i], Days]·Days[i]

Parent distributions
  u_Subject[j, ·] ~ Normal(0, Σ_Subject)   j over the levels of Subject, j[i] that of row i
    Σ_Subject = D·C·D,  D = diag(sd_Subject[Intercept], sd_Subject[Days]),  C = cor_Subject (correlations)

Priors on the population coefficients   (normal(mean, sd), unlike Normal(mean, variance) above)
  β[Intercept] + β[Days]·mean(Days) ~ normal(mean(Reaction), 2.5·s)  default
  β[Days]                           ~ normal(0, 2.5·s/sd(Days))      default

Hyperpriors   (on standard deviations; a ² marks a variance)
  sd_Subject[Intercept] ~ half_t(3, s)           default
  sd_Subject[Days]      ~ half_t(3, s/sd(Days))  default
  cor_Subject           ~ lkj(2)                 default
  σ                     ~ half_t(3, s)           default

s = sd(Reaction): numbers once data are bound."""
    )


def test_sleepstudy_with_data():
    model = Model(SLEEP, priors={"sd_Subject": p.inverse_gamma(1, 100), "sigma": p.fixed(25), "beta[Days]": p.flat()})
    scales = Scales(298.5, 56.33, {"Days": 4.5}, {"Days": 2.88}, {("Subject", "Days"): 2.88})
    subject = factor("Subject", ("Intercept", "Days"), ((0, 1),), 18)
    assert bound_board(model, ("Intercept", "Days"), [subject], 180, scales) == (
        """\
Reaction ~ 1 + Days + (1 + Days | Subject)

Likelihood
  Reaction[i] ~ Normal(μ[i], σ²)   i = 1, …, 180
  μ[i] = β[Intercept] + β[Days]·Days[i] + u_Subject[j[i], Intercept] + u_Subject[j[i], Days]·Days[i]

Parent distributions
  u_Subject[j, ·] ~ Normal₂(0, Σ_Subject)   j = 1, …, 18 levels of Subject, j[i] that of row i
    Σ_Subject = D·C·D,  D = diag(sd_Subject[Intercept], sd_Subject[Days]),  C = cor_Subject (correlations)

Priors on the population coefficients   (normal(mean, sd), unlike Normal(mean, variance) above)
  β[Intercept] + β[Days]·mean(Days) ~ normal(298.5, 140.8)  default
  β[Days]                           ~ flat() (improper)     given as 'beta[Days]'

Hyperpriors   (on standard deviations; a ² marks a variance)
  sd_Subject[Intercept]² ~ inverse_gamma(1, 100)  given as 'sd_Subject'
  sd_Subject[Days]²      ~ inverse_gamma(1, 100)  given as 'sd_Subject'
  cor_Subject            ~ lkj(2)                 default
  σ                      = 25 (fixed)             given as 'sigma'"""
    )


@pytest.mark.parametrize(
    ("left", "variance"),
    [
        ("y", "Normal(μ[i], σ²)"),
        ("y | se(s)", "Normal(μ[i], s[i]²)"),
        ("y | se(s, sigma=True)", "Normal(μ[i], s[i]² + σ²)"),
        ("y | weights(w)", "Normal(μ[i], σ²/w[i])"),
        ("log(y) | weights(w / 2)", "log(y)[i] ~ Normal(μ[i], σ²/(w / 2)[i])"),
    ],
)
def test_likelihoods(left, variance):
    text = str(Model(f"{left} ~ 1 + (1 | g)"))
    assert variance in text
    assert ("σ  " in text) == ("σ²" in variance)


def test_offset_is_part_of_the_predictor_and_of_what_the_defaults_scale_with():
    text = str(Model("y ~ x + offset(log(n))"))
    assert "μ[i] = log(n)[i] + β[Intercept] + β[x]·x[i]" in text
    assert "normal(mean(y - log(n)), 2.5·s)" in text
    assert text.endswith("s = sd(y - log(n)): numbers once data are bound.")


def test_independent_coefficients_have_each_their_own_parent():
    text = str(Model("y ~ x + (1 + x || g)"))
    assert "u_g[j, Intercept] ~ Normal(0, sd_g[Intercept]²)" in text
    assert "u_g[j, x] ~ Normal(0, sd_g[x]²)   independent of each other" in text
    assert "cor_g" not in text


def test_blocks_of_both_kinds():
    mixed = factor("g", ("Intercept", "x", "z"), ((0, 1), (2,)), 5)
    text = board(parse("y ~ 1 + (1 + x | g) + (0 + z | g)"), factors=[mixed], n=50)
    assert "u_g[j, (Intercept, x)] ~ Normal₂(0, Σ_g)" in text
    assert "D = diag(sd_g[Intercept], sd_g[x])" in text
    assert "u_g[j, z] ~ Normal(0, sd_g[z]²)   independent of the others" in text
    twice = factor("g", ("a", "b", "c", "d"), ((0, 1), (2, 3)), 5)
    text = board(parse("y ~ 1 + (1 | g)"), factors=[twice], n=50)
    assert "u_g[j, (c, d)] ~ Normal₂(0, Σ_g(2))" in text
    assert "C = cor_g(2) (correlations)" in text


def test_nested_and_crossed_factors_have_their_own_index():
    text = str(Model("y ~ 1 + (1 | batch/cask) + (1 | day)"))
    assert "u_batch[j[i], Intercept] + u_batch:cask[k[i], Intercept] + u_day[l[i], Intercept]" in " ".join(text.split())
    assert "k over the levels of batch:cask that occur, k[i] that of row i" in text
    many = parse("y ~ 1 + " + " + ".join(f"(1 | g{k})" for k in range(9)))
    assert "u_g8[j3[i], Intercept]" in board(many)


def test_pooling_in_words():
    crossed = "y ~ 1 + (1 | a) + (1 | b)"
    complete = str(Model(crossed, pooling={"a": "complete"}))
    assert "u_a = 0   complete pooling" in complete
    assert "u_a[j[i]" not in complete
    assert "sd_a[Intercept]" not in complete
    assert "sd_b[Intercept] ~ half_t(3, s)" in complete

    none = str(Model(crossed, pooling="none"))
    assert "u_a[j, ·] free   no pooling (sd_a = ∞)" in none
    assert "u_a[j[i], Intercept]" in none
    assert "half_t(3, s)" in none.split("Hyperpriors")[1]  # sigma keeps its prior

    empirical = str(Model("y ~ x + (1 + x | a) + (1 | b)", pooling="empirical"))
    assert "sd_a, cor_a, sd_b, σ: no prior; held where the marginal likelihood is largest" in empirical
    assert "half_t" not in empirical
    assert "β[x] " in empirical

    some = str(Model(crossed, pooling={"a": "empirical"}))
    assert "  sd_a: no prior" in some
    assert "σ               ~ half_t(3, s)" in some


def test_a_prior_on_the_coefficient_itself():
    text = str(Model("y ~ x", priors={"beta[Intercept]": p.normal(0, 1)}))
    assert "β[Intercept] ~ normal(0, 1)" in text
    assert "mean(x)" not in text


def test_the_sum_at_the_means_is_shortened():
    assert "β[Intercept] + Σ β[x]·mean(x) ~" in str(Model("y ~ a + b + c"))


def test_keys_that_wait_for_the_data_are_shown():
    text = str(Model("y ~ C(period)", priors={"beta[C(period)[T.2]]": p.normal(0, 1)}))
    assert "β[C(period)[T.2]]" in text
    assert "given as 'beta[C(period)[T.2]]'" in text
    assert "A category or a spline becomes several columns then." in text


def test_without_an_intercept():
    text = str(Model("y ~ 0 + x"))
    assert "μ[i] = β[x]·x[i]\n" in text
    assert "normal(0, 2.5·rms(y)/rms(x))" in text
    assert "rms the root mean square" in text


def test_many_columns_are_shortened_but_nothing_that_matters_is_lost():
    columns = ("Intercept", *(f"x{k}" for k in range(20)))
    group = factor("g", columns[:12], (tuple(range(12)),), 1234)
    scales = Scales(
        0.0, 1.0, dict.fromkeys(columns, 0.0), dict.fromkeys(columns, 1.0), {("g", c): 1.0 for c in columns}
    )
    text = bound_board(Model("y ~ x + (1 + x | g)"), columns, [group], 73421, scales)
    assert "i = 1, …, 73,421" in text
    assert "… (15 more columns)" in text
    assert "… (6 more coefficients of g)" in text
    assert "… (15 more, all in .priors)" in text
    assert "D = diag(sd_g),  C = cor_g" in text
    assert "Normal₁₂(0, Σ_g)   j = 1, …, 1,234 levels of g" in text
    assert "\n  cor_g " in text
    assert "\n  σ " in text
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) < 120


@given(st.integers(0, 30), st.integers(1, 12), st.sampled_from(["partial", "empirical", "complete", "none"]))
def test_any_size_makes_a_board_of_readable_width(p_columns, q, kind):
    columns = ("Intercept", *(f"x{k}" for k in range(p_columns)))
    group = factor("g", tuple(f"c{k}" for k in range(q)), (tuple(range(q)),), 7)
    scales = Scales(
        0.0, 1.0, dict.fromkeys(columns, 0.0), dict.fromkeys(columns, 1.0), {("g", c): 1.0 for c in group.coefficients}
    )
    text = bound_board(Model("y ~ x + (1 + x | g)", pooling=kind), columns, [group], 10, scales)
    assert max(map(len, text.splitlines())) <= 120


def test_columns_at_a_row():
    assert at_row("a:period[T.2]") == "a[i]·1{period[i] = 2}"
    assert at_row("my col") == "(my col)[i]"
    assert at_row("I(x ** 2)") == "(x ** 2)[i]"
    assert at_row("bs(x, df=4)[2]") == "bs(x, df=4)[2][i]"
    assert at_row("C(a)[T.b:c]") == "1{C(a)[i] = b:c}"


# ---- reading the terms off the text ----------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "log(d + 1)"])
sums = st.recursive(
    names,
    lambda inner: st.one_of(
        st.builds("{} * {}".format, inner, inner),
        st.builds("({}) / {}".format, inner, names),
        st.builds("({}):({})".format, inner, inner),
        st.builds("({} + {}) ** 2".format, inner, names),
        st.builds("({} + {})".format, inner, inner),
    ),
    max_leaves=5,
)


@given(st.lists(sums, min_size=1, max_size=3), st.booleans(), st.lists(names, max_size=1))
def test_terms_are_those_of_formulaic(parts, intercept, dropped):
    text = " + ".join(["1" if intercept else "0", *parts]) + "".join(f" - {name}" for name in dropped)
    canonical = parse(f"y ~ {text}").population

    def as_sets(labels):
        return {frozenset(piece for _, piece in cut(label, ":")) for label in labels}

    expected = as_sets("Intercept" if str(t) == "1" else str(t) for t in formulaic.Formula(canonical))
    assert as_sets(terms(canonical)) == expected


def test_group_terms_of_one_factor_are_merged():
    columns, factors = sketch(parse("y ~ 0 + x + (1 + x | g) + (0 + z + w || g) + (1 | a/b)"))
    assert columns == ("x",)
    assert [(f.name, f.coefficients, f.blocks) for f in factors] == [
        ("g", ("Intercept", "x", "z", "w"), ((0, 1), (2,), (3,))),
        ("a", ("Intercept",), ((0,),)),
        ("a:b", ("Intercept",), ((0,),)),
    ]
