"""The frozen `Model`: everything that is assumed, before anything has been observed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, TypeVar

from finetti.errors import ModelError, NotBuiltError, available
from finetti.model import bind as _bind
from finetti.model.display import board
from finetti.model.formula import Formula, parse
from finetti.model.prior_keys import check_priors, group_names, has_sigma
from finetti.model.priors import Prior
from finetti.model.resolve import symbolic
from finetti.model.sketch import sketch

__all__ = ["POOLING", "Frozen", "Model"]

POOLING = ("partial", "empirical", "complete", "none")

V = TypeVar("V")


class Frozen(Mapping[str, V]):
    """A mapping that cannot change, so that a model can be compared, hashed, copied and pickled as a value.

    >>> Frozen({"sigma": 1})
    {'sigma': 1}
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


@dataclass(frozen=True, init=False, repr=False)
class Model:
    """A hierarchical model without data.

    Parameters
    ----------
    formula : str or Formula
        Wilkinson notation with group terms, such as ``"Reaction ~ 1 + Days + (1 + Days | Subject)"``.
    family : str
        Distribution of the response given its predictor: "gaussian".
    link : str, optional
        "identity", which is what None stands for.
    priors : mapping of str to Prior, optional
        By label (``"sd_Subject[Days]"``), variable (``"sd_Subject"``) or class (``"beta"``, ``"sd"``, ``"cor"``,
        ``"sigma"``); the narrowest wins. ``"Intercept"`` is the prior of the predictor at the covariates' means,
        ``"beta[Intercept]"`` that of the coefficient itself; the class ``"beta"`` reaches the intercept in the first
        sense. What is not given gets a weakly informative default that scales with the data.
    structure, parent : None
        Known covariance among levels and heavy-tailed parents; not built yet.
    pooling : str or mapping of str to str
        For all group terms or by grouping factor: "partial" (full Bayes), "empirical" (hyperparameters at the
        maximum of the marginal likelihood), "complete" (sd 0) or "none" (sd infinite).

    Raises
    ------
    FormulaError, PriorError, ModelError
        When a part cannot be read or contradicts another.
    NotBuiltError
        When a part of the design is asked for that does not exist yet.

    Examples
    --------
    >>> from finetti.model.priors import half_cauchy, normal
    >>> priors = {"Intercept": normal(0, 20), "sd": half_cauchy(5)}
    >>> model = Model("effect | se(sigma) ~ 1 + (1 | school)", priors=priors)
    >>> print(model)
    effect | se(sigma) ~ 1 + (1 | school)
    <BLANKLINE>
    Likelihood
      effect[i] ~ Normal(μ[i], sigma[i]²)   i over the rows
      μ[i] = β[Intercept] + u_school[j[i], Intercept]
    <BLANKLINE>
    Parent distributions
      u_school[j, Intercept] ~ Normal(0, sd_school[Intercept]²)   j over the levels of school, j[i] that of row i
    <BLANKLINE>
    Priors on the population coefficients   (normal(mean, sd), unlike Normal(mean, variance) above)
      β[Intercept] ~ normal(0, 20)  given as 'Intercept'
    <BLANKLINE>
    Hyperpriors   (on standard deviations; a ² marks a variance)
      sd_school[Intercept] ~ half_cauchy(5)  given as 'sd'
    """

    formula: Formula
    family: str
    link: None
    priors: Mapping[str, Prior]
    structure: None
    parent: None
    pooling: str | Mapping[str, str]

    def __init__(
        self,
        formula: str | Formula,
        *,
        family: str = "gaussian",
        link: str | None = None,
        priors: Mapping[str, Prior] | None = None,
        structure: Any = None,
        parent: Any = None,
        pooling: str | Mapping[str, str] = "partial",
    ) -> None:
        parsed = _formula(formula)
        _check_built(parsed, family, link, structure, parent)
        values = {
            "formula": parsed,
            "family": family,
            "link": None,
            "priors": Frozen(check_priors(priors, parsed)),
            "structure": None,
            "parent": None,
            "pooling": _pooling(pooling, group_names(parsed)),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def pooling_of(self, term: str) -> str:
        """Return the kind of pooling of a grouping factor, such as "Subject" or "a:b".

        >>> Model("y ~ 1 + (1 | a) + (1 | b)", pooling={"a": "complete"}).pooling_of("b")
        'partial'
        """
        names = group_names(self.formula)
        if term not in names:
            raise ModelError(f"{term!r} is not a grouping factor of the model. {_choices(term, names)}")
        return self.pooling if isinstance(self.pooling, str) else self.pooling.get(term, "partial")

    def bind(self, data: Any, missing: str = "error") -> Any:
        """Meet the data: build the design, check it, and resolve every prior.

        Parameters
        ----------
        data : data frame or path
            Any eager frame that narwhals reads, or a path to a CSV or Parquet file.
        missing : {"error", "drop"}
            What to do with rows that have missing values.

        Returns
        -------
        finetti.data.bound.Bound
        """
        return _bind.bind(self, data, missing)

    def __str__(self) -> str:
        columns, factors = sketch(self.formula)
        priors, sources = symbolic(
            self,
            columns=columns,
            intercept="Intercept" in columns,
            factors=[(f.name, f.coefficients, f.blocks) for f in factors],
            has_sigma=has_sigma(self.formula),
            response=_response(self.formula),
        )
        text = board(self.formula, priors=priors, sources=sources, pooling=self.pooling)
        return text + _legend(text, self.formula, columns)

    def __repr__(self) -> str:
        rest = "".join(
            f", {name}={value!r}"
            for name, value, usual in (("priors", self.priors, {}), ("pooling", self.pooling, "partial"))
            if value != usual
        )
        return f"Model({str(self.formula)!r}{rest})"


def _formula(formula: Any) -> Formula:
    if isinstance(formula, Formula):
        return formula
    if isinstance(formula, str):
        return parse(formula)
    raise ModelError(
        f"the formula is of type {type(formula).__name__}; give text such as 'y ~ 1 + x + (1 | g)' "
        "(were formula and data swapped?)."
    )


def _check_built(formula: Formula, family: Any, link: Any, structure: Any, parent: Any) -> None:
    if not (isinstance(family, str) and family == "gaussian"):
        raise NotBuiltError(f"family={family!r} is not built yet; what exists: 'gaussian'.")
    if not (link is None or (isinstance(link, str) and link == "identity")):
        raise NotBuiltError(
            f"link={link!r} is not built yet; what exists: None or 'identity'. "
            "For a log scale write the response as log(y) in the formula."
        )
    if structure is not None:
        raise NotBuiltError(
            f"structure={shorten(repr(structure), 60)}: known covariance among levels is not built yet; "
            "what exists: independent levels (leave structure out)."
        )
    if parent is not None:
        raise NotBuiltError(
            f"parent={parent!r}: other parent distributions are not built yet; "
            "what exists: the normal (leave parent out)."
        )
    for name in ("trials", "cens"):
        if getattr(formula.response, name) is not None:
            raise NotBuiltError(
                f"{name}() on the left side of the formula is not built yet; what exists: se(), weights(). "
                f"The formula was {str(formula)!r}."
            )


def _pooling(pooling: Any, names: tuple[str, ...]) -> str | Frozen[str]:
    if isinstance(pooling, Mapping):
        for name, kind in pooling.items():
            if name not in names:
                raise ModelError(f"pooling: {name!r} is not a grouping factor of the model. {_choices(name, names)}")
            _check_kind(kind, f"pooling[{name!r}]")
        return Frozen(pooling)
    _check_kind(pooling, "pooling")
    return str(pooling)


def _check_kind(kind: Any, where: str) -> None:
    if not isinstance(kind, str) or kind not in POOLING:
        raise ModelError(f"{where}={kind!r} is not a kind of pooling; {available(str(kind), POOLING)}.")


def _choices(given: Any, names: tuple[str, ...]) -> str:
    tail = available(str(given), names) if names else "The formula has no group terms"
    return tail[0].upper() + tail[1:] + "."


def _response(formula: Formula) -> str:
    return " - ".join((formula.response.expression, *formula.offsets))


def _legend(text: str, formula: Formula, columns: tuple[str, ...]) -> str:
    """Explain the symbols of the defaults, which become numbers when data are bound."""
    symbols = []
    if re.search(r"\bs[/)]", text):
        at_least = "" if formula.response.se is None else f" (at least the median of {formula.response.se})"
        symbols.append(f"s = sd({_response(formula)}){at_least}")
    if "rms(" in text:
        symbols.append("rms the root mean square")
    lines = [f"{', '.join(symbols)}: numbers once data are bound."] if symbols else []
    if any("(" in column for column in columns):
        lines.append("A category or a spline becomes several columns then.")
    return "\n\n" + "\n".join(lines) if lines else ""
