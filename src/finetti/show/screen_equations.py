"""The model of a screen in mathematical form: as lines of MathML for the page, as plain text for the terminal.

    x_j ~ Normal(μ₀ s_j + b_j, (σ₀ s_j)²)      b_j = 0 with probability π₀, else b_j ~ Normal(0, τ²)

The same names in both: π₀ is `pi0`, τ is `slab_sd`, μ₀ and σ₀ are `null_mean` and `null_sd` of the tables.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from finetti.model.priors import Fixed
from finetti.show import mathml as m
from finetti.show.equations import Block, Line, distribution
from finetti.show.numbers import significant
from finetti.show.screen_reading import ScreenReading, subject

__all__ = ["board", "screen_equations"]

SYMBOLS = {
    "pi0": ("π", "0"), "slab_sd": ("τ", ""), "null_mean": ("μ", "0"), "null_sd": ("σ", "0"), "sd_pi0": ("ω", "π"),
    "sd_slab_sd": ("ω", "τ"),
}  # fmt: skip
PLAIN = {"pi0": "π₀", "slab_sd": "τ", "null_mean": "μ₀", "null_sd": "σ₀", "sd_pi0": "ω_π", "sd_slab_sd": "ω_τ"}
SLABS = {"normal": "Normal", "laplace": "Laplace", "student_t": "t₄", "mixture": "mixture of normals"}
_J = m.name("j")


def _symbol(name: str) -> str:
    letter, index = SYMBOLS[name]
    below = m.number(index) if index.isdigit() else m.name(index)
    return m.sub(m.name(letter), below) if index else m.name(letter)


def _times(*parts: str) -> str:
    return m.row(m.sign("⁢", tight=True).join(parts))


def _errors(found: ScreenReading) -> str:
    """Return "normal", "t" with one df for all tests, or "ts" with one for each."""
    df = np.asarray(found.screened.df, float)
    if np.isinf(df).all():
        return "normal"
    return "t" if df.min() == df.max() else "ts"


def _slab(found: ScreenReading) -> tuple[str, str]:
    """The slab as MathML and as text."""
    scale = (
        _symbol("slab_sd") if found.covariate is None else _at("slab_sd", m.row(m.name("g"), m.bracket(_J, ends="[]")))
    )
    zero, square = m.number("0"), m.square(scale)
    if found.slab.name == "mixture":
        weight, sd = m.sub(m.name("w"), m.name("k")), m.square(m.sub(m.name("τ"), m.name("k")))
        total = m.row(m.sub(m.sign("∑"), m.name("k")), weight, m.words("Normal"), m.bracket(zero, sd))
        return total, "Σ_k w_k Normal(0, τ_k²), a grid of standard deviations"
    if found.slab.name == "normal":
        return m.row(m.words("Normal"), m.bracket(zero, square)), "Normal(0, τ²)"
    name = m.words("Laplace") if found.slab.name == "laplace" else m.sub(m.words("t"), m.number("4"))
    plain = "Laplace" if found.slab.name == "laplace" else "t₄"
    return m.row(name, m.bracket(zero, m.row(m.words("sd"), m.sign("="), scale))), f"{plain}(0, sd = τ)"


def _groups(found: ScreenReading) -> tuple[Line, ...]:
    """How pi0 and the slab's sd vary between groups of tests, or with a number."""
    g, smooth = m.name("g"), found.covariate.value is not None
    pairs = [(m.name("logit"), "pi0", "sd_pi0", "c"), (m.name("log"), "slab_sd", "sd_slab_sd", "d")]
    lines = []
    for link, name, spread, letter in pairs:
        own = m.row(link, m.name("\u2009"), _at(name, g))
        common, square = m.row(link, m.name("\u2009"), _symbol(name)), m.square(_symbol(spread))
        if smooth:
            weight, spline = m.sub(m.name(letter), m.name("k")), m.sub(m.name("B"), g, m.name("k"))
            total = m.row(m.sub(m.sign("∑"), m.name("k")), spline, weight)
            law = m.chunk(weight, m.sign("~"), m.words("Normal"), m.bracket(m.number("0"), square))
            lines.append(
                Line((m.chunk(own, m.sign("=")), m.chunk(common, m.sign("+"), total, m.sign(",", tight=True)), law))
            )
        else:
            lines.append(Line((m.chunk(own, m.sign("~")), m.chunk(m.words("Normal"), m.bracket(common, square)))))
    what = "B: a spline, g: bins" if smooth else f"g: {found.learned.n_groups:,} levels"
    return (replace(lines[0], note=f"{what} of {found.covariate.name}"), lines[1])


def _at(name: str, index: str) -> str:
    letter, below = SYMBOLS[name]
    return m.sub(m.name(letter), *([m.number(below)] if below else []), index)


