"""From the user's keys and the scales of the data to one prior for each parameter."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetti.errors import PriorError
from finetti.model.model import Model
from finetti.model.priors import (
    fixed,
    flat,
    gamma,
    half_cauchy,
    half_normal,
    half_t,
    inverse_gamma,
    lkj,
    normal,
    student_t,
    uniform,
)
from finetti.model.resolve import resolve
from finetti.model.scales import Scales

SLEEP = "Reaction ~ 1 + Days + (1 + Days | Subject)"
COLUMNS = ("Intercept", "Days")
SUBJECT = ("Subject", ("Intercept", "Days"), ((0, 1),))
SCALES = Scales(
    y_mean=300.0,
    y_sd=50.0,
    x_mean={"Intercept": 1.0, "Days": 4.5, "x": 2.0, "z": 0.0},
    x_sd={"Intercept": 0.0, "Days": 2.5, "x": 5.0, "z": 0.0},
    z_sd={("Subject", "Days"): 2.0, ("g", "a"): 1.0, ("g", "b"): 0.0},
)


def resolved(priors=None, *, columns=COLUMNS, intercept=True, factors=(SUBJECT,), has_sigma=True, scales=SCALES):
    model = SimpleNamespace(priors=priors or {})
    return resolve(model, columns=columns, intercept=intercept, factors=factors, has_sigma=has_sigma, scales=scales)


def test_defaults_scale_with_the_data():
    priors, sources = resolved()
    assert priors == {
        "Intercept": normal(300, 125),
        "beta[Days]": normal(0, 50),
        "sd_Subject[Intercept]": half_t(3, 50),
        "sd_Subject[Days]": half_t(3, 25),
        "cor_Subject": lkj(2),
        "sigma": half_t(3, 50),
    }
    assert list(priors) == list(sources)
    assert set(sources.values()) == {"default"}


def test_a_model_resolves_as_its_priors_do():
    model = Model(SLEEP, priors={"sd": half_cauchy(5)})
    priors, sources = resolve(model, columns=COLUMNS, intercept=True, factors=[SUBJECT], has_sigma=True, scales=SCALES)
    assert (priors, sources) == resolved({"sd": half_cauchy(5)})


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(-1e8, 1e8))
def test_a_change_of_units_moves_the_defaults_along(a, b, shift):
    moved = Scales(
        y_mean=a * 300.0 + shift,
        y_sd=a * 50.0,
        x_mean={"Days": b * 4.5},
        x_sd={"Days": b * 2.5},
        z_sd={("Subject", "Days"): b * 2.0},
    )
    priors, _ = resolved(scales=moved)
    assert priors["Intercept"].mean == pytest.approx(a * 300 + shift)
    assert priors["Intercept"].sd == pytest.approx(a * 125)
    assert priors["beta[Days]"].sd == pytest.approx(50 * a / b)
    assert priors["sd_Subject[Intercept]"].scale == pytest.approx(50 * a)
    assert priors["sd_Subject[Days]"].scale == pytest.approx(25 * a / b)
    assert priors["sigma"].scale == pytest.approx(50 * a)


def test_without_an_intercept_the_slopes_can_carry_the_level():
    far = Scales(y_mean=1e8, y_sd=1.0, x_mean={"p[1]": 0.5, "p[2]": 0.5}, x_sd={"p[1]": 0.5, "p[2]": 0.5}, z_sd={})
    priors, _ = resolved(columns=("p[1]", "p[2]"), intercept=False, factors=(), scales=far)
    assert priors["beta[p[1]]"].mean == 0
    assert priors["beta[p[1]]"].sd == pytest.approx(2.5e8 / 0.5**0.5, rel=1e-6)
    centred = Scales(y_mean=0.0, y_sd=4.0, x_mean={"x": 0.0}, x_sd={"x": 2.0}, z_sd={})
    assert resolved(columns=("x",), intercept=False, factors=(), scales=centred)[0]["beta[x]"] == normal(0, 5)


def test_a_column_without_spread_counts_as_one():
    priors, _ = resolved(columns=("Intercept", "z"), factors=(("g", ("a", "b"), ((0,), (1,))),))
    assert priors["beta[z]"] == normal(0, 125)
    assert priors["sd_g[b]"] == half_t(3, 50)
    zero = Scales(y_mean=3.0, y_sd=4.0, x_mean={"z": 0.0}, x_sd={"z": 0.0}, z_sd={})
    assert resolved(columns=("z",), intercept=False, factors=(), scales=zero)[0]["beta[z]"] == normal(0, 12.5)


def test_the_narrowest_key_wins():
    given_priors = {
        "sd": half_normal(1),
        "sd_Subject": half_normal(2),
        "sd_Subject[Days]": half_normal(3),
        "beta": normal(0, 1),
        "beta[Days]": normal(0, 2),
        "cor": lkj(1),
        "cor_Subject": lkj(3),
        "sigma": inverse_gamma(1, 1),
    }
    other = ("plate", ("Intercept",), ((0,),))
    third = ("batch", ("Intercept", "Days"), ((0, 1),))
    scales = Scales(0.0, 1.0, SCALES.x_mean, SCALES.x_sd, {("Subject", "Days"): 1.0, ("batch", "Days"): 1.0})
    priors, sources = resolved(given_priors, factors=(SUBJECT, other, third), scales=scales)
    assert priors["sd_Subject[Intercept]"] == half_normal(2)
    assert priors["sd_Subject[Days]"] == half_normal(3)
    assert priors["sd_plate[Intercept]"] == half_normal(1)
    assert priors["Intercept"] == normal(0, 1)
    assert priors["beta[Days]"] == normal(0, 2)
    assert priors["cor_Subject"] == lkj(3)
    assert priors["cor_batch"] == lkj(1)
    assert "cor_plate" not in priors
    assert sources == {
        "Intercept": "beta",
        "beta[Days]": "beta[Days]",
        "sd_Subject[Intercept]": "sd_Subject",
        "sd_Subject[Days]": "sd_Subject[Days]",
        "cor_Subject": "cor_Subject",
        "sd_plate[Intercept]": "sd",
        "sd_batch[Intercept]": "sd",
        "sd_batch[Days]": "sd",
        "cor_batch": "cor",
        "sigma": "sigma",
    }


def test_the_two_senses_of_the_intercept():
    assert next(iter(resolved({"Intercept": normal(0, 1)})[0])) == "Intercept"
    priors, sources = resolved({"beta[Intercept]": normal(0, 1), "beta": flat()})
    assert "Intercept" not in priors
    assert list(priors)[:2] == ["beta[Intercept]", "beta[Days]"]
    assert priors["beta[Intercept]"] == normal(0, 1)
    assert sources["beta[Intercept]"] == "beta[Intercept]"
    assert priors["beta[Days]"] == flat()
    with pytest.raises(PriorError, match="two priors for one parameter"):
        resolved({"beta[Intercept]": normal(0, 1), "Intercept": normal(0, 1)})
    for key in ("Intercept", "beta[Intercept]"):
        with pytest.raises(PriorError, match="no intercept"):
            resolved({key: normal(0, 1)}, columns=("Days",), intercept=False)


def test_a_single_correlation_has_a_label():
    priors, sources = resolved({"cor_Subject[Intercept, Days]": lkj(4), "cor_Subject": lkj(1)})
    assert priors["cor_Subject"] == lkj(4)
    assert sources["cor_Subject"] == "cor_Subject[Intercept, Days]"


def test_uniform_on_a_pair_is_lkj_1():
    assert resolved({"cor": uniform(-1, 1)})[0]["cor_Subject"] == lkj(1)
    assert resolved({"cor": fixed(0.3)})[0]["cor_Subject"] == fixed(0.3)


TRIPLE = ("Subject", ("Intercept", "Days", "x"), ((0, 1, 2),))
WITH_X = Scales(0.0, 1.0, SCALES.x_mean, SCALES.x_sd, {("Subject", "Days"): 1.0, ("Subject", "x"): 1.0})


@pytest.mark.parametrize(
    ("priors", "options", "words"),
    [
        ({"sd_Subjct": half_normal(1)}, {}, "Did you mean 'sd_Subject'? Valid keys: 'Intercept', 'beta[Intercept]', "),
        ({"beta[Day]": normal(0, 1)}, {}, "Did you mean 'beta[Days]'?"),
        ({"sd_Subject[x]": half_normal(1)}, {}, "'sd_Subject[x]' names no parameter"),
        ({"sigma": half_normal(1)}, {"has_sigma": False}, "sigma does not exist in this model: the standard errors"),
        (
            {"cor_Subject": lkj(1)},
            {"factors": (("Subject", ("Intercept",), ((0,),)),)},
            "There are no correlations: Subject has one coefficient.",
        ),
        (
            {"cor_Subject": lkj(1)},
            {"factors": (("Subject", ("Intercept", "Days"), ((0,), (1,))),)},
            "the coefficients of Subject are independent (||)",
        ),
        ({"cor": lkj(1)}, {"factors": (("Subject", ("Intercept",), ((0,),)),)}, "There are no correlations"),
        ({"cor": lkj(1)}, {"factors": ()}, "the model has no group terms"),
        ({"cor": uniform(-1, 1)}, {"factors": (TRIPLE,), "scales": WITH_X}, "Use fi.lkj(1)"),
        ({"cor": fixed(0.2)}, {"factors": (TRIPLE,), "scales": WITH_X}, "possible only at 0"),
        (
            {"cor_Subject[Intercept, Days]": lkj(1)},
            {"factors": (TRIPLE,), "scales": WITH_X},
            "one joint prior: a pair is a key only where it is the only pair",
        ),
        ({"sd": normal(0, 5)}, {}, "Use fi.half_normal(5)."),
        ({"sigma": student_t(3, 0, 5)}, {}, "Use fi.half_t(3, 5)."),
        ({"beta": half_normal(5)}, {}, "a population coefficient, which is any real number"),
    ],
)
def test_refusals(priors, options, words):
    with pytest.raises(PriorError) as caught:
        resolved(priors, **options)
    assert words in str(caught.value)


def test_zero_correlations_may_be_held_for_any_number():
    assert resolved({"cor": fixed(0)}, factors=(TRIPLE,), scales=WITH_X)[0]["cor_Subject"] == fixed(0)


@given(
    st.dictionaries(
        st.sampled_from(["sd", "sd_Subject", "sd_Subject[Intercept]", "sd_Subject[Days]", "sigma"]),
        st.sampled_from([half_normal(1), gamma(2, 1), uniform(), flat(), fixed(1), half_cauchy(2)]),
    )
)
def test_every_parameter_has_exactly_one_prior_of_known_origin(priors):
    result, sources = resolved(priors)
    assert set(result) == set(resolved()[0])
    for label, source in sources.items():
        if source == "default":
            assert result[label] == resolved()[0][label]
        else:
            assert result[label] == priors[source]
