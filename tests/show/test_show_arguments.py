"""What is typed after --prior, --pooling, --probs: read, or refused in words; never evaluated."""

from __future__ import annotations

import math

import pytest

from finetti.errors import FinettiError, PriorError
from finetti.model import priors
from finetti.show import arguments
from finetti.show.outputs import prepare, slug


@pytest.mark.parametrize(
    ("text", "prior"),
    [
        ("half_cauchy(5)", priors.half_cauchy(5)),
        (" normal( -1.5 , sd=2e0 ) ", priors.normal(-1.5, 2)),
        ("student_t(3, +0, 10)", priors.student_t(3, 0, 10)),
        ("uniform()", priors.uniform()),
        ("uniform(0, inf)", priors.uniform(0, math.inf)),
        ("flat()", priors.flat()),
    ],
)
def test_priors_are_read(text, prior):
    assert arguments.parse_prior(text) == prior


ATTACKS = [
    "__import__('os').system('touch /tmp/owned')",
    "normal(__import__('os'), 1)",
    "normal.__class__(1)",
    "os.system(1)",
    "normal(*[0, 1])",
    "normal(**{'mean': 0})",
    "(lambda: 1)()",
    "[normal(0, 1)][0]",
    "normal(0, 1) + 1",
    "normal(0, 1 + 1)",
    "normal(0, 9**9**9)",
    "normal(0, 'x')",
    "normal(0, True)",
    "normal(0, 1j)",
    "normal(0, [1])",
    "normal(0, x)",
    "normal(0, None)",
    "eval('1')",
    "Normal(0, 1)",
    "getattr(x, 'y')",
    "normal",
    "",
    "normal(0, 1); 1",
    "normal(0,",
    "1",
    "normal(0, 1)\nimport os",
    "normal(0,\x001)",
    "normal(0, f'{1}')",
    "normal(0, (y := 2))",
    "normal(0, 1 if 1 else 2)",
    "halfcauchy(5)",
    "(" * 150 + ")" * 150,
    "-" * 190 + "1",
    "normal(0, " + "9" * 400 + ")",
    "normal(0, 1" + "0" * 150 + "e400)" * 2,
]


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_anything_else_is_refused(text):
    with pytest.raises(PriorError) as caught:
        arguments.parse_prior(text)
    assert len(str(caught.value)) < 700


def test_refusals_name_the_way_out():
    with pytest.raises(PriorError, match="did you mean 'half_cauchy'"):
        arguments.parse_prior("halfcauchy(5)")
    with pytest.raises(PriorError, match=r"it is written half_cauchy\(scale\)"):
        arguments.parse_prior("half_cauchy(1, 2)")
    with pytest.raises(PriorError, match=r"missing a required argument.*normal\(mean, sd\)"):
        arguments.parse_prior("normal(1)")
    with pytest.raises(PriorError):
        arguments.parse_prior("half_cauchy(-5)")


def test_every_constructor_of_the_package_is_known():
    import finetti

    for name in arguments.CONSTRUCTORS:
        assert callable(getattr(finetti, name))


def test_keys_with_equal_signs_and_brackets():
    read = arguments.parse_priors(["beta[C(x, levels=[1, 2])]=normal(0, 1)", "sd = uniform(low=0, high=3)"])
    assert read == {"beta[C(x, levels=[1, 2])]": priors.normal(0, 1), "sd": priors.uniform(0, 3)}
    assert arguments.parse_priors([]) is None


@pytest.mark.parametrize("text", ["sd", "=half_cauchy(5)", "sd=", "", "half_cauchy(scale=5)"])
def test_key_and_value_are_both_needed(text):
    with pytest.raises(FinettiError, match="expected KEY=VALUE"):
        arguments.parse_priors([text])


def test_a_key_given_twice_is_no_guess():
    with pytest.raises(FinettiError, match="twice for 'sd'"):
        arguments.parse_priors(["sd=flat()", "sd=flat()"])
    with pytest.raises(FinettiError, match="twice for 'g'"):
        arguments.parse_pooling(["g=none", "g=none"])


@pytest.mark.parametrize("texts", [["foo"], ["Subject=foo"], ["none", "Subject=none"], ["none", "partial"]])
def test_pooling_refused(texts):
    with pytest.raises(FinettiError, match=r"Available|one kind for all"):
        arguments.parse_pooling(texts)


def test_pooling_read():
    assert arguments.parse_pooling([]) == "partial"
    assert arguments.parse_pooling(["a:b=empirical"]) == {"a:b": "empirical"}


@pytest.mark.parametrize("text", ["", "2", "0", "1", "0.5,", "a", "nan", "0.5,0.5", "-0.1"])
def test_probs_refused(text):
    with pytest.raises(FinettiError, match="--probs"):
        arguments.parse_probs(text)


@pytest.mark.parametrize("text", ["../../etc/passwd", "/root/x", "a\\b", "..", ".", "con:", "a" * 500, "x\n", ""])
def test_file_names_stay_in_the_directory(text):
    name = slug(text)
    assert name
    assert not set(name) & set("/\\:\n")
    assert not name.startswith(".")
    assert len(name) <= 80


def test_out_must_be_a_directory(tmp_path):
    assert prepare(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FinettiError, match="--out"):
            prepare(path)
