"""The code that makes a screen again, as text that runs: data where they are few, call, seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetti.inference.spike_slab_by_priors import spread_priors
from finetti.inference.spike_slab_priors import resolve_priors
from finetti.show.arguments import as_python
from finetti.show.recipe import MOST_NUMBERS, folded
from finetti.show.screen_reading import ScreenReading

__all__ = ["call", "lines"]


def lines(found: ScreenReading, given: str | None = None) -> list[str]:
    """Return the whole program; `given` is the call where it is known, as it is on the command line."""
    own = [given] if given else [*_preamble(found), call(found)]
    imports = ["import finetti as fi"]
    if any("pd." in line for line in own):
        imports.append("import pandas as pd")
    return [*imports, "", *own, "", "print(found.discoveries(fdr=0.05))", "print(found.hyper())"]


def call(found: ScreenReading) -> str:
    """Return the call of `finetti.screen`; only what differs from the defaults is written, and the seed always."""
    if found.moderated is not None:
        given = ["moderated"]
        if len(found.moderated.contrasts) > 1:
            given.append(f"contrast={str(found.screened.effect_name)!r}")
        given += ["by=by"] if found.covariate is not None else []
        return folded("found = fi.screen(", [*given, *_options(found)])
    given = [repr(_name(found)), *([] if found.screened.z_values else ["'se'"]), "data=data"]
    df = np.asarray(found.screened.df, float)
    if np.isfinite(df).any():
        given.append(f"df={df[0]:g}" if df.min() == df.max() else "df='df'")
    if _labelled(found):
        given.append(f"labels={_label(found)!r}")
    if found.covariate is not None:
        given.append(f"by={_by(found)!r}")
    return folded("found = fi.screen(", [*given, *_options(found)])


def _options(found: ScreenReading) -> list[str]:
    usual = resolve_priors(None, found.null, float(np.median(found.screened.se)))
    usual |= spread_priors(None)[0]
    other = {name: prior for name, prior in found.all_priors.items() if str(prior) != str(usual.get(name, prior))}
    every: list[tuple[str, Any, Any]] = [("null", found.null, "free"), ("slab", found.slab.name, "normal")]
    every += [("priors", other, {}), ("method", found.method, "full")]
    given: dict[str, Any] = {name: value for name, value, default in every if value != default}
    given["seed"] = found.seed
    return [f"{name}={as_python(value)}" for name, value in given.items()]


def _name(found: ScreenReading) -> str:
    return str(found.screened.effect_name)


def _labelled(found: ScreenReading) -> bool:
    labels = found.screened.labels
    return not (labels.name == "test" and labels.equals(type(labels)(range(len(labels)))))


def _label(found: ScreenReading) -> str:
    return str(found.screened.labels.name)


def _preamble(found: ScreenReading) -> list[str]:
    """The data, spelt out where they are few, else a line that says which table is wanted."""
    if found.moderated is not None:
        m = found.moderated
        design = repr(m.formula) if m.formula else "design"
        given = ['"matrix.csv"', design, f"contrasts={list(m.contrasts)!r}"]
        given += ["trend=True"] if m.trend is not None else []
        given += [f"method={m.method!r}"] if m.method != "full" else []
        given += ['data="samples.csv"'] if m.formula else []
        told = "# your matrix of genes and samples, and the table of the samples"
        made = [told, folded("moderated = fi.moderate(", given)]
        if found.covariate is not None:
            made.append(
                f'by = pd.read_csv("genes.csv", index_col=0)[{_by(found)!r}]  # a value for each gene, by its name'
            )
        return made
    s, columns = found.screened, {}
    columns[_name(found)] = s.effect
    if not s.z_values:
        columns["se"] = s.se
    df = np.asarray(s.df, float)
    if np.isfinite(df).any() and df.min() < df.max():
        columns["df"] = df
    names = [*columns, *([_label(found)] if _labelled(found) else [])]
    if found.covariate is not None or len(names) * s.n > MOST_NUMBERS:
        names += [_by(found)] if found.covariate is not None else []
        return [f'data = "data.csv"  # your table, {s.n:,} tests; needs the columns {", ".join(names)}']
    rows = [f"    {name!r}: {[_plain(v) for v in values.tolist()]!r}," for name, values in columns.items()]
    if _labelled(found):
        rows.append(f"    {_label(found)!r}: {s.labels.tolist()!r},")
    return ["data = pd.DataFrame({", *rows, "})"]


def _by(found: ScreenReading) -> str:
    return str(found.covariate.name or "by")


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e15 else value