def screen_equations(found: ScreenReading) -> tuple[Block, ...]:
    """Return the model of a screen as blocks of equations: sampling, effects, priors."""
    free, errors = found.null == "free", _errors(found)
    x, b, s = (m.sub(m.name(letter), _J) for letter in "xbs")
    centre = m.row(_times(_symbol("null_mean"), s), m.sign("+"), b) if free else b
    spread = m.square(m.row(m.bracket(_times(_symbol("null_sd"), s)))) if free else m.square(s)
    law = m.words("Normal")
    if errors != "normal":
        shown = m.number(f"{found.screened.df[0]:.4g}") if errors == "t" else m.sub(m.name("d"), _J)
        law = m.sub(m.words("t"), shown)
    unit = "s: 1, the effects are z-values" if found.screened.z_values else "s: known standard error"
    if found.moderated is not None:
        unit = "s: moderated standard error"
    told = f"j = 1, …, {found.n_tests:,} tests; x: {subject(found)}; {unit}"
    sampling = Line((m.chunk(x, m.sign("~")), m.chunk(law, m.bracket(centre, spread))), told)
    lines = [sampling]
    if found.moderated is not None:
        variance = m.square(m.sub(m.name("σ"), _J))
        ratio = m.row(m.sub(m.name("d"), m.number("0")), m.sign("⁢", tight=True),
                      m.subsup(m.name("s"), (m.number("0"),), m.number("2")), m.sign("/", tight=True),
                      m.subsup(m.name("χ"), (m.sub(m.name("d"), m.number("0")),), m.number("2")))  # fmt: skip
        lines.append(
            Line((m.chunk(variance, m.sign("~")), m.chunk(ratio)), "variance of a gene, learned from all genes")
        )
    slab, _ = _slab(found)
    of_group = m.row(m.name("g"), m.bracket(_J, ends="[]"))
    share = _symbol("pi0") if found.covariate is None else _at("pi0", of_group)
    effects = (
        Line((m.chunk(b, m.sign("="), m.number("0")), m.chunk(m.words("with probability"), m.name("\u2002"), share))),
        Line((m.chunk(b, m.sign("~")), m.chunk(slab)), "otherwise"),
    )
    blocks = [Block("The tests", tuple(lines)), Block("The effects", effects)]
    blocks += [] if found.covariate is None else [Block("Groups of tests", _groups(found))]
    return (*blocks, Block("Hyperpriors", tuple(_prior(name, found) for name in found.all_priors if name in SYMBOLS)))


def _prior(name: str, found: ScreenReading) -> Line:
    prior, symbol = found.all_priors[name], _symbol(name)
    if isinstance(prior, Fixed):
        return Line((m.chunk(symbol, m.sign("="), m.number(f"{prior.value:.4g}")),), "held fixed", name)
    if found.estimate is not None:
        return Line((m.chunk(symbol),), "no prior: where the marginal likelihood is largest (empirical Bayes)", name)
    note = "of a typical group of tests" if found.covariate is not None and name in ("pi0", "slab_sd") else ""
    base = getattr(prior, "base", None)
    if base is None:
        return Line((m.chunk(symbol, m.sign("~")), m.chunk(distribution(_short(prior)))), note, name)
    low, high = prior.low, prior.high
    bounds = f"between {low:g} and {high:g}" if (low, high) != (0.0, np.inf) else ""
    logged = m.row(m.name("log"), m.name("\u2009"), symbol)
    words = "; ".join(w for w in (bounds, note) if w)
    return Line((m.chunk(logged, m.sign("~")), m.chunk(distribution(_short(base)))), words, name)


def _short(prior: Any) -> str:
    """The prior with numbers of at most 4 digits, such as a log median of -0.578045."""
    text = str(prior)
    name, _, inside = text.partition("(")
    if not inside.endswith(")"):
        return text
    return f"{name}({', '.join(_number(part.strip()) for part in inside[:-1].split(','))})"


def _number(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return text if len(text) <= 6 else significant(value, 4)


def board(found: ScreenReading) -> str:
    """Return the model as plain text.

    >>> import finetti as fi
    >>> found = ScreenReading(fi.screen([0.5, -3.0, 1.0] * 10, null="theoretical"))
    >>> print(board(found).splitlines()[0])
    x[j] ~ Normal(b[j], s[j]²)   j = 1, …, 30
    """
    free, errors = found.null == "free", _errors(found)
    law = {"normal": "Normal", "t": f"t({found.screened.df[0]:.4g}; ", "ts": "t(df[j]; "}[errors]
    inside = "μ₀ s[j] + b[j], (σ₀ s[j])²" if free else "b[j], s[j]²"
    first = f"x[j] ~ {law}{'(' if errors == 'normal' else ''}{inside})   j = 1, …, {found.n_tests:,}"
    slab, share = _slab(found)[1], "π₀"
    if found.covariate is not None:
        slab, share = slab.replace("τ", "τ[g[j]]"), "π₀[g[j]]"
    lines = [first, f"b[j] = 0 with probability {share}", f"b[j] ~ {slab} otherwise"]
    if found.covariate is not None:
        if found.covariate.value is None:
            lines.append(f"logit π₀[g] ~ Normal(logit π₀, ω_π²)   levels of {found.covariate.name}")
            lines.append("log τ[g] ~ Normal(log τ, ω_τ²)")
        else:
            lines.append(
                "logit π₀[g] = logit π₀ + Σ_k B[g, k] c[k], c[k] ~ Normal(0, ω_π²)   B: a spline, g: bins of "
                f"{found.covariate.name}"
            )
            lines.append("log τ[g] = log τ + Σ_k B[g, k] d[k], d[k] ~ Normal(0, ω_τ²)")
    for name, prior in found.all_priors.items():
        if name not in PLAIN:
            continue
        if isinstance(prior, Fixed):
            told = f"= {prior.value:.4g}"
        elif found.estimate is not None:
            told = "maximises the marginal likelihood"
        elif hasattr(prior, "base"):
            ends = "" if (prior.low, prior.high) == (0.0, np.inf) else f", {prior.low:g} to {prior.high:g}"
            told = f"~ exp({_short(prior.base)}){ends}"
        else:
            told = f"~ {_short(prior)}"
        lines.append(f"{PLAIN[name]} {told}   {name}")
    return "\n".join(lines)
