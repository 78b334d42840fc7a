"""The frozen model: what it accepts, what it refuses and with which words, and that it is a value."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import FrozenInstanceError, replace
from types import ModuleType

import pytest

from finetti.errors import FinettiError, FormulaError, ModelError, NotBuiltError, PriorError
from finetti.model import priors as p
from finetti.model.formula import parse
from finetti.model.model import Model

SLEEP = "Reaction ~ 1 + Days + (1 + Days | Subject)"


def test_text_and_formula_make_the_same_model():
    assert Model(SLEEP) == Model(parse(SLEEP))
    assert Model(SLEEP, link="identity") == Model(SLEEP)
    assert Model(SLEEP) != Model(SLEEP, pooling="none")
    assert Model(SLEEP) != Model(SLEEP, priors={"sd": p.half_normal(1)})


def test_a_model_is_a_value():
    priors = {"sd": p.half_cauchy(5), "sigma": p.fixed(2)}
    pooling = {"Subject": "empirical"}
    model = Model(SLEEP, priors=priors, pooling=pooling)
    priors["sd"] = p.half_cauchy(1)
    pooling["Subject"] = "none"
    assert model.priors == {"sd": p.half_cauchy(5), "sigma": p.fixed(2)}
    assert model.pooling_of("Subject") == "empirical"
    with pytest.raises(FrozenInstanceError):
        model.family = "poisson"
    with pytest.raises(TypeError):
        model.priors["sd"] = p.flat()
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert again == model == copy.deepcopy(model)
    assert hash(again) == hash(model)
    assert replace(model, pooling="partial") == Model(SLEEP, priors=model.priors)


def test_repr_makes_the_model_again():
    model = Model(SLEEP, priors={"sd": p.half_t(3, 1 / 3), "beta": p.flat()}, pooling={"Subject": "empirical"})
    assert eval(repr(model), {**vars(p), "Model": Model}) == model  # noqa: S307
    assert repr(Model("y ~ x")) == "Model('y ~ 1 + x')"


def test_pooling():
    crossed = "y ~ 1 + (1 | a) + (1 | b/c)"
    assert Model(crossed).pooling_of("b:c") == "partial"
    assert Model(crossed, pooling="none").pooling_of("a") == "none"
    mixed = Model(crossed, pooling={"a": "complete", "b:c": "empirical"})
    assert [mixed.pooling_of(term) for term in ("a", "b", "b:c")] == ["complete", "partial", "empirical"]
    with pytest.raises(ModelError, match="'c' is not a grouping factor of the model"):
        mixed.pooling_of("c")
    with pytest.raises(ModelError, match="Did you mean 'b:c'"):
        Model(crossed, pooling={"b:d": "none"})
    with pytest.raises(ModelError, match=r"pooling='partail' is not a kind of pooling; did you mean 'partial'"):
        Model(crossed, pooling="partail")
    with pytest.raises(ModelError, match=r"pooling\['a'\]=0 is not a kind of pooling"):
        Model(crossed, pooling={"a": 0})
    with pytest.raises(ModelError, match="The formula has no group terms"):
        Model("y ~ x", pooling={"a": "none"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"family": "poisson"}, "family='poisson' is not built yet; what exists: 'gaussian'"),
        ({"family": None}, "family=None is not built yet"),
        ({"link": "log"}, "link='log' is not built yet; what exists: None or 'identity'"),
        ({"structure": {"g": "kinship"}}, "known covariance among levels is not built yet"),
        ({"parent": "student_t"}, "other parent distributions are not built yet"),
    ],
)
def test_what_is_not_built_says_so(options, words):
    with pytest.raises(NotBuiltError) as caught:
        Model(SLEEP, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize("left", ["y | trials(n)", "y | cens(c)"])
def test_modifiers_that_are_not_built(left):
    with pytest.raises(NotBuiltError, match=r"(trials|cens)\(\) on the left side .* what exists: se\(\), weights\(\)"):
        Model(f"{left} ~ 1 + (1 | g)")


def test_bad_formulas():
    with pytest.raises(FormulaError):
        Model("y ~ __import__('os')")
    with pytest.raises(ModelError, match="the formula is of type int; give text such as"):
        Model(3)


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"sd": 5}, "'sd' was given 5, which is not a prior; use fi.fixed(5) to hold the parameter there"),
        ({"sd": "half_cauchy(5)"}, "write it without quotes, as in fi.half_cauchy(5)"),
        ({"sd": p.half_cauchy}, "call it with its arguments, as in fi.half_cauchy(...)"),
        ({"sd": None}, "which is not a prior"),
        ([("sd", p.flat())], "is of type list; give a dict such as"),
        ({3: p.flat()}, "the key 3 is of type int; keys are text"),
        ({"tau": p.half_normal(1)}, "'tau' names no parameter of this model. Valid keys: 'Intercept', 'beta'"),
        ({"sd_subject": p.half_normal(1)}, "Did you mean 'sd_Subject'?"),
        ({"sd_Subject[]": p.half_normal(1)}, "names no parameter"),
        ({"u_Subject[308, Days]": p.normal(0, 1)}, "names group effects, whose distribution is the parent's"),
        ({"Intercept": p.flat(), "beta[Intercept]": p.flat()}, "give one of them"),
        # suited to the kind of parameter
        ({"sd_Subject": p.normal(0, 5)}, "normal(0, 5) does not suit it. Use fi.half_normal(5)."),
        ({"sigma": p.student_t(4, 0, 2)}, "the residual standard deviation, which is positive; student_t(4, 0, 2)"),
        ({"sd": p.lkj(2)}, "lkj(2) does not suit it. Use fi.half_t(3, scale)"),
        ({"sd": p.fixed(-1)}, "Hold it at a value of 0 or more."),
        ({"sigma": p.fixed(0)}, "Hold it at a value above 0."),
        ({"sd": p.uniform(-1, 4)}, "Use fi.uniform(0, 4)."),
        ({"sd": p.uniform(-3, -1)}, "Use an interval within [0, inf)."),
        ({"beta": p.half_cauchy(5)}, "Use fi.normal, fi.student_t, fi.uniform, fi.flat or fi.fixed."),
        ({"beta[Days]": p.beta(1, 1)}, "a population coefficient"),
        ({"Intercept": p.lkj(1)}, "a population coefficient"),
        ({"cor": p.normal(0, 1)}, "Use fi.lkj(eta), fi.fixed(value), or fi.uniform(-1, 1)"),
        ({"cor_Subject": p.uniform(0, 1)}, "a correlation matrix; uniform(0, 1) does not suit it"),
        ({"cor": p.fixed(1)}, "A held correlation lies strictly between -1 and 1."),
    ],
)
def test_bad_priors(priors, words):
    with pytest.raises(PriorError) as caught:
        Model(SLEEP, priors=priors)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "priors",
    [{"beta": prior} for prior in (p.normal(0, 1), p.student_t(3, 0, 1), p.uniform(-1, 1), p.flat(), p.fixed(-2))]
    + [
        {key: prior}
        for key in ("sd", "sd_Subject", "sd_Subject[Days]", "sigma")
        for prior in (
            p.half_normal(1),
            p.half_cauchy(1),
            p.half_t(3, 1),
            p.exponential(1),
            p.gamma(2, 1),
            p.inverse_gamma(1, 1),
            p.uniform(),
            p.uniform(0, 9),
            p.beta(2, 2),
            p.fixed(1),
            p.flat(),
        )
    ]
    + [{key: prior} for key in ("cor", "cor_Subject") for prior in (p.lkj(1), p.uniform(-1, 1), p.fixed(0.5))]
    + [{"sd": p.fixed(0)}],
    ids=str,
)
def test_suitable_priors_are_taken(priors):
    assert Model(SLEEP, priors=priors).priors == priors


def test_keys_that_the_formula_rules_out():
    with pytest.raises(PriorError, match=r"sigma does not exist in this model.*se\(\.\.\., sigma=True\)"):
        Model("y | se(s) ~ 1 + (1 | g)", priors={"sigma": p.half_normal(1)})
    assert Model("y | se(s, sigma=True) ~ 1 + (1 | g)", priors={"sigma": p.half_normal(1)}).priors
    with pytest.raises(PriorError, match="speaks of group terms, and the formula has none"):
        Model("y ~ x", priors={"sd": p.half_normal(1)})


def test_every_refusal_is_a_finetti_error():
    assert issubclass(NotBuiltError, FinettiError)
    assert issubclass(FinettiError, ValueError)


def test_bind_calls_the_data_part(monkeypatch):
    calls = []
    stand_in = ModuleType("finetti.data.bound")
    stand_in.bind = lambda model, data, missing: calls.append((model, data, missing)) or "bound"
    monkeypatch.setitem(sys.modules, "finetti.data.bound", stand_in)
    model = Model(SLEEP)
    assert model.bind("frame", missing="drop") == "bound"
    assert model.bind("frame") == "bound"
    assert calls == [(model, "frame", "drop"), (model, "frame", "error")]
